"""What an operator reads of an error that Bytewax or SQLite has wrapped."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataflows.errors import ClusterError, ShortageError, find_shortage, unwrap_error
from session_logic.errors import ConfigError, SnapshotError
from tests.support.disk import fill, small_disk


def wrapped(inner: BaseException) -> BaseException:
    """Return an error as Bytewax raises it, with another as its cause."""
    outer = RuntimeError("(src/worker.rs:1) error calling logic")
    middle = ValueError("error in step sessions")
    outer.__cause__, middle.__context__ = middle, inner
    return outer


def test_error_of_ours_is_found_in_a_wrapped_one() -> None:
    """However deep, by cause or by context."""
    ours = ConfigError("what is wrong")
    assert unwrap_error(wrapped(ours)) is ours
    assert unwrap_error(ours) is ours


def test_error_of_nobody_we_know_is_none() -> None:
    """It is a fault of the program; also where causes go round in a circle."""
    assert unwrap_error(wrapped(KeyError("x"))) is None
    circle = wrapped(KeyError("x"))
    circle.__cause__.__context__ = circle  # type: ignore[union-attr]
    assert unwrap_error(circle) is None


def test_full_disk_under_the_store_says_what_to_do(tmp_path: Path) -> None:
    """SQLite's words are kept, Rust's are not."""
    error = RuntimeError('SqliteFailure(Error { code: 13 }, Some("database or disk is full"))')
    assert unwrap_error(wrapped(error)) is None
    found = unwrap_error(wrapped(error), tmp_path)
    assert isinstance(found, SnapshotError)
    assert f"{tmp_path} cannot be written (database or disk is full); make room" in str(found)


def test_panic_of_a_connection_is_told_without_the_words_of_rust() -> None:
    """Which thread it was helps nobody."""
    found = unwrap_error(wrapped(panic()))
    assert isinstance(found, ClusterError)
    assert "panic" not in str(found)
    assert "start all of them again" in str(found)


def panic() -> BaseException:
    """Return what the threads of Bytewax that talk to other processes raise."""
    return type("PanicException", (BaseException,), {})("Send thread panic: Any { .. }")


def test_panic_of_a_connection_where_the_store_cannot_be_written_says_so(tmp_path: Path) -> None:
    """It comes in place of what SQLite said; each process of a cluster says what it finds."""
    with small_disk(tmp_path / "disk", 4) as disk:
        assert isinstance(unwrap_error(wrapped(panic()), disk), ClusterError)
        fill(disk)
        found = unwrap_error(wrapped(panic()), disk)
        assert isinstance(found, SnapshotError)
        assert f"{disk} cannot be written (No space left on device); make room" in str(found)
        assert [file.name for file in disk.iterdir()] == ["ballast"]


def test_panic_of_a_connection_where_files_may_not_grow_names_the_limit(tmp_path: Path) -> None:
    """The store's own files count, and not how much room there is."""
    (tmp_path / "part-0.sqlite3").write_bytes(bytes(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        found = unwrap_error(wrapped(panic()), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(found, SnapshotError)
    assert "cannot be written (File too large)" in str(found)


def cannot_be_used(cause: BaseException) -> BaseException:
    """Return an error of ours that guesses at what is wrong."""
    error = ConfigError(f"recovery cannot be used: {cause}; it must be a directory")
    error.__context__ = cause  # as `raise ... from None` leaves it
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (cannot_be_used(OSError(24, "Too many open files", "/x")), "open files than its limit of"),
        (cannot_be_used(OSError(23, "Too many open files in system")), "open files than its limit"),
        (
            ConfigError("no answer (Failed to create socket: Too many open files); check"),
            "limit of",
        ),
        (ConfigError("an option is wrong: Failed to create thread: (11)"), "no more threads"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (wrapped(MemoryError()), "too little memory: give"),
        (OSError(12, "Cannot allocate memory"), "too little memory ([Errno 12]"),
    ],
)
def test_shortage_is_told_instead_of_what_came_of_it(error: BaseException, words: str) -> None:
    """Without the advice of the error, which is wrong then."""
    found = unwrap_error(error)
    assert isinstance(found, ShortageError)
    assert words in str(found)
    assert "docs/settings.md#limits" in str(found)
    assert "it must be a directory" not in str(found)
    assert "check" not in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize("cause", [OSError(13, "Permission denied", "/x"), MemoryError()])
def test_other_cause_is_no_shortage(cause: BaseException) -> None:
    """Nor is memory that damaged data has asked for, of which whoever reads it tells."""
    assert find_shortage(cannot_be_used(cause)) is None


@pytest.fixture
def no_more_files() -> Iterator[Callable[[], None]]:
    """Return what lets this process open no more files, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit() -> None:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_whatever_fails_while_no_file_can_be_opened_comes_of_that(
    no_more_files: Callable[[], None],
) -> None:
    """SQLite does not say why it cannot open a file, nor does whoever looks up a name."""
    error = SnapshotError("part-0 cannot be read (unable to open database file); restore a copy")
    assert find_shortage(error) is None
    no_more_files()
    found = find_shortage(error)
    assert found is not None
    assert "open files than its limit" in str(found)
    assert "part-0 cannot be read (unable to open database file)" in str(found)
    assert "restore" not in str(found)
