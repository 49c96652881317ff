"""The records of a lane from two topics, in an order in which one topic would have them.

A lane that has heartbeats in a topic of their own sends both topics in the order of one, and each
topic keeps its part of it. So what is between them follows from the sessions: a heartbeat comes
after the start of its session, and before its end.

All heartbeats of a session have been read when one of a session was read whose start is later in
the other topic than that end. That is why an end waits until some heartbeats wait for their start.
"""

from collections import defaultdict
from collections.abc import Iterator

from heartwheel.recording.recorded import Named, decode_record
from session_logic.events import OutputEvent, SessionActive, SessionEnd

# Of so many sessions, heartbeats are read before their starts. One would do, if no start was lost:
# its heartbeats wait for ever, and prove nothing.
AHEAD = 8

Session = tuple[str, str, int]


def in_lane_order(output: Iterator[Named], beats: Iterator[Named], from_ms: int) -> Iterator[Named]:
    """Yield all records, those of each device in the order in which they were made.

    A session that began before from_ms need not have a start. What is not in order in a topic is
    not made so: each topic's records of a session stay in their order.
    """
    started: set[Session] = set()
    waiting: defaultdict[Session, list[Named]] = defaultdict(list)
    for named in output:
        while len(waiting) < AHEAD and (beat := next(beats, None)) is not None:
            event = decode_record(beat[1].item)
            if not isinstance(event, OutputEvent):  # another program's
                yield beat
                continue
            session = _session(event)
            if session in started or event.started_ms < from_ms:
                yield beat
            else:
                waiting[session].append(beat)
        event = decode_record(named[1].item)
        if isinstance(event, SessionActive):
            yield named
            started.add(_session(event))
            yield from waiting.pop(_session(event), ())
        elif isinstance(event, SessionEnd):
            yield from waiting.pop(_session(event), ())
            yield named
            started.discard(_session(event))
        else:
            yield named
    for some in waiting.values():
        yield from some
    yield from beats


def _session(event: OutputEvent) -> Session:
    return event.device_id, event.session_id, event.started_ms
