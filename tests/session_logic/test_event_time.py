"""Times as senders write them: every form gives the millisecond, and what is none gives None."""

import pytest

from session_logic.event_time import NEEDED, TimeUnit, time_reader

# 2025-11-01T00:06:45.123Z
T = 1_761_955_605_123
ISO = {
    "2025-11-01T00:06:45.123+00:00": T,
    "2025-11-01T00:06:45.123Z": T,
    "2025-11-01t00:06:45.123z": T,
    "2025-11-01T00:06:45.123": T,
    "2025-11-01 00:06:45.123": T,
    "2025-11-01 00:06:45,123": T,
    "2025-11-01T02:06:45.123+02:00": T,
    "2025-11-01T02:06:45.123+0200": T,
    "2025-11-01 02:06:45.123+02": T,
    "2025-10-31T18:36:45.123-05:30": T,
    "2025-11-01 02:06:45.123 +0200": T,
    "2025-11-01 00:06:45.123 UTC": T,
    "2025-11-01 00:06:45.123 Z": T,
    "20251101T000645.123Z": T,
    "20251101 000645.123": T,
    "2025-11-01T00:06:45.123456789Z": T,
    "2025-11-01T00:06:45.1239999Z": T,
    "2025-11-01T00:06:45Z": T - 123,
    "2025-11-01T00:06Z": T - 45_123,
    "1970-01-01T00:00:00Z": 0,
    "1969-12-31T23:59:59.9999Z": -1,
    "0001-01-01T00:00:00+23:59": -62_135_683_140_000,
}
NO_ISO = [
    None, True, 5, T, 5.5, "", "x", "now", "2025-11-01", "20251101", str(T), "2025110100645",
    "2025-11-01X00:06:45", "2025-13-01T00:00:00", "2025-11-01T25:00:00", "2025-02-30 00:00:00",
    "2025-11-01T00:06:45 CET", "2025-11-01T00:06:45+99:00", "\ud800",
    "\u0662\u0660\u0662\u0665-11-01T00:06:45Z",
    [], {}, b"2025-11-01T00:06:45Z",
]  # fmt: skip
NUMBERS: dict[TimeUnit, dict[object, int]] = {
    "s": {
        1_761_955_605: T - 123,
        1_761_955_605.123: T,
        1_761_955_605.1239: T,
        "1761955605": T - 123,
        "1761955605.123": T,
        "+1761955605.123999": T,
        -1: -1000,
        0: 0,
        1.001: 1001,
    },
    "ms": {T: T, float(T): T, T + 0.9: T, str(T): T, f"{T}.9": T, 1.76e12: 1_760 * 10**9, -5: -5},
    "us": {T * 1000: T, T * 1000 + 999: T, float(T * 1000): T, str(T * 1000): T, -1: -1, 0: 0},
}  # fmt: skip
NO_NUMBER = [
    None, True, False, "", " 5", "5 ", "1e9", "1_000", "0x10", "5.", ".5", "\u0665", "5" * 19,
    10**18, -(10**18), 1e300, float("inf"), float("nan"), "2025-11-01T00:06:45Z", [], {}, b"5",
]  # fmt: skip


@pytest.mark.parametrize("text", ISO)
def test_iso_8601_is_read_with_zone_and_without(text: str) -> None:
    """Without one it is UTC; what is finer than a millisecond is cut off."""
    assert time_reader("iso")(text) == ISO[text]


@pytest.mark.parametrize("value", NO_ISO)
def test_what_is_no_iso_8601_time_is_none(value: object) -> None:
    """A date has no time of day, and digits alone are a number."""
    assert time_reader("iso")(value) is None


@pytest.mark.parametrize("unit", NUMBERS)
def test_number_is_read_in_its_unit_as_number_and_as_text(unit: TimeUnit) -> None:
    """Fractions count, and are cut off after the millisecond."""
    for value, time_ms in NUMBERS[unit].items():
        assert time_reader(unit)(value) == time_ms, value


@pytest.mark.parametrize("unit", NUMBERS)
@pytest.mark.parametrize("value", NO_NUMBER)
def test_what_is_no_number_of_time_is_none(unit: TimeUnit, value: object) -> None:
    """Nothing is guessed."""
    assert time_reader(unit)(value) is None


def test_every_unit_says_what_is_needed() -> None:
    """It is part of a dead letter's detail."""
    assert NEEDED.keys() == {"iso", "s", "ms", "us"}
