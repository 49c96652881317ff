"""Heartbeats of a topic of their own, put back between the other records of their sessions."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from session_logic.events import Heartbeat, OutputEvent, SessionActive, SessionEnd

Record = TypeVar("Record")


def with_heartbeats(
    output: Iterable[tuple[OutputEvent, Record]], apart: Iterable[tuple[OutputEvent, Record]]
) -> Iterator[tuple[OutputEvent, Record]]:
    """Yield all records of a partition, each topic's in its order.

    A heartbeat comes before what its session has later. One without a session comes last.
    """
    waiting: defaultdict[tuple[str, str, int], deque[tuple[Heartbeat, Record]]] = defaultdict(deque)
    for beat, record in apart:
        assert isinstance(beat, Heartbeat), beat
        waiting[_session(beat)].append((beat, record))
    for event, record in output:
        queue = waiting[_session(event)]
        while queue and _is_before(queue[0][0], event):
            yield queue.popleft()
        yield event, record
    for queue in waiting.values():
        yield from queue


def _session(event: OutputEvent) -> tuple[str, str, int]:
    return event.device_id, event.session_id, event.started_ms


def _is_before(beat: Heartbeat, event: OutputEvent) -> bool:
    if isinstance(event, SessionActive):
        return False
    last_ms = event.time_ms if isinstance(event, SessionEnd) else event.time_ms - 1
    return beat.time_ms <= last_ms
