"""Facts that carry fields, ends without a session id, and idle timeouts, whatever the input is."""

from zlib import crc32

from msgspec.structs import replace

from dataflows.decode import Decode, Decoded
from dataflows.messages import LaneBatch, PartitionBatch
from session_logic.events import Fact

OF_STARTS = [b"", b'"account":"x"', b'"account":null,"title":7', b'"title":{"a":[1.50]}']
HOUR_MS = 3_600_000
OF_ENDS = [b"", b'"seconds":12.50', b'"seconds":"9","why":true']


def carrying(fact: Fact) -> Fact:
    """Return what a fact is where events carry fields: the same each time."""
    number = crc32(f"{fact.is_start} {fact.device_id} {fact.time_ms}".encode())
    if fact.ping and not fact.is_start:
        return fact
    if fact.is_start:
        return replace(fact, carried=OF_STARTS[number % len(OF_STARTS)])
    session_id = "" if number % 5 < 2 else fact.session_id
    return replace(fact, session_id=session_id, carried=OF_ENDS[number % len(OF_ENDS)])


class CarryingDecode(Decode):
    """The decode step, as it would be if the events carried fields."""

    def __call__(self, polls: list[PartitionBatch]) -> list[tuple[str, Decoded]]:
        """Decode a batch of polls."""
        items = super().__call__(polls)
        for _, item in items:
            if isinstance(item, LaneBatch):
                item.facts[:] = map(carrying, item.facts)
        return items


class ListeningDecode(CarryingDecode):
    """The decode step, as it would be if most topics had an idle timeout of an hour as well."""

    def __call__(self, polls: list[PartitionBatch]) -> list[tuple[str, Decoded]]:
        """Decode a batch of polls."""
        items = super().__call__(polls)
        for _, item in items:
            if isinstance(item, LaneBatch):
                item.facts[:] = [
                    replace(
                        fact, idle_timeout_ms=HOUR_MS * (crc32(fact.device_id.encode()) % 3 > 0)
                    )
                    for fact in item.facts
                ]
        return items
