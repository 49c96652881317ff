"""Events that are not where the contract wants them: counted each, told of once."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from dataflows.decode import Decode
from dataflows.messages import LaneBatch, PartitionBatch
from dataflows.placement import MAX_DEVICES, TELL_AGAIN_MS, Placement
from dataflows.run_state import RunState
from tests.support.clocks import FixedClock, T

HERE, THERE = ("pc", 0), ("pc", 1)


class Counted:
    """How many events were counted since it was made."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> dict[str, float]:
        name = "heartwheel_misplaced_events_total"
        return {
            cause: REGISTRY.get_sample_value(name, {"cause": cause}) or 0
            for cause in ("key", "partition")
        }

    def __call__(self) -> tuple[float, float]:
        """Return the numbers for key and partition."""
        now = self._now()
        return now["key"] - self._before["key"], now["partition"] - self._before["partition"]


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of the warnings."""
    return [record.msg for record in caplog.records if isinstance(record.msg, dict)]


def test_device_that_stays_where_it_is_is_not_counted() -> None:
    """Any number of devices and events, each keyed by its id and in one partition."""
    placement, counted = Placement(), Counted()
    for number in range(1_000):
        device = f"d{number % 100}"
        placement.check(device, device.encode(), ("pc", number % 2), T)
    assert counted() == (0, 0)


@pytest.mark.parametrize("key", [None, b"", b"D", b"\xff", b"d "])
def test_event_whose_key_is_not_its_device_is_counted_and_told_of(
    key: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Every such event is counted; one warning names device, key and place."""
    placement, counted = Placement(), Counted()
    for _ in range(3):
        placement.check("d", key, HERE, T)
    assert counted() == (3, 0)
    (warning,) = told(caplog)
    assert (warning["device"], warning["topic"], warning["partition"]) == ("d", "pc", 0)
    assert warning["key"] == (None if key is None else key.decode(errors="backslashreplace"))


def test_device_in_a_second_partition_is_counted_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each change of the partition or of the topic counts; the warning names both places."""
    placement, counted = Placement(), Counted()
    for place in (HERE, HERE, THERE, THERE, HERE, ("console", 0)):
        placement.check("d", b"d", place, T)
    assert counted() == (0, 3)
    (warning,) = told(caplog)
    assert "a device was in pc/0 before" in warning["event"]
    assert (warning["device"], warning["topic"], warning["partition"]) == ("d", "pc", 1)


def test_cause_is_told_of_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """Each cause by itself."""
    placement = Placement()
    for time_ms in (T, T + TELL_AGAIN_MS - 1, T + TELL_AGAIN_MS, T + TELL_AGAIN_MS + 1):
        placement.check("d", None, HERE, time_ms)
    assert len(told(caplog)) == 2
    placement.check("d", b"d", THERE, T + TELL_AGAIN_MS)
    assert len(told(caplog)) == 3


def test_what_a_sender_has_chosen_cannot_harm_a_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Control characters are escaped, and what is long is cut."""
    Placement().check("\x1b[31m" + "x" * 500, b"\x1b\xff" * 500, HERE, T)
    (warning,) = told(caplog)
    for text in (warning["device"], warning["key"]):
        assert text.isprintable()
        assert len(text) < 700


def test_any_number_of_devices_is_sampled_in_bounded_memory() -> None:
    """A device of the sample stays in it, so that one that ends hours later is found."""
    placement, counted = Placement(), Counted()
    devices = [f"d{number}" for number in range(5 * MAX_DEVICES)]
    for device in devices:
        placement.check(device, device.encode(), HERE, T)
        assert len(placement._places) <= MAX_DEVICES
    for device in devices:
        placement.check(device, device.encode(), THERE, T)
    keys, partitions = counted()
    assert keys == 0
    assert MAX_DEVICES / 4 < partitions <= MAX_DEVICES


def test_every_device_is_known_up_to_the_limit() -> None:
    """None is left out of a small fleet."""
    placement, counted = Placement(), Counted()
    for place in (HERE, THERE):
        for number in range(MAX_DEVICES):
            placement.check(f"d{number}", b"d%d" % number, place, T)
    assert counted() == (0, MAX_DEVICES)


def test_misplaced_event_is_an_event() -> None:
    """Nothing is refused for its key or partition; what is no event is not counted."""
    counted = Counted()
    decode = Decode(1, 0, RunState(FixedClock(T)))
    value = b'{"type":"GameStart","device_id":"d","session_id":"s"}'
    polls = [
        PartitionBatch("pc", number, "pc", [(0, T, None, text, True)], None)
        for number, text in enumerate((value, value, b"{}"))
    ]
    items = [item for _, item in decode(polls)]
    facts = [fact for item in items if isinstance(item, LaneBatch) for fact in item.facts]
    assert len(facts) == 2
    assert counted() == (2, 1)
