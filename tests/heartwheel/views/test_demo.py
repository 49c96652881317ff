"""The view of the demonstration fits a terminal of 80 columns."""

import io

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
