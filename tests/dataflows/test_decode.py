"""The decode step: what is too large is not decoded, and what a clock rejected stays rejected."""

import pytest

from dataflows.decode import Decode
from dataflows.messages import DeadLetter, LaneBatch, Message, PartitionBatch, RejectedByClock
from dataflows.run_state import RunState
from tests.support.clocks import FixedClock

NOW_MS = 1_700_000_000_000
VALUE = b'{"type":"GameStart","device_id":"d","session_id":"s"}'
KEY = b"key"
SIZE = len(VALUE) + len(KEY)


def decoded(message: Message, limit: int) -> LaneBatch | DeadLetter:
    """Return what becomes of one message."""
    decode = Decode(1, 0, RunState(FixedClock(NOW_MS)), limit)
    ((_, item),) = decode([PartitionBatch("t", 0, "pc", [message], None)])
    return item


def test_record_as_large_as_the_limit_is_an_event() -> None:
    """The limit itself is allowed."""
    item = decoded((7, NOW_MS, KEY, VALUE, True), SIZE)
    assert isinstance(item, LaneBatch)
    assert [fact.session_id for fact in item.facts] == ["s"]


@pytest.mark.parametrize(
    ("key", "value"), [(KEY, VALUE), (KEY * 100, b"{}"), (None, b"?" * 100), (KEY * 100, None)]
)
def test_record_above_the_limit_is_a_letter_without_key_and_value(
    key: bytes | None, value: bytes | None
) -> None:
    """Whichever of the two is large; place and size say where the whole one is."""
    item = decoded((7, NOW_MS, key, value, True), SIZE - 1)
    size = len(key or b"") + len(value or b"")
    assert isinstance(item, DeadLetter)
    assert (item.reason, item.message) == ("too_large", (7, NOW_MS, None, None, True))
    assert str(size) in item.detail


@pytest.mark.parametrize(("beside_ms", "kind"), [(0, LaneBatch), (1, DeadLetter)])
def test_what_an_earlier_run_has_reached_is_not_in_the_future(beside_ms: int, kind: type) -> None:
    """The clock was set back: what is read once more stays the event that it was."""
    run = RunState(FixedClock(NOW_MS), published_ms=lambda: NOW_MS + 3_600_000)
    message = (7, NOW_MS + 3_600_000 + beside_ms, KEY, VALUE, True)
    ((_, item),) = Decode(1, 0, run)([PartitionBatch("t", 0, "pc", [message], None)])
    assert type(item) is kind


def test_record_that_an_earlier_clock_rejected_stays_rejected() -> None:
    """It is known by place and timestamp; the topic is asked once, before the first record."""
    asked = 0

    def earlier() -> RejectedByClock:
        nonlocal asked
        asked += 1
        return {("t", 0): {8: NOW_MS, 9: NOW_MS - 1}}

    decode = Decode(1, 0, RunState(FixedClock(NOW_MS), rejected_earlier=earlier))
    assert decode([PartitionBatch("t", 0, "pc", [], None)]) == []
    assert asked == 0
    reasons = []
    for partition, offset in ((0, 7), (0, 8), (0, 9), (1, 8), (0, 10), (0, 8)):
        poll = PartitionBatch("t", partition, "pc", [(offset, NOW_MS, KEY, VALUE, True)], None)
        ((_, item),) = decode([poll])
        reasons.append(item.reason if isinstance(item, DeadLetter) else "event")
    # 9 has another timestamp, so it is of a topic that was created again; 10 is past them all.
    assert reasons == ["event", "in_the_future", "event", "event", "event", "event"]
    assert asked == 1
