"""What records would become, as lines for terminals of any width and for pipes."""

import re
from typing import Any

import pytest

from heartwheel.events.records import SeenRecord
from heartwheel.events.trial import Outcome
from heartwheel.views.trial import as_json, count_line, trial_lines

DEVICE, SESSION = "6fb86ebc-3d88-4e31-b913-ea939acacf56", "9402035216"
REASON = "field appSessionId is true: text or a whole number of 1 to 128 characters is needed"


def outcome(number: int = 7, key: bytes | None = b"k1", **changes: Any) -> Outcome:
    """Return what a record has become."""
    seen = SeenRecord(name=f"0/{number}", time_ms=1_790_000_000_123, key=key, value=b"", headers=[])
    return Outcome(record=seen, **({"becomes": "start"} | changes))


START = outcome(device_id=DEVICE, session_id=SESSION, platform="pc", time_ms=1_789_999_999_000)
END = outcome(
    8, becomes="end", device_id="d", platform="pc", time_ms=1_790_000_000_123, late=True,
    carried=b'"title":"Astro"',
)  # fmt: skip
REJECTED = outcome(1_000, becomes="rejected", reason="not_an_event", detail=REASON)
SKIPPED = outcome(10, becomes="skipped", reason="other", detail="field eventId is 'Setting'")
PING = outcome(11, becomes="ping", reason="ping")
ALL = [START, END, REJECTED, SKIPPED, PING]


def plain(outcomes: list[Outcome], columns: int | None) -> list[str]:
    """Return the lines without their colours."""
    return [line.plain for line in trial_lines(outcomes, columns)]


def test_pipe_gets_one_line_for_each_with_everything_in_it() -> None:
    """Nothing is cut or folded, however wide."""
    stamp = "2026-09-21 14:13:20.123Z"
    head, *rows = plain(ALL, None)
    assert [re.split(" {2,}", row) for row in (head, *rows)] == [
        ["record", "timestamp", "key", "becomes", "device", "session", "platform",
         "event time", "context"],
        ["0/7", stamp, "k1", "start", DEVICE, SESSION, "pc", "2026-09-21 14:13:19.000Z"],
        ["0/8", stamp, "k1", "end", "d", "(the active one)", "pc", f"{stamp} (late)",
         '"title":"Astro"'],
        ["0/1000", stamp, "k1", "rejected", f"not_an_event: {REASON}"],
        ["0/10", stamp, "k1", "skipped", "field eventId is 'Setting'"],
        ["0/11", stamp, "k1", "ping"],
    ]  # fmt: skip
    places = {row.index(one.becomes) for row, one in zip(rows, ALL, strict=True)}
    assert places == {head.index("becomes")}


@pytest.mark.parametrize("columns", [20, 40, 80, 100, 120, 200])
def test_terminal_of_any_width_gets_all_words_and_no_line_beyond_it(columns: int) -> None:
    """What does not fit beside its record is below it, and ids are not torn apart."""
    lines = plain(ALL, columns)
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    assert not set(REASON.split()) - set(words)
    if columns > len(DEVICE) + 4:
        assert words.count(DEVICE) + words.count(f"{DEVICE},") == 1
        assert words.count("14:13:19.000Z") == 1


def test_long_reason_is_folded_beside_its_record() -> None:
    """Where there is room for the columns of an event."""
    lines = plain([outcome(key=None, becomes="rejected", reason="not_json", detail="x " * 80)], 100)
    assert lines[1].startswith("0/7     2026-09-21 14:13:20.123Z  rejected  not_json: x x")
    assert all(line.startswith(" " * 44 + "x") for line in lines[2:])


def test_columns_in_which_nothing_is_are_left_out() -> None:
    """Lines of a file have neither key nor timestamp."""
    seen = SeenRecord(name="line 1", time_ms=None, key=None, value=b"", headers=[])
    one = Outcome(record=seen, becomes="end", device_id="d", session_id="s", platform="pc")
    assert plain([one], 80) == [
        "record  becomes  device  session  platform",
        "line 1  end      d       s        pc",
    ]


def test_what_senders_have_chosen_gives_no_orders_to_a_terminal() -> None:
    """Also not in a reason."""
    evil = "\x1b[31m\n\u202e"
    some = [
        outcome(key=evil.encode(), device_id=evil, session_id=evil, platform=evil, time_ms=1),
        outcome(becomes="rejected", reason="not_json", detail=evil),
    ]
    for columns in (None, 80):
        assert all(line.isprintable() for line in plain(some, columns))


def test_long_key_is_cut() -> None:
    """It may have as many bytes as a record."""
    assert f"{'k' * 59}…  start" in plain([outcome(key=b"k" * 5_000, device_id="d")], None)[1]


def test_counts_name_what_is_there_and_what_is_late() -> None:
    """In the order of what is best."""
    assert count_line(ALL) == (
        "5 records: 1 start, 1 end, 1 ping, 1 skipped, 1 rejected, 1 late, so with their records' "
        "timestamps"
    )
    assert count_line([START]) == "1 record: 1 start"


def test_json_has_every_part_under_its_name() -> None:
    """What does not apply is null."""
    assert as_json("t", END) == {
        "topic": "t",
        "record": "0/8",
        "timestamp_ms": 1_790_000_000_123,
        "key": "k1",
        "becomes": "end",
        "reason": None,
        "detail": None,
        "device_id": "d",
        "session_id": "",
        "platform": "pc",
        "time_ms": 1_790_000_000_123,
        "late": True,
        "context": {"title": "Astro"},
    }
    found = as_json("t", REJECTED)
    assert (found["reason"], found["detail"]) == ("not_an_event", REASON)
    assert found["device_id"] is found["time_ms"] is None
