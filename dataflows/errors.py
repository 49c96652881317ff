"""What an operator reads of errors that the rules, Bytewax, SQLite or the system have found.

Where a process has too few open files, too little memory or too few threads, whatever fails tells
a story of its own: SQLite cannot open a store, Kafka does not answer, a directory cannot be used.
So an error that ends a process is looked at for such a cause first.
"""

import os
import re
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from session_logic.errors import (
    RESTORE_COPY,
    ConfigError,
    HeartwheelError,
    SnapshotError,
    StateMismatchError,
)

# How Bytewax words what SQLite says.
_FAILURE = re.compile(r'SqliteFailure\(.*?Some\("(.*?)"\)')

# So much is written to find out whether a disk is full: no less than a small snapshot.
_PROBE_BYTES = 1 << 20
# What SQLite opens at once: a file, its log, and the index of the log.
_SQLITE_FILES = 3
_LIMITS = "docs/settings.md#limits-of-the-system says what a run needs"
# How the system, Python, Rust, SQLite and librdkafka word what is short.
_FILES = ("Too many open files",)
_MEMORY = ("Cannot allocate memory", "out of memory")
_THREADS = ("can't start new thread", "failed to spawn thread", "Failed to create thread")


class ShortageError(HeartwheelError):
    """The system gives a process too little: raise the limit that is named, then start again."""


class ClusterError(HeartwheelError):
    """Another process of the cluster is gone: all stop, and all must be started again."""


def lanes_mismatch(error: StateMismatchError) -> ConfigError:
    """Return the error for a store that was made for another number of lanes than is set."""
    return ConfigError(
        f"HEARTWHEEL_LANES is {error.wanted}, but the recovery store was made for {error.stored}; "
        f"set it back to {error.stored}, or move to {error.wanted} lanes with "
        f"`heartwheel store migrate --lanes {error.wanted}` and a new output topic"
    )


def unwrap_error(error: BaseException, recovery_dir: Path | None = None) -> HeartwheelError | None:
    """Return the error of ours inside one of Bytewax's, or the one to tell in its place, or None.

    That is also what is short, if that is the cause, and with a recovery directory what SQLite
    says of the store.
    """
    short = find_shortage(error)
    if short is not None:
        return short
    for one in _causes(error):
        if isinstance(one, HeartwheelError):
            return one
        is_panic = type(one).__name__ == "PanicException"  # of the threads that talk to the others
        # It comes in place of what SQLite has said, if that has ended this process.
        failure = recovery_dir and (_sqlite_says(one) or (is_panic and _unwritable(recovery_dir)))
        if failure:
            return SnapshotError(
                f"recovery store {recovery_dir} cannot be written ({failure}); {make_room()}, or "
                f"{RESTORE_COPY}, and start again"
            )
        if is_panic:
            return ClusterError(
                "the connection to another process of the cluster is lost; start all of them "
                "again: they resume from the last snapshot"
            )
    return None


def sqlite_failure(error: BaseException) -> str | None:
    """Return what SQLite says, to Python or to Bytewax, where that has ended something."""
    if isinstance(error, HeartwheelError):
        return None
    return next(filter(None, map(_sqlite_says, _causes(error))), None)


def _sqlite_says(error: BaseException) -> str | None:
    if isinstance(error, sqlite3.Error):
        return str(error)
    found = _FAILURE.search(str(error))
    return found and found[1]


def _unwritable(folder: Path) -> str | None:
    """Return why nothing more can be written to the files of a directory; None if it can."""
    try:
        largest = max((file.stat().st_size for file in folder.iterdir()), default=0)
        with TemporaryFile(dir=folder, buffering=0) as probe:
            probe.truncate(largest + _PROBE_BYTES)
            probe.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.strerror
    return None


def find_shortage(error: BaseException) -> ShortageError | None:
    """Return the error to tell instead of one that comes of a shortage; None for another one.

    To be called while what the process has open is still open.
    """
    for one in reversed(list(_causes(error))):
        if isinstance(one, ShortageError):
            return one
        what = _first_part(one)
        if any(words in what for words in _FILES):
            return too_few_files(what)
        # Damaged data can ask for any amount of memory, and whoever reads it says so.
        no_memory = isinstance(one, MemoryError) and not isinstance(error, HeartwheelError)
        if no_memory or any(words in what for words in _MEMORY):
            in_words = f" ({what})" if what else ""
            return ShortageError(f"there is too little memory{in_words}: give it more; {_LIMITS}")
        if any(words in what for words in _THREADS):
            return ShortageError(
                f"no more threads can be started ({what}): raise the limit (`ulimit -u`, or that "
                f"of the service or container) and start again; {_LIMITS}"
            )
    return None if _can_open_files() else too_few_files(_first_part(error))


def make_room() -> str:
    """Return what to do where a file cannot be written.

    SQLite takes a limit of the size of files for a broken disk, so one is named if it is set.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return "make room on its disk"
    return f"make room on its disk, or raise the limit of {limit} bytes a file (`ulimit -f`)"


def too_few_files(what: str) -> ShortageError:
    """Return the error for a process that may not open as many files as it needs."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return ShortageError(
        f"this process needs more open files than its limit of {limit} ({what}): raise it "
        f"(`ulimit -n`, or that of the service or container) and start again; {_LIMITS}"
    )


def _can_open_files() -> bool:
    """Say whether SQLite could open another file, with what belongs to it."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_SQLITE_FILES))
    except OSError:
        return False
    finally:
        for file in opened:
            os.close(file)
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then what has caused it, shown or not; each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _first_part(error: BaseException) -> str:
    """Return what an error says, without what it advises."""
    return " ".join(str(error).split()).partition("; ")[0]
