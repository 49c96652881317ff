"""Events sent all the while a test goes on, and what must have come of them in the end."""

import random
import time
from collections import defaultdict
from collections.abc import Mapping
from threading import Event, Thread
from types import TracebackType
from typing import Self

from session_logic.codec import decode_input
from session_logic.events import (
    Fact,
    GameStart,
    Heartbeat,
    OutputEvent,
    Rejected,
    SessionEnd,
    Watermark,
)
from session_logic.rules import Rules
from tests.support.cluster import Cluster, kinds
from tests.support.model import Model

DEVICES = 200
QUIET = 20
PAUSE_S = 0.01


class Load:
    """Sessions that start, end and replace one another, and a few that are left alone."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._sessions: dict[str, str] = {}
        self._number = 0
        self._stop = Event()
        self._thread = Thread(target=self._send)

    def __enter__(self) -> Self:
        for number in range(QUIET):
            self._start(f"p-quiet-{number}")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._cluster.flush()

    def _send(self) -> None:
        while not self._stop.wait(PAUSE_S):
            number = self._random.randrange(DEVICES)
            device = f"{'cp'[number % 2]}{number}"
            session = self._sessions.get(device)
            if session is None or self._random.random() < 0.3:
                self._start(device)
            else:
                self._cluster.send("End", device, session)
                del self._sessions[device]

    def _start(self, device: str) -> None:
        self._number += 1
        self._sessions[device] = f"{device}-{self._number}"
        self._cluster.send("Start", device, self._sessions[device])


def wait_for_model(cluster: Cluster, topics: list[str], rules: Rules) -> None:
    """Wait until the topics have the last record of every session, the quiet ones' timeouts too."""

    def complete() -> bool:
        want = _expected(cluster, rules)
        if len(_timed_out(want)) < QUIET:
            return False
        got = {(event.session_id, kinds([event])[0]) for t in topics for event in cluster.events(t)}
        return all((name, kinds(events)[-1]) in got for name, events in want.items())

    cluster.wait("the end of every session", complete, rules.max_session_ms / 1000 + 60)


def check_against_model(cluster: Cluster, topics: list[str], rules: Rules) -> int:
    """Check that the topics, one after the other, have what the model says; count the records.

    An end that is read after a heartbeat that is due after it has that heartbeat before it.
    """
    got: defaultdict[str, list[OutputEvent]] = defaultdict(list)
    for topic in topics:
        for event in cluster.events(topic):
            got[event.session_id].append(event)
    want = _expected(cluster, rules)
    assert got.keys() == want.keys()
    for session, events in got.items():
        due, last = want[session], events[-1]
        if isinstance(last, SessionEnd):
            events = [
                e for e in events if not isinstance(e, Heartbeat) or e.time_ms <= last.time_ms
            ]
        elif not isinstance(due[-1], SessionEnd) or due[-1].reason == "timed_out":
            due = due[: len(events)]  # time has gone on since the last run
        assert events == due, f"{session}: {kinds(events)} instead of {kinds(due)}"
    assert len(_timed_out(got)) >= QUIET
    return sum(map(len, got.values()))


def _timed_out(sessions: Mapping[str, list[OutputEvent]]) -> list[str]:
    return [name for name, events in sessions.items() if kinds(events)[-1] == "end timed_out"]


def _expected(cluster: Cluster, rules: Rules) -> dict[str, list[OutputEvent]]:
    model = Model(rules)
    events: list[OutputEvent] = []
    for topic, platform in ((cluster.console, "console"), (cluster.pc, "pc")):
        for record in cluster.read(topic):
            event = decode_input(record.value)
            assert not isinstance(event, Rejected)
            is_start = isinstance(event, GameStart)
            fact = Fact(is_start, event.device_id, event.session_id, platform, record.time_ms)
            events += model.apply(fact, Watermark(-1))
    events += model.advance(-1, int(time.time() * 1000), newest_only=False)
    sessions: defaultdict[str, list[OutputEvent]] = defaultdict(list)
    for event in events:
        sessions[event.session_id].append(event)
    return sessions
