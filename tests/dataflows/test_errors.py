"""What an operator reads of an error that Bytewax or SQLite has wrapped."""

from pathlib import Path

from dataflows.errors import ClusterError, unwrap_error
from session_logic.errors import ConfigError, SnapshotError


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
    panic = type("PanicException", (BaseException,), {})("Send thread panic: Any { .. }")
    found = unwrap_error(wrapped(panic))
    assert isinstance(found, ClusterError)
    assert "panic" not in str(found)
    assert "start all of them again" in str(found)
