"""Runs under load while something breaks every few seconds; what comes out is compared.

A round has topics and a store of its own. Faults come one after the other, by a seed: runs are
killed, stopped and paused, brokers are killed, stopped and paused, the network of a broker or of
all is cut, and the clock is wrong and put right. A run that ends is started again at once, as a
supervisor does. In the end everything works, and the output must be what the reference model says.

It needs Kafka's jars (a Kafka test gets them) and a C compiler. One line a round is printed; the
exit code is 1 if anything is lost, doubled, out of order or wrong.
"""

import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.support.broker import fetch_kafka
from tests.support.cluster import Cluster
from tests.support.three_brokers import ThreeBrokers
from tests.support.traffic import catch_up, compare, start, start_under_load, stop
from tests.support.wall_clock import SettableClock

ROUND_S = 240
DEVICES, RATE = 1_000, 300
# A late start brings its newest ten heartbeats only; no fault keeps a sender waiting for as long.
HEARTBEAT_MS = 8_000
CALM_S = 2.0


class Round:
    """One run's topics and store, and what is done to it."""

    def __init__(self, kafka: ThreeBrokers, folder: Path, number: int, seed: str) -> None:
        """Start the run and its traffic."""
        folder.mkdir()
        self.faults: Counter[str] = Counter()
        self._kafka = kafka
        self._random = random.Random(seed)
        self._cluster = Cluster(
            kafka.address, folder, f"torture{number}", heartbeat_ms=HEARTBEAT_MS, replicas=3
        )
        self._cluster.variables["HEARTWHEEL_BOOTSTRAP_SERVERS"] = kafka.proxied_address
        self._clock = SettableClock(self._cluster, folder)
        self._flow, self._traffic = start_under_load(self._cluster, DEVICES, RATE)

    def go_on(self, until_s: float) -> None:
        """Break one thing after the other until a moment of the monotonic clock."""
        faults = {
            self._kill_run: 20,
            self._stop_run: 1,
            self._pause_run: 2,
            self._take_broker: 3,
            self._cut_network: 2,
            self._set_clock: 1,
        }
        while time.monotonic() < until_s:
            (fault,) = self._random.choices(list(faults), list(faults.values()))
            fault()
            self._wait(self._random.uniform(0, CALM_S))

    def finish(self) -> Counter[str]:
        """Let everything come, stop, and return what differs from the model, with what was done."""
        self._kafka.wait_until_whole()
        through_ms = catch_up(self._cluster, self._traffic)
        stop(self._cluster, self._flow)
        found = compare(self._cluster, through_ms)
        counts = self.faults + Counter(
            {"sessions": found.sessions, "records": found.records, "raced": found.raced}
        )
        if found.differences:
            print(*found.examples, sep="\n")
        return counts + Counter({f"DIFFERS: {kind}": n for kind, n in found.differences.items()})

    def close(self) -> None:
        """Kill what still runs."""
        self._traffic.end()
        self._cluster.end()

    def _wait(self, seconds: float) -> None:
        """Let time pass, and start a run that has ended again."""
        deadline = time.monotonic() + seconds
        while True:
            if self._flow.poll() is not None:
                self.faults["runs that ended by themselves"] += 1
                self._flow = start(self._cluster)
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def _kill_run(self) -> None:
        self.faults["runs killed"] += 1
        self._flow.kill()
        self._flow.wait()
        time.sleep(self._random.choice([0, 0, 0, 2]))
        self._flow = start(self._cluster)

    def _stop_run(self) -> None:
        self.faults["runs stopped"] += 1
        self._flow.send_signal(signal.SIGTERM)
        self._flow.wait(60)
        self._flow = start(self._cluster)

    def _pause_run(self) -> None:
        self.faults["runs paused"] += 1
        self._flow.send_signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 12))
        self._flow.send_signal(signal.SIGCONT)

    def _take_broker(self) -> None:
        broker = self._random.choice(self._kafka.brokers)
        how = self._random.choice(["killed", "stopped", "paused"])
        self.faults[f"brokers {how}"] += 1
        if how == "paused":
            broker.pause()
        else:
            broker.stop(signal.SIGKILL if how == "killed" else signal.SIGTERM)
        self._kill_meanwhile(self._random.uniform(1, 12))
        broker.resume()
        self._kafka.wait_until_whole()

    def _cut_network(self) -> None:
        proxies = self._kafka.proxies
        cut = proxies if self._random.random() < 0.3 else [self._random.choice(proxies)]
        self.faults["networks cut"] += 1
        with ExitStack() as network:
            for proxy in cut:
                network.enter_context(proxy.cut())
            self._kill_meanwhile(self._random.uniform(1, 12))

    def _kill_meanwhile(self, seconds: float) -> None:
        """Let time pass; half of the time runs are killed in it."""
        deadline = time.monotonic() + seconds
        killed = self._random.random() < 0.5
        while time.monotonic() < deadline:
            self._wait(self._random.uniform(0.5, 4))
            if killed:
                self._kill_run()

    def _set_clock(self) -> None:
        """Let the clock be behind and put it right; ahead, a run would send what is not due."""
        self.faults["clocks set"] += 1
        self._clock.step(-self._random.randrange(1, 20))
        self._kill_meanwhile(self._random.uniform(1, 8))
        self._clock.step(0)


def main() -> None:
    """Run for as many hours as the command line says, by the seed that it says."""
    hours, seed = float(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "1"
    fetch_kafka()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    kafka = ThreeBrokers(folder / "kafka")
    total: Counter[str] = Counter()
    end_s = time.monotonic() + 3_600 * hours
    number = 0
    try:
        kafka.start()
        while time.monotonic() < end_s:
            number += 1
            one = Round(kafka, folder / str(number), number, f"{seed}/{number}")
            try:
                one.go_on(min(end_s, time.monotonic() + ROUND_S))
                counts = one.finish()
            finally:
                one.close()
            total += counts
            print(f"round {number}, seed {seed}: {dict(counts)}", flush=True)
    finally:
        kafka.stop()
    print(f"{number} rounds: {dict(total)}")
    if any(what.startswith("DIFFERS") for what in total):
        print(f"topics, stores and logs: {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
