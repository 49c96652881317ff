"""The decode step: what is too large is not even decoded."""

import pytest

from dataflows.decode import Decode
from dataflows.messages import DeadLetter, LaneBatch, Message, PartitionBatch
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
