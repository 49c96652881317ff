"""Recorded summaries against the recorded ends, as they come, and at the end of a recording."""

from msgspec.structs import replace

from heartwheel.recording.recorded import Recorded
from heartwheel.recording.summaries import Summaries
from session_logic.events import SessionEnd
from session_logic.summary import summary_of

FROM_MS, CUT_MS = 1_000, 9_000


def end(session: str, started_ms: int = 2_000) -> SessionEnd:
    """Return the end of a session of the only device."""
    return SessionEnd("d", session, "pc", started_ms, started_ms + 500, "ended", 500)


def found(one: SessionEnd) -> Recorded:
    """Return the summary of a session as it was recorded."""
    return Recorded(summary_of(one), 0, 0, 0, "summaries")


def settled(
    ends: list[tuple[SessionEnd, int]],
    summaries: list[SessionEnd],
    unreached: list[SessionEnd] | None = None,
) -> tuple[dict[str, int], int]:
    """Return the counts, and how many differences there are."""
    check = Summaries(FROM_MS, CUT_MS)
    for one in summaries[::2]:  # some come before the end, and some after it
        check.note("d", found(one))
    for one, sent_ms in ends:
        check.note_end(one, sent_ms)
    for one in unreached or []:
        check.note_unreached(one)
    for one in summaries[1::2]:
        check.note("d", found(one))
    count = sum(difference.count for difference in check.differences())
    return {kind: n for kind, n in check.counts.items() if n}, count


def test_each_end_has_its_summary_in_its_order() -> None:
    """One lost, one twice and one in another place are differences, and the others are equal."""
    a, b, c = end("a"), end("b"), end("c")
    ends = [(a, 3_000), (b, 4_000), (c, 5_000)]
    check = Summaries(FROM_MS, CUT_MS)
    for order, count in (
        ([a, b, c], 0), ([a, c], 1), ([a, b, b, c], 1), ([a, b, c, c], 1), ([b, a, c], 2),
    ):  # fmt: skip
        check = Summaries(FROM_MS, CUT_MS)
        for one, sent_ms in ends:
            check.note_end(one, sent_ms)
        for one in order:
            check.note("d", found(one))
        differences = list(check.differences())
        assert sum(difference.count for difference in differences) == count
        assert {difference.title for difference in differences} <= {"summary of d"}
        assert check.counts["equal"] == (2 if count == 2 or len(order) == 2 else 3)


def test_summary_of_an_end_of_the_last_moment_may_be_missing() -> None:
    """Its topic was read up to an earlier moment; an end that was sent before that needs one."""
    assert settled([(end("a"), CUT_MS + 1)], []) == ({"unreached": 1}, 0)
    assert settled([(end("a"), CUT_MS)], []) == ({}, 1)


def test_summary_without_an_end_is_a_difference_unless_the_end_is_unreached() -> None:
    """A run that was killed may have sent the one and not the other; but not twice."""
    a = end("a")
    assert settled([], [a]) == ({}, 1)
    assert settled([], [a], [a]) == ({"unreached": 1}, 0)
    assert settled([], [a, a], [a]) == ({"unreached": 1}, 1)
    later = replace(a, time_ms=a.time_ms + 100, duration_ms=600)  # after a heartbeat that has raced
    assert settled([], [later], [a]) == ({"unreached": 1}, 0)
    assert settled([], [a], [later]) == ({}, 1)
    assert settled([], [a], [end("b")]) == ({}, 1)


def test_session_that_began_before_the_recording_may_lack_either() -> None:
    """The recording begins in one topic a little earlier than in the other."""
    old, new = end("old", FROM_MS - 1), end("new")
    assert settled([(new, 3_000)], [old, new]) == ({"equal": 1, "earlier": 1}, 0)
    assert settled([(old, 2_000), (new, 3_000)], [new]) == ({"equal": 1, "earlier": 1}, 0)
    assert settled([(old, 2_000)], []) == ({"earlier": 1}, 0)
    assert settled([], [old]) == ({"earlier": 1}, 0)


def test_record_of_another_program_is_a_difference() -> None:
    """It is no summary."""
    check = Summaries(FROM_MS, CUT_MS)
    check.note("d", Recorded(b"hello", 0, 0, 0, "summaries"))
    (difference,) = check.differences()
    assert difference.rows == [(None, b"hello")]
