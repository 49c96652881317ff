"""A PostgreSQL of a test's own, on loopback."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.ports import free_port

WAIT_S = 30


def program(name: str) -> str:
    """Return the path of a server program, which Debian keeps outside PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or str(found[-1])


class Postgres:
    """A server; it does not run as root, so it is given to nobody where the tests do."""

    def __init__(self) -> None:
        """Make its files and start it."""
        self._port = free_port()
        self._folder = TemporaryDirectory(prefix="postgres-")
        self._data = Path(self._folder.name)
        self._user: dict[str, str] = {}
        if os.geteuid() == 0:
            self._user = {"user": "nobody", "group": "nogroup"}
            shutil.chown(self._data, **self._user)
        subprocess.run(
            [program("initdb"), "-D", self._data, "-U", "test", "--auth=trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self._data,
            **self._user,  # type: ignore[call-overload]
        )
        options = ["-p", str(self._port), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            [program("postgres"), "-D", self._data, *options],
            stderr=subprocess.DEVNULL,
            cwd=self._data,
            **self._user,  # type: ignore[call-overload]
        )
        self._wait()

    @property
    def address(self) -> str:
        """How libpq reaches it."""
        return f"host=127.0.0.1 port={self._port} user=test dbname=postgres"

    def _wait(self) -> None:
        deadline = time.monotonic() + WAIT_S
        ready = [program("pg_isready"), "-h", "127.0.0.1", "-p", str(self._port)]
        while subprocess.run(ready, check=False, capture_output=True).returncode:
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it at once."""
        self._process.terminate()
        self._process.wait(WAIT_S)
        self._folder.cleanup()
