"""A client that asks for random devices over HTTP, ten times a second."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import count

from benchmarks.flow import Flow
from benchmarks.load import device_name
from benchmarks.report import Histogram, percentile

STEP_S = 0.1
TIMEOUT_S = 10


class Poll:
    """Asks from a thread of its own, from now until `stop`, and counts from the planned moment."""

    def __init__(self, flow: Flow, devices: int, lanes: int) -> None:
        """Begin to ask for devices 0 to devices - 1, each at the process that has it."""
        self._flow = flow
        self._devices = devices
        self._lanes = lanes
        self._took_us: Histogram = Counter()
        self._statuses: Counter[int] = Counter()
        self._connections: dict[int, HTTPConnection] = {}
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(1)
        self._asked = self._threads.submit(self._ask)

    def _ask(self) -> None:
        choice, begin_s = random.Random(1), time.monotonic()
        for number in count():
            planned_s = begin_s + number * STEP_S
            if self._over.wait(max(0, planned_s - time.monotonic())):
                return
            self._statuses[self._answer(device_name(choice.randrange(self._devices)))] += 1
            self._took_us[round((time.monotonic() - planned_s) * 1e6)] += 1

    def _answer(self, device: str) -> int:
        port = self._flow.http_port(device, self._lanes)
        if port not in self._connections:
            self._connections[port] = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._connections[port].request("GET", f"/devices/{device}")
        with self._connections[port].getresponse() as answer:
            answer.read()
            return answer.status

    def stop(self) -> dict[str, object]:
        """Return how long answers took in ms, and how often each status came."""
        self._over.set()
        self._asked.result()
        self._threads.shutdown()
        for connection in self._connections.values():
            connection.close()
        return {
            "statuses": dict(self._statuses),
            "p50": percentile(self._took_us, 0.5) / 1000,
            "p99": percentile(self._took_us, 0.99) / 1000,
            "max": max(self._took_us) / 1000,
        }
