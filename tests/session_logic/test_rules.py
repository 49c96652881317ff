"""The timing rules: what they refuse, and their one meaning of due, at the moment and beside it."""

import pytest

from session_logic.errors import ConfigError
from session_logic.rules import Rules, Session, is_due, next_heartbeat_ms, owed_heartbeats

T = 1_700_000_000_000


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ((0, 0), "max_session_ms"),
        ((-1, 10), "heartbeat_ms"),
        ((11, 10), "max_session_ms"),
        ((10, 10, -1), "deduplication_window_ms"),
    ],
)
def test_times_that_contradict_are_refused(times: tuple[int, ...], text: str) -> None:
    """A wrong relation is found when the rules are made."""
    with pytest.raises(ConfigError, match=text):
        Rules(*times)


@pytest.mark.parametrize(("beside_ms", "due"), [(-1, False), (0, True), (1, True)])
def test_due_is_at_the_moment_and_after(beside_ms: int, *, due: bool) -> None:
    """One definition for timer, end and restore."""
    assert is_due(T, T + beside_ms) is due


@pytest.mark.parametrize(
    ("max_session_ms", "upto_ms", "sequences"),
    [
        (100, 29, []),
        (100, 30, [1]),
        (100, 60, [1, 2]),
        (100, 99, [1, 2, 3]),
        (100, 500, [1, 2, 3]),
        (90, 89, [1, 2]),
        (90, 90, [1, 2]),
        (90, 500, [1, 2]),
        (30, 500, []),
    ],
)
def test_no_heartbeat_is_owed_at_or_after_the_timeout(
    max_session_ms: int, upto_ms: int, sequences: list[int]
) -> None:
    """Whether the longest session is a multiple of the interval or not."""
    rules = Rules(30, max_session_ms)
    session = Session("d", "s", "pc", T)
    owed = owed_heartbeats(session, rules, after_ms=T, upto_ms=T + upto_ms)
    assert [beat.sequence for beat in owed] == sequences
    newest = owed_heartbeats(session, rules, after_ms=T, upto_ms=T + upto_ms, at_most=1)
    assert newest == owed[-1:]


@pytest.mark.parametrize(
    ("fired_ms", "due_ms"),
    [(-50, 30), (0, 30), (29, 30), (30, 60), (59, 60), (60, 90), (89, 90), (90, None)],
)
def test_next_heartbeat_is_the_first_that_has_not_been_sent(
    fired_ms: int, due_ms: int | None
) -> None:
    """One due at the moment up to which all is sent has been; none is due at the timeout."""
    session = Session("d", "s", "pc", T)
    expected = None if due_ms is None else T + due_ms
    assert next_heartbeat_ms(session, Rules(30, 100), T + fired_ms) == expected
    assert next_heartbeat_ms(session, Rules(0, 100), T + fired_ms) is None
    if due_ms == 90:
        assert next_heartbeat_ms(session, Rules(30, 90), T + fired_ms) is None
