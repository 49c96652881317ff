"""The newest recorded row of a device against its recorded starts and ends."""

from heartwheel.recording.active_table import ActiveTable
from heartwheel.recording.recorded import Recorded
from session_logic.events import Heartbeat, OutputEvent, SessionActive, SessionEnd
from session_logic.output import row_of

FROM_MS, CUT_MS, MAX_MS = 1_000, 9_000, 60_000
OUT_MS = 5_000


def start(session: str, started_ms: int = 2_000) -> SessionActive:
    """Return a start of the only device."""
    return SessionActive("d", session, "pc", started_ms, started_ms)


def end(session: str, started_ms: int = 2_000) -> SessionEnd:
    """Return the end of such a session."""
    return SessionEnd("d", session, "pc", started_ms, started_ms + 500, "ended", 500)


def settled(
    events: list[OutputEvent],
    rows: list[SessionActive | None],
    sent_ms: int = OUT_MS,
    unreached: list[OutputEvent] | None = None,
) -> str:
    """Return as what the device counts."""
    table = ActiveTable(MAX_MS, FROM_MS, CUT_MS)
    for event in events:
        table.note_event(event, sent_ms)
    for active in rows:
        table.note("d", Recorded(row_of(active, MAX_MS), 0, 0, 0, "table"))
    for event in unreached or []:
        table.note_unreached(event)
    differences = list(table.differences())
    assert [difference.title for difference in differences] in ([], ["row of d"])
    counted = [kind for kind, n in table.counts.items() if n]
    return counted[0] if counted else "difference" if differences else "nothing"


def test_newest_row_is_the_session_that_is_active() -> None:
    """Rows before it do not matter: a crash repeats them, and compaction removes them."""
    a, b = start("a"), start("b", 3_000)
    assert settled([a], [a]) == "equal"
    assert settled([a, end("a"), b], [a, None, b]) == "equal"
    assert settled([a, end("a"), b], [b, None, b]) == "equal"
    assert settled([a, end("a"), b], [a]) == "difference"
    assert settled([a], [start("a", 2_001)]) == "difference"
    assert settled([a], []) == "difference"


def test_device_without_a_session_has_a_null_or_nothing() -> None:
    """The null is removed as well, after a while."""
    assert settled([start("a"), end("a")], [start("a"), None]) == "equal"
    assert settled([start("a"), end("a")], []) == "equal"
    assert settled([start("a"), end("a")], [start("a")]) == "difference"
    assert settled([], [None]) == "equal"
    assert settled([], [start("a")]) == "difference"


def test_end_of_another_session_leaves_the_active_one() -> None:
    """A session that was void ends beside it."""
    a, b = start("a"), start("b", 3_000)
    assert settled([a, b, end("a")], [b]) == "equal"
    assert settled([b, end("b", 3_000)], [b]) == "difference"
    assert settled([b, end("b", 3_000)], [None]) == "equal"


def test_row_may_be_ahead_of_the_output_or_behind_it_where_the_recording_ends() -> None:
    """Ahead, it is what comes next in the replay; behind, what was sent in the last moment."""
    a, beat = start("a"), Heartbeat("d", "a", "pc", 2_000, 2_100, 1)
    assert settled([a], [None], unreached=[beat, end("a")]) == "equal"
    assert settled([a], [None], unreached=[beat]) == "difference"
    assert settled([a], [], CUT_MS + 1) == "unreached"
    assert settled([a], [], CUT_MS) == "difference"


def test_session_that_began_before_the_recording_may_lack_its_start_or_its_row() -> None:
    """What was before is not known."""
    old = start("old", FROM_MS - 1)
    assert settled([], [old]) == "earlier"
    assert settled([old], []) == "earlier"


def test_record_of_another_program_is_a_difference() -> None:
    """It is no row."""
    table = ActiveTable(MAX_MS, FROM_MS, CUT_MS)
    table.note("d", Recorded(b"hello", 0, 0, 0, "table"))
    (difference,) = table.differences()
    assert difference.rows == [(b"", b"hello")]
