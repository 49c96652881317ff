"""Dead letters as lines on a terminal, and as JSON."""

from typing import Any

from dataflows.messages import Headers, RecordId
from heartwheel.kafka.dead_letters import StoredDeadLetter
from heartwheel.kafka.headers import Origin
from heartwheel.views.dead_letters import as_json, list_lines, show_rows


def letter(number: int = 0, detail: str = "no JSON", headers: Headers | None = None) -> Any:
    """Return a dead letter as it is read."""
    return StoredDeadLetter(
        partition=0,
        offset=number,
        written_ms=1_790_000_000_123,
        origin=Origin(RecordId("pc-events", 3, 1_099), 1),
        reason="not_json",
        detail=detail,
        key=b"device-361",
        value=b"x",
        headers=headers or [],
        requeues=number,
        state="waiting",
    )


def test_letter_is_two_lines_on_a_terminal_and_none_is_folded() -> None:
    """The detail, which says most, has a line of its own; what does not fit is cut."""
    lines = list_lines([letter(0), letter(10, "\x1b" + "x" * 200)], 100)
    assert lines[:3] == [
        "0/0   2026-09-21 14:13:20  not_json  pc-events/3 offset 1099  waiting      device-361",
        "    no JSON",
        "0/10  2026-09-21 14:13:20  not_json  pc-events/3 offset 1099  waiting 10x  device-361",
    ]
    assert lines[3].startswith("    \\x1bxxx")
    assert lines[3].endswith("x…")
    assert len(lines[3]) == 100
    assert max(map(len, list_lines([letter()], 40))) == 40


def test_no_letters_are_no_lines() -> None:
    """The count below says so."""
    assert list_lines([], 100) == []


def test_headers_are_shown_and_bytes_of_them_are_base64_in_json() -> None:
    """As keys and values are."""
    found = letter(headers=[("traceparent", b"00-1"), ("raw", b"\xff"), ("none", None)])
    assert as_json(found)["headers"] == [
        {"name": "traceparent", "value": "00-1"},
        {"name": "raw", "value": None, "value_base64": "/w=="},
        {"name": "none", "value": None},
    ]
    shown = {row["dead letter"]: row["0/0"] for row in show_rows(found)}
    assert shown["headers"] == "traceparent=00-1, raw=\\xff, none="
