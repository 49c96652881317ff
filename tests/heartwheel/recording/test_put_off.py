"""A session that an outage has kept from going silent, of which its replay knows nothing."""

from pathlib import Path

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from dataflows.settings import Settings
from heartwheel.recording.format import Line
from session_logic.codec import encode_output
from session_logic.events import OutputEvent, SessionEnd
from tests.support.compared import compared, raced_line
from tests.support.recordings import (
    BEGIN_MS,
    event_line,
    event_of,
    is_output,
    lines_of,
    recorded_run,
    rewrite,
)

IDLE_MS = 5_000
SETTINGS = Settings(lanes=1, heartbeat_ms=1_000, idle_timeout_ms=IDLE_MS, catch_up="all")
# c1 says nothing until its timeout is over; of the others a heartbeat comes every half second.
INPUT = [
    event_line("c1", "Start", "mute", BEGIN_MS),
    event_line("c1", "End", "mute", BEGIN_MS + 9_200),
    *(event_line("c3", "Start", f"c{n}", BEGIN_MS + 300 + n * 4_000) for n in range(5)),
    *(event_line("p1", "Start", f"p{n}", BEGIN_MS + 750 + n * 4_000) for n in range(5)),
]
BEGUN_MS, OVER_MS = BEGIN_MS + 2_000, BEGIN_MS + 4_400
SILENT_MS = OVER_MS + IDLE_MS  # where silence has begun anew


def later(line: Line, end: SessionEnd, time_ms: int, *, silent: bool) -> Line:
    """Return a later end of the session that the replay takes for silent."""
    event = replace(
        end,
        time_ms=time_ms,
        reason="went_silent" if silent else "ended",
        duration_ms=0 if silent else time_ms - end.started_ms,
        last_seen_ms=end.last_seen_ms if silent else UNSET,
    )
    return replace(line, value=encode_output(event).decode(), timestamp_ms=time_ms + 3)


def silent_end(event: OutputEvent | None) -> SessionEnd | None:
    """Return the end that the replay makes of silence, if a record is that."""
    return event if isinstance(event, SessionEnd) and event.session_id == "mute" else None


def run(
    path: Path,
    last: list[tuple[int, bool]],
    outage_ms: tuple[int, int] = (BEGUN_MS, OVER_MS),
) -> dict[str, int]:
    """Compare a run in which the session had four more heartbeats and these ends, if any.

    In an outage nothing is sent; with one that is over at once there is none.
    """
    whole = recorded_run(path, SETTINGS, INPUT, BEGIN_MS + 20_000)
    assert compared(whole) == ({}, [])
    lines: list[Line] = []
    for line in lines_of(whole):
        event = event_of(line) if is_output(whole, line) else None
        end = silent_end(event)
        if end is not None:
            lines += [raced_line(line, end, sequence) for sequence in range(6, 10)]
            lines += [later(line, end, time_ms, silent=silent) for time_ms, silent in last]
        elif event is not None and outage_ms[0] < line.timestamp_ms < outage_ms[1]:
            lines.append(replace(line, timestamp_ms=outage_ms[1]))
        else:
            lines.append(line)
    return compared(rewrite(whole, path, lines))[0]


@pytest.mark.parametrize(
    "last",
    [
        pytest.param([(SILENT_MS, True)], id="silent later"),
        pytest.param([(BEGIN_MS + 9_200, False)], id="ended"),
        pytest.param([], id="not ended yet"),
    ],
)
def test_session_that_goes_on_through_an_outage_is_put_off(
    tmp_path: Path, last: list[tuple[int, bool]]
) -> None:
    """Without an outage it is a difference."""
    assert run(tmp_path / "r", last) == {"raced": 4, "put_off": 1}
    assert run(tmp_path / "s", last, (0, 0)) == {"raced": 4, "differences": 1}


def test_silent_end_that_is_earlier_or_doubled_is_a_difference(tmp_path: Path) -> None:
    """What is put off comes once, and never before the timeout."""
    early = [(BEGIN_MS + IDLE_MS - 1, True)]
    assert run(tmp_path / "r", early)["differences"] > 0
    twice = [(SILENT_MS, True), (SILENT_MS, True)]
    assert run(tmp_path / "s", twice) == {"raced": 4, "put_off": 1, "differences": 1}


def test_outage_after_the_timeout_proves_nothing(tmp_path: Path) -> None:
    """Only one between what was last heard and the timeout keeps a session from its end."""
    after_ms = BEGIN_MS + 9_500, BEGIN_MS + 12_500
    counts = run(tmp_path / "r", [(SILENT_MS, True)], after_ms)
    assert counts == {"raced": 4, "differences": 1}
