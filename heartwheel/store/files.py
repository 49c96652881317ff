"""The files of a store, which must stay where they are for as long as a run has them open.

A run goes on writing to a file that was moved or deleted, and notices nothing. What it has stored
is gone with it then, or in another place, and what lies at the path is not what it wrote.
"""

from pathlib import Path
from threading import Event, Thread

from dataflows.logs import log
from session_logic.errors import SnapshotError

LOOK_S = 5.0
# So many looks lie between two lines of the log.
LOOKS_A_LINE = 12


class StoreFiles:
    """The partitions of a store as they were when a run took it."""

    def __init__(self, folder: Path) -> None:
        """Note which files there are; `watch` looks after them."""
        self._folder = folder
        self._files = {path: _identity(path) for path in folder.glob("*.sqlite3")}
        self._over = Event()

    def check(self) -> None:
        """Raise SnapshotError if one is not there any more, or is another one."""
        gone = [path.name for path, known in self._files.items() if _identity(path) != known]
        if gone:
            msg = (
                f"recovery store {self._folder} was moved, replaced or deleted while a run had it "
                f"({', '.join(sorted(gone))}): move it back before the next start; what is deleted "
                "can be copied from /proc/PID/fd as long as the process lives, and is lost then"
            )
            raise SnapshotError(msg)

    def watch(self) -> None:
        """Have the log say so from now on, as long as it is so."""
        Thread(target=self._watch, name="store files", daemon=True).start()

    def _watch(self) -> None:
        looks = 0
        while not self._over.wait(LOOK_S):
            try:
                self.check()
                looks = 0
            except SnapshotError as error:
                if looks % LOOKS_A_LINE == 0:
                    log.error(str(error))
                looks += 1

    def release(self) -> None:
        """Look no more; raises SnapshotError as `check` does."""
        self._over.set()
        self.check()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
