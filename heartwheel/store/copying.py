"""A copy of a store, and the new directory that a copy, a backup or a migration is made in."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from dataflows.errors import find_shortage, make_room, sqlite_failure
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError


def copy_store(source: Path, target: Path) -> None:
    """Copy a stopped store to a new directory, the write-ahead log of a killed run included.

    Raises StoreInUseError for a running one, ConfigError if there is something at the target.
    """
    with new_folder(target) as folder, Recovery(source, alone=True) as store:
        copy_parts(store, folder)


def copy_parts(store: Recovery, folder: Path) -> None:
    """Copy the parts of an open store to a folder, as of the moment at which they are read."""
    for part in store.parts:
        try:
            with closing(sqlite3.connect(folder / part.path.name)) as copy:
                part.db.backup(copy)
        except sqlite3.Error as error:
            short = find_shortage(error)  # which can be told only as long as the parts are open
            if short is not None:
                raise short from None
            raise


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside the target; it becomes the target if all goes well.

    Raises ConfigError if that cannot be, SnapshotError if SQLite cannot write it.
    """
    if target.exists():
        raise ConfigError(f"{target} exists; name a directory that does not")
    parents = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(dir=target.parent, prefix=f"{target.name}-unfinished-"))
        folder.chmod(0o755)
    except OSError as error:
        msg = f"{target} cannot be made: {error.strerror}; name one where this user can write"
        raise ConfigError(msg) from None
    try:
        yield folder
        _finish(folder, target)
    except BaseException as error:
        failure = sqlite_failure(error)
        if failure is None:
            raise
        msg = (
            f"{target} cannot be made ({failure}); {make_room()}, and see with "
            "`heartwheel store check` that the source is intact"
        )
        raise SnapshotError(msg) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in parents:  # that were made for it; one with the target in it stays
            with suppress(OSError):
                parent.rmdir()


def _finish(folder: Path, target: Path) -> None:
    """Give a folder its name, so that it has it after a loss of power as well."""
    try:
        _write_out(folder)
        folder.rename(target)
        _write_out(target.parent)
    except OSError as error:
        raise ConfigError(f"{target} cannot be made: {error.strerror}") from None


def _write_out(folder: Path) -> None:
    """Have the disk know what is in a folder, as SQLite has it know its files."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
