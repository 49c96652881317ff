"""A real schema registry for tests: Apicurio's, from Maven, which speaks as Confluent's does."""

import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.support.broker import ROOT
from tests.support.maven import fetch
from tests.support.ports import free_port

VERSION = "2.6.13.Final"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
FOLDER = ROOT / ".cache" / f"apicurio-{VERSION}"
JAR = f"apicurio-registry-app-{VERSION}-runner.jar"
START_S = 90


def fetch_registry() -> Path:
    """Return the folder of the registry, got with Maven on first use."""
    return fetch(FOLDER, "dependency:copy", f"-Dartifact={ARTIFACT}", unpack=_unpack)


def _unpack(folder: Path) -> None:
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()


class RealRegistry:
    """A registry that has its schemas still when it is killed and started again."""

    def __init__(self, folder: Path) -> None:
        """Have no schemas yet; `start` starts it."""
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "registry.log").open("ab") as log:
            options = ["-Xmx256m", "-XX:+UseSerialGC", "-Dquarkus.http.host=127.0.0.1"]
            options += [f"-Dquarkus.http.port={self._port}", "-jar", str(fetch_registry() / JAR)]
            self._process = subprocess.Popen(
                ["java", *options],
                cwd=self._folder,
                env=os.environ
                | {"REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{self._folder}/schemas"},
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                self._ask("subjects")
            except (URLError, ConnectionError):
                assert self._process.poll() is None, "the registry has ended"
                assert time.monotonic() < deadline_s, "the registry does not answer"
                time.sleep(0.2)
            else:
                return

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def resume(self) -> None:
        """Start it again if it was killed."""
        if self._process is None:
            self.start()

    def register(self, subject: str, schema: object, **more: object) -> int:
        """Register a schema, and return its id."""
        body = {"schema": json.dumps(schema), **more}
        return self._ask(f"subjects/{subject}/versions", body)["id"]

    def _ask(self, path: str, body: object = None) -> dict[str, int]:
        request = Request(  # noqa: S310  # our own address
            f"{self.url}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        with urlopen(request, timeout=10) as response:  # noqa: S310
            found: dict[str, int] = json.load(response)
        return found
