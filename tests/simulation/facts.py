"""What the events of a simulation are as facts: some carry fields, and some are pings.

Our own format has no such fields, no id that is left out and no ping that begins a session, so they
are added behind it, by what is in the fact: to the same record the same ones each time.
"""

from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from dataflows.decode import Decode, Decoded
from dataflows.messages import LaneBatch, PartitionBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.codec import decode_input
from session_logic.events import Fact, GamePing, GameStart, Rejected
from tests.support.carrying import carrying


class Facts(Struct):
    """How events are read: whether they carry fields, and by topic what is heard of sessions.

    Sessions have an idle timeout where they begin by a topic of idle_timeouts_ms. A ping may begin
    one on the platforms that open.
    """

    carries: bool = False
    idle_timeouts_ms: dict[str, int] = {}
    opening: set[str] = set()

    @property
    def listen(self) -> bool:
        """Whether silence ends sessions."""
        return bool(self.idle_timeouts_ms)

    def read(
        self, value: bytes | None, topic: str, platform: str, time_ms: int, *, created: bool
    ) -> Fact | Rejected | None:
        """Return the fact in a record, why it has none, or None for a ping of nobody's."""
        event = decode_input(value)
        if isinstance(event, Rejected):
            return event
        ping = isinstance(event, GamePing)
        if ping and topic not in self.idle_timeouts_ms:
            return None
        fact = Fact(
            isinstance(event, GameStart),
            event.device_id,
            event.session_id,
            platform,
            time_ms,
            created,
            b"",
            ping,
            self.idle_timeouts_ms.get(topic, 0),
        )
        return self.changed(fact)

    def changed(self, fact: Fact) -> Fact:
        """Return a fact of our own format as it would be with fields, and without some ids."""
        if fact.ping:
            number = crc32(f"{fact.device_id} {fact.time_ms}".encode())
            session_id = "" if number % 3 == 0 else fact.session_id
            is_start = fact.platform in self.opening
            fact = replace(fact, session_id=session_id, is_start=is_start)
        return carrying(fact) if self.carries else fact

    def decode(self, settings: Settings, run: RunState) -> Decode:
        """Return the decode step of a process."""
        decode = _Decode(settings.lanes, settings.max_clock_skew_ms, run)
        decode.own_lanes, decode.route = settings.own_lanes, settings.route
        decode.idle_timeouts_ms = self.idle_timeouts_ms
        decode.facts = self
        return decode


class _Decode(Decode):
    facts: Facts

    def __call__(self, polls: list[PartitionBatch]) -> list[tuple[str, Decoded]]:
        items = super().__call__(polls)
        for _, item in items:
            if isinstance(item, LaneBatch):
                item.facts[:] = map(self.facts.changed, item.facts)
        return items
