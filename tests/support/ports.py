"""Ports of loopback for the servers of tests, several runs of them at once included."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Linux gives clients ports from 32768 on, so none of them takes one of these.
PORTS = range(10_000, 32_000)
_CHOICE = random.SystemRandom()


class _Ports:
    """The ports that this process has taken; a lock keeps other test runs from them."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        folder = Path(tempfile.gettempdir())
        self._locks = (folder / f"heartwheel-test-ports-{os.getuid()}").open("w")

    def take(self) -> int:
        """Return a loopback port that nobody has, and no test gets until this process ends."""
        while True:
            port = _CHOICE.choice(PORTS)
            if port not in self._taken and self._lock(port) and _is_free(port):
                self._taken.add(port)
                return port

    def _lock(self, port: int) -> bool:
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


free_port = _Ports().take
