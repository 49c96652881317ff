"""A lane that is stopped and started again, and its records as words."""

from session_logic.clock import PartitionProgress
from session_logic.events import Fact, Heartbeat, OutputEvent, SessionActive
from session_logic.lane import Lane
from session_logic.restoring import read_lane_state
from session_logic.rules import Rules
from tests.support.events import decoded
from tests.support.lanes import BEGIN_MS, DEVICES, LANE, LANES, Store

DEVICE = DEVICES[0]


class Run:
    """A lane that is stopped cleanly and started again with other rules, or at another time."""

    def __init__(self, rules: Rules) -> None:
        self.now_ms = BEGIN_MS
        self.store = Store()
        self.lane = Lane(LANE, LANES, rules)
        self.live()

    def live(self) -> None:
        """Let the input be read to its end."""
        self.lane.update(PartitionProgress("topic/0", 1, None))
        self.lane.advance(self.now_ms)

    def send(
        self, kind: str, session: str, device: str = DEVICE, carried: bytes = b""
    ) -> list[OutputEvent]:
        """Apply a fact of now."""
        is_start, time_ms = kind == "start", self.now_ms
        fact = Fact(is_start, device, session, "pc", time_ms, created=True, carried=carried)
        output = self.lane.apply([fact], self.now_ms)
        self.store.write(output.rows)
        return decoded(output.records)

    def wait(self, for_ms: int) -> list[OutputEvent]:
        """Let time pass; return what is sent."""
        self.now_ms += for_ms
        return decoded(self.lane.advance(self.now_ms).records)

    def restart(self, rules: Rules) -> list[OutputEvent]:
        """Stop and start; return what the restore brings about."""
        self.store.commit(self.lane)
        self.lane = Lane(LANE, LANES, rules, read_lane_state(self.store.state or []), self.now_ms)
        events: list[OutputEvent] = []
        for row in list(self.store.rows.values()):
            output = self.lane.restore(row, self.now_ms)
            self.store.write(output.rows)
            events += decoded(output.records)
        assert not self.lane.restoring
        self.lane.update(PartitionProgress("topic/0", 1, None))
        return events


def shown(events: list[OutputEvent]) -> list[str]:
    """Return records as words."""
    return [
        f"h{e.sequence}@{e.time_ms - BEGIN_MS}"
        if isinstance(e, Heartbeat)
        else f"A@{e.time_ms - BEGIN_MS}"
        if isinstance(e, SessionActive)
        else f"E({e.reason})@{e.time_ms - BEGIN_MS}"
        for e in events
    ]
