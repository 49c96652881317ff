"""The records of a lane from two topics, in an order in which one topic would have them.

A lane that has heartbeats in a topic of their own sends both topics in the order of one, and each
topic keeps its part of it. So what is between them follows from the sessions: a heartbeat comes
after the start of its session, and before its end.

All heartbeats of a session have been read when one of a session was read whose start is later in
the other topic than that end. That is why an end waits until some heartbeats wait for their start.
"""

from collections import deque
from collections.abc import Iterator

from heartwheel.recording.recorded import Named, decode_record
from session_logic.events import OutputEvent, SessionActive, SessionEnd

# Of so many devices, heartbeats are read before the starts of their sessions. One does not do: a
# start may be lost, and a run that comes after a crash sends some records in another order.
AHEAD = 1_000

Session = tuple[str, str, int]


def in_lane_order(output: Iterator[Named], beats: Iterator[Named], from_ms: int) -> Iterator[Named]:
    """Yield all records, those of each device in the order in which they were made.

    A session that began before from_ms need not have a start. What is not in order in a topic is
    not made so: each topic's records of a device stay in their order.
    """
    waiting = _Waiting(from_ms)
    for named in output:
        while len(waiting.beats) < AHEAD and (beat := next(beats, None)) is not None:
            yield from waiting.pass_on(beat)
        event = decode_record(named[1].item)
        if isinstance(event, SessionActive):
            yield named
            waiting.started.add(_session(event))
            yield from waiting.released(event)
        elif isinstance(event, SessionEnd):
            waiting.started.add(_session(event))  # for one whose start is lost
            yield from waiting.released(event)
            yield named
            waiting.started.discard(_session(event))
        else:
            yield named
    for queue in waiting.beats.values():
        yield from (beat for _, beat in queue)
    yield from beats


class _Waiting:
    """Which sessions of a lane have started, and by device the heartbeats that came before that."""

    def __init__(self, from_ms: int) -> None:
        self._from_ms = from_ms
        self.started: set[Session] = set()
        self.beats: dict[str, deque[tuple[OutputEvent, Named]]] = {}

    def pass_on(self, beat: Named) -> Iterator[Named]:
        """Yield a heartbeat, or let it wait; those of a device stay in their order."""
        event = decode_record(beat[1].item)
        if isinstance(event, OutputEvent) and (
            event.device_id in self.beats or not self._has_started(event)
        ):
            self.beats.setdefault(event.device_id, deque()).append((event, beat))
        else:
            yield beat

    def released(self, event: OutputEvent) -> Iterator[Named]:
        """Yield what need not wait any longer of a device."""
        queue = self.beats.get(event.device_id)
        while queue and self._has_started(queue[0][0]):
            yield queue.popleft()[1]
        if queue is not None and not queue:
            del self.beats[event.device_id]

    def _has_started(self, event: OutputEvent) -> bool:
        return event.started_ms < self._from_ms or _session(event) in self.started


def _session(event: OutputEvent) -> Session:
    return event.device_id, event.session_id, event.started_ms
