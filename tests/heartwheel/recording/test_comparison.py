"""What a recorded run may differ in from its replay, and that nothing else passes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import UNSET, Raw
from msgspec.structs import replace

from dataflows.settings import Settings
from heartwheel.kafka.headers import MARK
from heartwheel.recording.format import Header, Line
from heartwheel.recording.reader import Recording
from session_logic.events import Context, Heartbeat, OutputEvent, SessionEnd
from tests.support.compared import beat_of, compared, raced_line, with_event
from tests.support.recordings import (
    BEGIN_MS,
    event_line,
    event_of,
    is_output,
    lines_of,
    recorded_run,
    rewrite,
    write,
)

LATEST = Settings(lanes=2, heartbeat_ms=1_000, max_session_ms=8_000)
ALL = replace(LATEST, catch_up="all")
END_MS = BEGIN_MS + 20_000
# c1 ends between two heartbeats; c2 times out; c3 and p1 beat on, at other moments.
INPUT = [
    event_line("c1", "Start", "a", BEGIN_MS),
    event_line("c2", "Start", "b", BEGIN_MS + 10),
    event_line("c1", "End", "a", BEGIN_MS + 5_500),
    *(event_line("c3", "Start", f"c{n}", BEGIN_MS + 300 + n * 4_000) for n in range(5)),
    *(event_line("p1", "Start", f"p{n}", BEGIN_MS + 750 + n * 4_000) for n in range(5)),
]
ENDS_MS = {"a": BEGIN_MS + 5_500, "c0": BEGIN_MS + 4_300, "p0": BEGIN_MS + 4_750}


def edited(
    path: Path, settings: Settings, edit: Callable[[Line, OutputEvent], list[Line]]
) -> Recording:
    """Return a recording whose output lines went through edit, one by one."""
    whole = recorded_run(path, settings, INPUT, END_MS)
    assert compared(whole) == ({}, [])
    lines = [
        new
        for line in lines_of(whole)
        for new in (edit(line, event_of(line)) if is_output(whole, line) else [line])
    ]
    return rewrite(whole, path, lines)


def put_off(line: Line, end: SessionEnd, sequence: int) -> Line:
    """Return the end of a session at the time of a heartbeat that had been sent."""
    duration_ms = sequence * 1_000
    event = replace(end, time_ms=end.started_ms + duration_ms, duration_ms=duration_ms)
    return replace(with_event(line, event), timestamp_ms=event.time_ms + 10)


def test_heartbeat_due_after_the_end_but_sent_before_it_has_raced(tmp_path: Path) -> None:
    """The end has a timestamp before the heartbeat was due, and was read after."""

    def edit(line: Line, event: OutputEvent) -> list[Line]:
        if not isinstance(event, SessionEnd) or event.session_id != "a":
            return [line]
        return [raced_line(line, event, 6), raced_line(line, event, 7), put_off(line, event, 7)]

    assert compared(edited(tmp_path / "r", LATEST, edit)) == ({"raced": 3}, [])


def test_end_with_the_time_of_a_heartbeat_that_was_not_sent_has_not_raced(tmp_path: Path) -> None:
    """What put it off is the last heartbeat that is out."""

    def edit(line: Line, event: OutputEvent) -> list[Line]:
        if not isinstance(event, SessionEnd) or event.session_id != "a":
            return [line]
        return [raced_line(line, event, 6), put_off(line, event, 7)]

    counts, _ = compared(edited(tmp_path / "r", LATEST, edit))
    assert counts == {"raced": 1, "differences": 1}


@pytest.mark.parametrize(("late_ms", "counts"), [(0, {"raced": 1}), (1, {"differences": 1})])
def test_end_at_a_heartbeat_that_a_killed_run_had_not_sent_to_its_topic_has_raced(
    tmp_path: Path, late_ms: int, counts: dict[str, int]
) -> None:
    """The run after it does not know of that heartbeat; the end has its very time."""
    path, settings = tmp_path / "r", replace(LATEST, heartbeat_topic="beats")
    whole = recorded_run(path, settings, INPUT, END_MS)
    lines: list[Line] = []
    for line in lines_of(whole):
        event = event_of(line) if is_output(whole, line) else None
        if isinstance(event, Heartbeat):
            lines.append(replace(line, topic="beats"))
        elif isinstance(event, SessionEnd) and event.session_id == "a":
            time_ms = event.started_ms + 6_000 + late_ms
            later = replace(event, time_ms=time_ms, duration_ms=6_000 + late_ms)
            lines.append(replace(with_event(line, later), timestamp_ms=time_ms + 10))
        else:
            lines.append(line)
    assert compared(rewrite(whole, path, lines))[0] == counts


def test_end_that_was_sent_with_a_later_heartbeat_is_a_difference(tmp_path: Path) -> None:
    """A run that knows of the heartbeat does not end the session before it.

    One that was begun after a crash may not know of it, and is later.
    """

    def edit(line: Line, event: OutputEvent) -> list[Line]:
        if not isinstance(event, SessionEnd) or event.session_id != "a":
            return [line]
        return [with_event(line, beat_of(event, 6)), line]

    counts, differences = compared(edited(tmp_path / "at once", LATEST, edit))
    assert [difference.name for difference in differences] == ["c1"]

    def later(line: Line, event: OutputEvent) -> list[Line]:
        lines = edit(line, event)
        return [*lines[:-1], replace(lines[-1], timestamp_ms=lines[-1].timestamp_ms + 1)]

    counts, differences = compared(edited(tmp_path / "later", LATEST, later))
    assert (counts, differences) == ({"raced": 1}, [])


def test_heartbeat_due_before_the_end_and_doubled_has_not_raced(tmp_path: Path) -> None:
    """Only what was due after the end can have been sent too early, and only once."""

    def edit(line: Line, event: OutputEvent) -> list[Line]:
        if not isinstance(event, SessionEnd) or event.session_id != "a":
            return [line]
        raced = raced_line(line, event, 6)
        return [raced_line(line, event, 5), raced, raced, put_off(line, event, 6)]

    counts, differences = compared(edited(tmp_path / "r", LATEST, edit))
    assert counts["differences"] > 1
    assert [difference.name for difference in differences] == ["c1"]


CARRIED = Raw(b'{"account":"x"}')


@pytest.mark.parametrize(
    ("of_heartbeat", "of_end", "counts"),
    [(UNSET, UNSET, {"raced": 2}), (UNSET, CARRIED, {"differences": 1}), (CARRIED, UNSET, {})],
)
def test_record_with_another_context_is_a_difference(
    of_heartbeat: Context, of_end: Context, counts: dict[str, int], tmp_path: Path
) -> None:
    """A heartbeat that has raced has no field that its session does not have; an end has all."""

    def edit(line: Line, event: OutputEvent) -> list[Line]:
        if not isinstance(event, SessionEnd) or event.session_id != "a":
            return [line]
        beat = replace(beat_of(event, 6), context=of_heartbeat)
        time_ms = event.started_ms + 6_000
        end = replace(event, time_ms=time_ms, duration_ms=6_000, context=of_end)
        return [with_event(line, beat), with_event(line, end)]

    found, differences = compared(edited(tmp_path / "r", LATEST, edit))
    assert bool(differences) is (counts != {"raced": 2})
    assert counts.items() <= found.items()


def test_timeout_before_an_end_with_an_earlier_timestamp_has_raced(tmp_path: Path) -> None:
    """The end is then one of an idle device, and ignored."""
    path = tmp_path / "r"
    late = [*INPUT, event_line("c2", "End", "b", BEGIN_MS + 7_500)]
    whole = recorded_run(path, LATEST, INPUT, END_MS)
    output = [line for line in lines_of(whole) if is_output(whole, line)]
    recording = write(path, whole.manifest.preface, [*late, *output], END_MS)
    assert compared(recording) == ({"raced": 1}, [])


def test_late_timeout_and_heartbeats_before_it_have_not_raced(tmp_path: Path) -> None:
    """A timeout is not read, so nothing can come before it."""
    recording = recorded_run(tmp_path / "r", ALL, INPUT, END_MS)
    counts, differences = compared(recording, changes={"max_session_ms": "7000"})
    assert counts == {"differences": 2}  # a heartbeat in place of the timeout, and a late one
    assert [difference.name for difference in differences] == ["c2"]


def test_heartbeats_left_out_in_an_outage_are_skipped_under_latest_only(tmp_path: Path) -> None:
    """The newest of each session comes when the outage is over; under `all` the rest is lost."""
    begin_ms, resumed_ms = BEGIN_MS + 4_100, BEGIN_MS + 7_900

    def edit(line: Line, event: OutputEvent) -> list[Line]:
        if not begin_ms < event.time_ms <= resumed_ms:
            return [line]
        until_ms = min(resumed_ms, ENDS_MS.get(event.session_id, resumed_ms))
        newest = event.time_ms > until_ms - LATEST.heartbeat_ms
        beat = isinstance(event, Heartbeat)
        return [] if beat and not newest else [replace(line, timestamp_ms=resumed_ms)]

    counts, differences = compared(edited(tmp_path / "latest", LATEST, edit))
    assert differences == []
    assert counts == {"skipped": counts["skipped"]}
    assert counts["skipped"] > 4
    counts, differences = compared(edited(tmp_path / "all", ALL, edit))
    assert counts["differences"] > 4
    assert {difference.name for difference in differences} == {"c2", "c3", "p1"}


def test_heartbeat_left_out_while_others_beat_is_a_difference(tmp_path: Path) -> None:
    """Where the run was alive, there was no outage to skip in."""

    def edit(line: Line, event: OutputEvent) -> list[Line]:
        lost = isinstance(event, Heartbeat) and (event.session_id, event.sequence) == ("b", 3)
        return [] if lost else [line]

    counts, differences = compared(edited(tmp_path / "r", LATEST, edit))
    assert counts == {"differences": 1}
    assert differences[0].name == "c2"


def test_what_was_due_after_the_last_heartbeat_is_unreached(tmp_path: Path) -> None:
    """A run that was stopped owes what came later; what it owed before is a difference."""

    def stopped(line: Line, event: OutputEvent) -> list[Line]:
        return [line] if event.time_ms < BEGIN_MS + 15_000 else []

    counts, differences = compared(edited(tmp_path / "r", ALL, stopped), last_ms=1_000)
    assert differences == []
    assert 1 <= counts["unreached"] <= 8

    def stopped_and_lost(line: Line, event: OutputEvent) -> list[Line]:
        lost = event.device_id == "p1" and event.time_ms > BEGIN_MS + 12_000
        return [] if lost else stopped(line, event)

    counts, differences = compared(edited(tmp_path / "r", ALL, stopped_and_lost), last_ms=1_000)
    assert {difference.name for difference in differences} == {"p1"}


LONG = replace(ALL, max_session_ms=30_000)
OPENED_MS = BEGIN_MS + 15_600  # when the run reads the start of c1, 16 heartbeats late


def opened_late(
    path: Path,
    edit: Callable[[list[Line]], list[Line]],
    settings: Settings = LONG,
    newest: int = 10,
) -> Recording:
    """Return a recording in which a session has only the newest of its first 15 heartbeats.

    edit gets what was sent with the start.
    """
    lines = [event_line("c1", "Start", "a", BEGIN_MS), *INPUT[3:]]
    whole = recorded_run(path, settings, lines, END_MS)
    late, others = list[Line](), list[Line]()
    for line in lines_of(whole):
        if not is_output(whole, line) or line.key != "c1" or event_of(line).time_ms > OPENED_MS:
            others.append(line)
        else:
            late.append(replace(line, timestamp_ms=OPENED_MS))
    sent = edit([late[0], *late[-newest:]])
    output = [line for line in others if is_output(whole, line)]
    kept = [line for line in others if not is_output(whole, line)]
    output = sorted([*sent, *output], key=lambda line: line.timestamp_ms)
    return rewrite(whole, path, [*kept, *output])


def test_heartbeats_that_a_late_start_has_not_brought_are_missed(tmp_path: Path) -> None:
    """It has the newest ten with it, and the wheel goes on from there."""
    recording = opened_late(tmp_path / "r", lambda sent: sent)
    assert compared(recording) == ({"missed": 5}, [])


def test_late_start_with_fewer_or_other_heartbeats_is_a_difference(tmp_path: Path) -> None:
    """Ten, no more and no fewer, without a gap, sent at once, and all of them due."""
    edits: list[Callable[[list[Line]], list[Line]]] = [
        *(lambda sent, n=n: [*sent[:n], *sent[n + 1 :]] for n in range(11)),
        lambda sent: [*sent, sent[-1]],
        lambda sent: [sent[0], sent[2], sent[1], *sent[3:]],
        lambda sent: [replace(line, timestamp_ms=OPENED_MS - 5_000) for line in sent],
    ]
    for number, edit in enumerate(edits):
        counts, differences = compared(opened_late(tmp_path / str(number), edit))
        assert counts.get("differences", 0) > 0, number
        assert {difference.name for difference in differences} == {"c1"}
    for newest in (9, 11, 12):
        counts, differences = compared(
            opened_late(tmp_path / f"newest {newest}", lambda sent: sent, newest=newest)
        )
        assert {difference.name for difference in differences} == {"c1"}, newest


def test_end_before_heartbeats_that_a_late_start_has_brought_has_raced(tmp_path: Path) -> None:
    """An end that is later in the log and earlier in time has the time of the last of them."""
    path = tmp_path / "r"
    recording = opened_late(path, lambda sent: sent)
    lines = [line for line in lines_of(recording)
             if not is_output(recording, line) or line.key != "c1"
             or line.timestamp_ms <= OPENED_MS]  # fmt: skip
    last = next(n for n in reversed(range(len(lines))) if lines[n].key == "c1"
                and is_output(recording, lines[n]))  # fmt: skip
    beat = event_of(lines[last])
    end = SessionEnd("c1", "a", "console", BEGIN_MS, beat.time_ms, "ended", beat.time_ms - BEGIN_MS)
    lines.insert(last + 1, replace(with_event(lines[last], end), timestamp_ms=OPENED_MS + 1))
    lines.append(event_line("c1", "End", "a", BEGIN_MS + 8_500))
    counts, differences = compared(rewrite(recording, path, lines))
    assert differences == []
    assert counts == {"missed": 5, "raced": 8}


def test_recording_without_output_is_all_difference(tmp_path: Path) -> None:
    """A run that has sent nothing has not been replayed to the same output."""
    recording = edited(tmp_path / "r", ALL, lambda _line, _event: [])
    counts, _ = compared(recording)
    assert counts["differences"] > 10


def test_sessions_from_before_the_recording_are_earlier(tmp_path: Path) -> None:
    """A recording that begins in the middle has output whose cause it does not have."""
    path = tmp_path / "r"
    whole = recorded_run(path, ALL, INPUT, END_MS)
    from_ms = BEGIN_MS + 6_000
    kept = [line for line in lines_of(whole) if line.timestamp_ms >= from_ms]
    preface = replace(whole.manifest.preface, from_ms=from_ms)
    counts, differences = compared(write(path, preface, kept, END_MS))
    assert differences == []
    assert counts == {"earlier": counts["earlier"]}
    assert counts["earlier"] > 3


def test_mark_of_a_letter_that_was_sent_again_is_no_difference(tmp_path: Path) -> None:
    """It stands in the dead-letter topic, but is no dead letter; another record there is one."""
    recording = recorded_run(tmp_path / "run", LATEST, INPUT, END_MS)
    for header, differences in ((MARK, 0), ("other", 1)):
        mark = Line(
            "dead-letters", 0, 0, BEGIN_MS + 10, headers=[Header(header, "pc-events/0/0/0")]
        )
        marked = rewrite(recording, tmp_path / header, [*lines_of(recording), mark])
        assert len(compared(marked)[1]) == differences
