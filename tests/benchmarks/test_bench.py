"""What the benchmark is asked for, and when it fails."""

from typing import Any

import pytest

from benchmarks.bench import changes_of, is_good, parse


def test_check_is_short_and_its_settings_give_way_to_those_asked_for() -> None:
    """A heartbeat comes within its seconds; whoever sets another time gets that."""
    arguments = parse(["--check", "--set", "HEARTWHEEL_TICK_MS=5"])
    assert arguments.seconds == 10
    assert changes_of(arguments) == {"HEARTWHEEL_HEARTBEAT_MS": "5000", "HEARTWHEEL_TICK_MS": "5"}
    arguments = parse(["--check", "--seconds", "20", "--set", "HEARTWHEEL_HEARTBEAT_MS=2000"])
    assert arguments.seconds == 20
    assert changes_of(arguments) == {"HEARTWHEEL_HEARTBEAT_MS": "2000"}


def test_plain_run_changes_no_setting() -> None:
    """It measures what a user gets."""
    arguments = parse([])
    assert (arguments.seconds, changes_of(arguments)) == (60, {})


@pytest.mark.parametrize(
    ("report", "want"),
    [
        ({"exit_codes": [0, 0], "check": {"differences": {}}}, True),
        ({"exit_codes": [0], "check": {"differences": {"doubled": 1}}}, False),
        ({"exit_codes": [0, 1], "check": {"differences": {}}}, False),
        ({"exit_codes": [0]}, True),
    ],
    ids=["good", "a record twice", "a process failed", "idle"],
)
def test_any_difference_or_failed_process_is_a_failure(report: dict[str, Any], want: bool) -> None:  # noqa: FBT001
    """Speed is none."""
    assert is_good(report) is want
