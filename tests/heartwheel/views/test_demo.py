"""The view of the demonstration fits a terminal of 80 columns."""

import io
import json

from msgspec.structs import replace
from rich.console import Console

from heartwheel.views.demo import DemoView
from session_logic.codec import encode_output
from session_logic.events import Heartbeat, OutputEvent, SessionActive, SessionEnd


def test_last_records_show_session_and_reason_at_80_columns() -> None:
    """The longest ids of the fleet, and the longest reason, are not cut."""
    view = DemoView("http://127.0.0.1:8080/")
    who = ("device-399", "session-10000", "console", 1_000)
    events: list[OutputEvent] = [
        SessionActive(*who, 1_000),
        Heartbeat(*who, 3_000, 12),
        SessionEnd(*who, 11_000, "timed_out", 10_000),
    ]
    for event in events:
        view.add(event, event.time_ms + 2, encode_output(event))
    out = io.StringIO()
    Console(file=out, width=80).print(view.render(600, 12.0, 2_000))
    text = out.getvalue()
    assert text.count("device-399  session-10000  console") == 3
    assert "sequence 12 " in text
    assert "timed_out, 10.0 s" in text
    assert "…" not in text
    assert "status page http://127.0.0.1:8080/" in text
    assert len(text.splitlines()) <= 24
    assert view.counts["SessionEnd timed_out"] == 1
    assert view.active == 0


def test_examples_stand_below_fewer_records_at_80_columns() -> None:
    """A record that went in, and what came of it, are whole; long ids are cut elsewhere."""
    view = DemoView("http://127.0.0.1:8080/")
    device = "6fb86ebc-3d88-4e31-b913-ea939acacf56"
    end = SessionEnd(device, "9402035216", "console", 1_000, 11_000, "ended", 10_000)
    for number in range(3):
        view.add(replace(end, time_ms=11_000 + number), 12_000, encode_output(end))
    given = json.dumps({"openPsid": device, "eventId": "ApplicationSessionEndBi"}).encode()
    example = ("console_sessions", given, encode_output(end))
    out = io.StringIO()
    Console(file=out, width=80).print(view.render(600, 12.0, 2_000, [example]))
    text = out.getvalue()
    assert text.count("6fb86ebc-3d88…  9402035216  console") == 1
    shown = "".join(line.strip("│ ") for line in text.splitlines()).replace(" ", "")
    for what in example:
        assert (what if isinstance(what, str) else what.decode()).replace(" ", "") in shown
    assert len(text.splitlines()) <= 24
