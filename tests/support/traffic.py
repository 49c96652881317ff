"""Devices that start, replace, end and repeat sessions all the while, and what must come out."""

import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import pytest

from dataflows.settings_sources import load_settings
from session_logic.rules import Rules
from tests.support.check import Check, Difference, check_output, expected
from tests.support.cluster import Cluster
from tests.support.heartbeats import with_heartbeats
from tests.support.topic import facts, outputs

STEP_S = 0.01
KILLS = 4
PING_S = 3.0
VISITORS = 200
FALL_SILENT = 0.1  # the chance in each step
# A start comes once more only within this time: after a timeout it would begin another session.
REPEAT_S = 10.0
# While a process is away, heartbeats become due: with this, every one of them is sent.
ALL = {"HEARTWHEEL_CATCH_UP": "all"}
MISSING = (Difference.MISSING_SESSION, Difference.MISSING_HEARTBEAT, Difference.MISSING_END)


class Traffic:
    """Sends from a thread of its own, with seeded choices, until `end`, or until `with` is left.

    Quiet devices start a session at the beginning and then leave it alone. With a topic for signs
    of life, all devices that have a session send one every PING_S, and visitors send nothing else.
    Others come then that fall silent after one event.
    """

    def __init__(
        self,
        cluster: Cluster,
        devices: int,
        rate: int,
        seed: int = 1,
        quiet: int = 0,
        signs: str = "",
    ) -> None:
        self._cluster = cluster
        self._devices = devices
        self._rate = rate
        self._quiet = quiet
        self._signs = signs
        self._visits = [0] * VISITORS
        self._turn = time.monotonic() / PING_S
        self._random = random.Random(seed)
        self._sessions: dict[int, str] = {}
        self._begun_s: dict[int, float] = {}
        self._number = 0
        self._over = threading.Event()
        self._thread = threading.Thread()
        self.sent = 0

    @property
    def active(self) -> int:
        """How many devices have a session, the quiet ones not counted."""
        return len(self._sessions)

    def start_all(self) -> None:
        """Start a session on every device."""
        for device in range(self._devices):
            self._start(device)
        self._cluster.flush()

    def begin(self) -> None:
        """Go on in the background, also after an end."""
        for number in range(self._quiet):
            self._cluster.send("Start", f"p-quiet-{number}", f"quiet-{number}")
        self._over.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop, and wait until everything sent has arrived."""
        self._over.set()
        self._thread.join()
        self._cluster.flush()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end()

    def _run(self) -> None:
        while not self._over.wait(STEP_S):
            for _ in range(round(self._rate * STEP_S)):
                self._step()
            if self._signs:
                self._give_signs()

    def _step(self) -> None:
        device = self._random.randrange(self._devices)
        session, chance = self._sessions.get(device), self._random.random()
        if session is None or chance < 0.1:
            self._start(device)
        elif chance < 0.2 and time.monotonic() < self._begun_s[device] + REPEAT_S:
            self._send("Start", device, session)  # once more
        else:
            self._send("End", device, session)
            del self._sessions[device]

    def _start(self, device: int) -> None:
        self._number += 1
        self._sessions[device] = f"s{self._number}"
        self._begun_s[device] = time.monotonic()
        self._send("Start", device, self._sessions[device])

    def _give_signs(self) -> None:
        """Let the devices send that have their turn by now, and at times one fall silent."""
        before, self._turn = self._turn, time.monotonic() / PING_S
        for device in in_turn(self._devices, before, self._turn):
            if device in self._sessions:
                self._send("Ping", device, self._sessions[device])
        for visitor in in_turn(VISITORS, before, self._turn):
            if self._random.random() < 0.1:
                self._visits[visitor] += 1
            self._visit(f"v{visitor}", f"v{visitor}-{self._visits[visitor]}")
        if self._random.random() < FALL_SILENT:
            self._number += 1
            gone = f"gone-{self._number}"
            self._cluster.send("Start", f"{self._random.choice('cp')}-{gone}", gone)
            self._visit(f"v-{gone}", f"v-{gone}")

    def _visit(self, visitor: str, visit: str) -> None:
        self._cluster.send_raw(b'{"visit":"%b"}' % visit.encode(), visitor, where=(self._signs, -1))

    def _send(self, kind: str, device: int, session: str) -> None:
        name = f"{'cp'[device % 2]}{device}"
        self._cluster.send(kind, name, session)
        self.sent += 1


def in_turn(count: int, before: float, now: float) -> list[int]:
    """Return who of so many has a turn between two moments; all have one from 1.0 to 2.0, say."""
    return [number % count for number in range(int(before * count), int(now * count))][:count]


def start(cluster: Cluster, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start a run that makes up for every heartbeat."""
    return cluster.start(*arguments, **ALL, **variables)


