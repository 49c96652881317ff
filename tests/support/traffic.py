"""Devices that start, replace, end and repeat sessions all the while, and what must come out."""

import random
import signal
import subprocess
import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.report import Check, check_output, expected_sessions
from session_logic.rules import Rules
from tests.support.cluster import Cluster

STEP_S = 0.01
# What is due in the last moment of a run may be out or not.
LAST_MS = 500
# While a process is away, heartbeats become due: with this, every one of them is sent.
ALL = {"HEARTWHEEL_CATCH_UP": "all"}


class Traffic:
    """Sends from a thread of its own, with seeded choices, until `end`."""

    def __init__(self, cluster: Cluster, devices: int, rate: int, seed: int = 1) -> None:
        self._cluster = cluster
        self._devices = devices
        self._rate = rate
        self._random = random.Random(seed)
        self._sessions: dict[int, str] = {}
        self._number = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def start_all(self) -> None:
        """Start a session on every device."""
        for device in range(self._devices):
            self._start(device)
        self._cluster.flush()

    def begin(self) -> None:
        """Go on in the background."""
        self._thread.start()

    def end(self) -> None:
        """Stop, and wait until everything sent has arrived."""
        self._over.set()
        self._thread.join()
        self._cluster.flush()

    def _run(self) -> None:
        while not self._over.wait(STEP_S):
            for _ in range(round(self._rate * STEP_S)):
                self._step()

    def _step(self) -> None:
        device = self._random.randrange(self._devices)
        session, chance = self._sessions.get(device), self._random.random()
        if session is None or chance < 0.1:
            self._start(device)
        elif chance < 0.2:
            self._send("Start", device, session)  # once more
        else:
            self._send("End", device, session)
            del self._sessions[device]

    def _start(self, device: int) -> None:
        self._number += 1
        self._sessions[device] = f"s{self._number}"
        self._send("Start", device, self._sessions[device])

    def _send(self, kind: str, device: int, session: str) -> None:
        name = f"{'cp'[device % 2]}{device}"
        self._cluster.send(kind, name, session)
        self.sent += 1


def check(cluster: Cluster, stopped_ms: int, *, catch_up: str = "all") -> Check:
    """Compare the output with the model, session by session; nothing may be amiss.

    With catch_up `latest`, heartbeats may be missing where the test knows of an outage.
    """
    variables = cluster.variables
    rules = Rules(int(variables["HEARTWHEEL_HEARTBEAT_MS"]), 28_800_000)
    topics = {cluster.console: "console", cluster.pc: "pc"}
    expected = expected_sessions(cluster.address, topics, rules, stopped_ms)
    found, _ = check_output(
        cluster.address, cluster.output, expected, rules, (0, 0), stopped_ms - LAST_MS
    )
    print(found)
    amiss = found.duplicate, found.misordered, found.unexpected
    assert amiss == (0, 0, 0), found
    assert catch_up == "latest" or found.missing == 0, found
    return found


def start(cluster: Cluster) -> subprocess.Popen[str]:
    """Start a run that logs what it reads of its output."""
    return cluster.start(**ALL)


def records_out(cluster: Cluster) -> int:
    """Return how many records the output topic has."""
    consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": "test"})
    lanes = [TopicPartition(cluster.output, lane) for lane in range(4)]
    try:
        return sum(consumer.get_watermark_offsets(lane, 10)[1] for lane in lanes)
    except KafkaException:  # a topic just made, or a broker just started
        return 0
    finally:
        consumer.close()


def stop(cluster: Cluster, flow: subprocess.Popen[str]) -> int:
    """Stop a run cleanly; return when that was."""
    stopped_ms = time.time_ns() // 1_000_000
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(40) == 0, cluster.errors(flow)
    return stopped_ms


def catch_up(cluster: Cluster, traffic: Traffic, heartbeat_s: float) -> None:
    """End the traffic, and wait until heartbeats are the only output and come in time."""
    traffic.end()
    time.sleep(heartbeat_s)
    steady = traffic._sessions
    cluster.wait(
        "heartbeats in time",
        lambda: _in_a_second(cluster) <= 3 * len(steady) / heartbeat_s,
        60,
    )
    time.sleep(2)


def _in_a_second(cluster: Cluster) -> int:
    before = records_out(cluster)
    time.sleep(1)
    return records_out(cluster) - before
