"""Runs under load while something breaks every few seconds; what comes out is compared.

A round has topics and a store of its own. Faults come one after the other, by a seed: runs are
killed, stopped and paused, brokers are killed, stopped and paused, the network of a broker or of
all is cut, and the clock is wrong and put right. A run that ends is started again at once, as a
supervisor does. In the end everything works, and the output must be what the reference model says.

`--everything` turns on what is off by default: topics for consumers, pings and silence. With
`--shards N` there are N shards, each of which is killed, stopped and paused on its own.

It needs Kafka's jars (a Kafka test gets them) and a C compiler. One line a round is printed; the
exit code is 1 if anything is lost, doubled, out of order or wrong.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.support.broker import fetch_kafka
from tests.support.cluster import Cluster
from tests.support.everything import turn_on
from tests.support.shards import shard
from tests.support.three_brokers import ThreeBrokers
from tests.support.traffic import Traffic, catch_up, compare, start, stop
from tests.support.wall_clock import SettableClock

ROUND_S = 240
DEVICES, RATE = 1_000, 300
# A late start brings its newest ten heartbeats only; no fault keeps a sender waiting for as long.
HEARTBEAT_MS = 8_000
CALM_S = 2.0
LANES = 4
# A fault keeps pings from being written for up to 12 s, and the sender for some seconds more.
IDLE_MS = 30_000


class Round:
    """One run's topics and store, and what is done to it."""

    def __init__(
        self,
        kafka: ThreeBrokers,
        folder: Path,
        number: int,
        seed: str,
        *,
        shards: int = 0,
        everything: bool = False,
    ) -> None:
        """Start the run, or its shards, and the traffic."""
        folder.mkdir()
        self.faults: Counter[str] = Counter()
        self._kafka = kafka
        self._random = random.Random(seed)
        self._cluster = Cluster(
            kafka.address,
            folder,
            f"torture{number}",
            lanes=LANES,
            heartbeat_ms=HEARTBEAT_MS,
            replicas=3,
            input_partitions=LANES if shards else 2,
        )
        self._cluster.outages = True
        self._cluster.variables["HEARTWHEEL_BOOTSTRAP_SERVERS"] = kafka.proxied_address
        self._everything = turn_on(self._cluster, IDLE_MS) if everything else None
        self._clock = SettableClock(self._cluster, folder)
        self._shards = [f"{number}/{shards}" for number in range(shards)]
        if shards:
            self._cluster.variables["HEARTWHEEL_ROUTE"] = "partition"
        self._flows = [self._start(number) for number in range(shards or 1)]
        signs = self._everything.signs if self._everything else ""
        self._traffic = Traffic(self._cluster, DEVICES, RATE, signs=signs)
        self._traffic.start_all()
        self._cluster.wait("all sessions", lambda: self._cluster.records_out() >= DEVICES, 120)
        self._traffic.begin()

    def _start(self, number: int) -> subprocess.Popen[str]:
        """Start the run, or one of its shards."""
        return shard(self._cluster, self._shards[number]) if self._shards else start(self._cluster)

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
        stop(self._cluster, *self._flows)
        found = compare(self._cluster, through_ms)
        counts = self.faults + Counter(
            {
                "sessions": found.sessions,
                "records": found.records,
                "raced": found.raced,
                "silent": found.silent,
                "put off": found.put_off,
            }
        )
        if self._everything:
            summaries, active = self._everything.check(self._cluster)
            counts += Counter({"summaries": summaries, "active": active})
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
            for number, flow in enumerate(self._flows):
                if flow.poll() is not None:
                    self.faults["runs that ended by themselves"] += 1
                    self._flows[number] = self._start(number)
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def _kill_run(self) -> None:
        self.faults["runs killed"] += 1
        number = self._random.randrange(len(self._flows))
        self._flows[number].kill()
        self._flows[number].wait()
        time.sleep(self._random.choice([0, 0, 0, 2]))
        self._flows[number] = self._start(number)

    def _stop_run(self) -> None:
        self.faults["runs stopped"] += 1
        number = self._random.randrange(len(self._flows))
        self._flows[number].send_signal(signal.SIGTERM)
        self._flows[number].wait(60)
        self._flows[number] = self._start(number)

    def _pause_run(self) -> None:
        self.faults["runs paused"] += 1
        flow = self._random.choice(self._flows)
        flow.send_signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 12))
        flow.send_signal(signal.SIGCONT)

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


def options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="tests.torture")
    parser.add_argument("hours", type=float)
    parser.add_argument("seed", nargs="?", default="1")
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--shards", type=int, default=0, choices=range(1, LANES + 1))
    return parser.parse_args()


def main() -> None:
    """Run for as many hours as the command line says, by the seed that it says."""
    given = options()
    seed = given.seed
    fetch_kafka()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    kafka = ThreeBrokers(folder / "kafka")
    total: Counter[str] = Counter()
    end_s = time.monotonic() + 3_600 * given.hours
    number = 0
    try:
        kafka.start()
        while time.monotonic() < end_s:
            number += 1
            one = Round(
                kafka,
                folder / str(number),
                number,
                f"{seed}/{number}",
                shards=given.shards,
                everything=given.everything,
            )
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