def start_under_load(
    cluster: Cluster, devices: int, rate: int, signs: str = ""
) -> tuple[subprocess.Popen[str], Traffic]:
    """Start a run and traffic, and wait until every device has its first session."""
    flow = start(cluster)
    traffic = Traffic(cluster, devices, rate, signs=signs)
    traffic.start_all()
    cluster.wait("all sessions", lambda: cluster.records_out() >= devices, 120)
    traffic.begin()
    return flow, traffic


def wait_for_more(cluster: Cluster, records: int) -> None:
    """Wait until so many more records are out."""
    before = cluster.records_out()
    cluster.wait("more output", lambda: cluster.records_out() >= before + records, 60)


def stop(cluster: Cluster, *flows: subprocess.Popen[str]) -> None:
    """Stop a run cleanly: one process, or all of them."""
    for flow in flows:
        flow.send_signal(signal.SIGTERM)
    for flow in flows:
        assert flow.wait(40) == 0, cluster.errors(flow)


def catch_up(cluster: Cluster, traffic: Traffic) -> int:
    """End the traffic, and wait until what was due by then is out; return that moment in ms."""
    traffic.end()
    return wait_for_model(cluster)


def wait_for_model(
    cluster: Cluster, topics: Sequence[str] = (), rules: Rules | None = None, seconds: float = 60
) -> int:
    """Wait until everything that is due by now is in the output; return the moment in ms."""
    through_ms = time.time_ns() // 1_000_000

    def complete() -> bool:
        nonlocal found
        found = compare(cluster, through_ms, topics, rules)
        return not any(found.differences[kind] for kind in MISSING)

    found = Check()
    try:
        cluster.wait("all that is due", complete, seconds)
    except pytest.fail.Exception:
        print(found)
        raise
    return through_ms


def compare(
    cluster: Cluster, through_ms: int, topics: Sequence[str] = (), rules: Rules | None = None
) -> Check:
    """Compare the output with the model; several topics are read one after the other."""
    settings = load_settings(cluster.variables)
    rules = rules or settings.rules()
    now_ms = time.time_ns() // 1_000_000
    given = facts(
        cluster.address,
        cluster.inputs,
        tables=settings.mappings(),
        idle_timeouts_ms=settings.idle_timeouts_ms,
    )
    if cluster.devices_moved:
        given = iter(sorted(given, key=lambda fact: fact.time_ms))
    want = expected(given, rules, now_ms)
    output = (
        (event, sent_ms)
        for topic in topics or [cluster.output]
        for sent_ms, event in outputs(cluster.address, topic)
    )
    apart = (
        (event, sent_ms)
        for topic in cluster.heartbeat_topics
        for sent_ms, event in outputs(cluster.address, topic)
    )
    events = (event for event, _ in with_heartbeats(output, apart))
    return check_output(events, want, rules, through_ms, outages=cluster.outages)


def check(
    cluster: Cluster, through_ms: int, topics: Sequence[str] = (), rules: Rules | None = None
) -> Check:
    """Compare the output with the model; nothing may be amiss that is due by through_ms."""
    found = compare(cluster, through_ms, topics, rules)
    print(found)
    assert not found.differences, found
    return found


def kill_under_load(
    cluster: Cluster, devices: int, *, rate: int, more: int, pause_s: float, signs: str = ""
) -> Check:
    """Kill a run under load, each time when more is out and a random moment later.

    Then compare what all its runs have sent with the model.
    """
    moments = random.Random(KILLS)
    flow, traffic = start_under_load(cluster, devices, rate, signs)
    for _ in range(KILLS):
        wait_for_more(cluster, more)
        time.sleep(moments.uniform(0, pause_s))
        flow.kill()
        flow.wait()
        flow = start(cluster)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    return check(cluster, through_ms)
