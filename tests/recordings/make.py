"""Makes the recordings of the regression suite, each on a real Kafka.

`python -m tests.recordings.make` makes all, with names only those. Each run is stopped cleanly
before it is recorded.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from dataflows.settings_sources import environment
from tests.support.broker import ROOT, Broker
from tests.support.cluster import Cluster
from tests.support.wall_clock import SettableClock

FOLDER = Path(__file__).parent
HEARTBEAT_S = 0.5
SETTINGS = {
    "HEARTWHEEL_HEARTBEAT_MS": "500",
    "HEARTWHEEL_MAX_SESSION_MS": "60000",
    "HEARTWHEEL_DEDUPLICATION_WINDOW_MS": "1000",
}
BAD = [
    None,
    b"hello",
    b'{"type":"GameStart"',
    bytes(range(256)),
    b'{"type":"GamePause","device_id":"c1","session_id":"s"}',
    b'{"type":"GameStart","device_id":"","session_id":"s"}',
]


class Run:
    """A run of the dataflow that a scenario sends events to."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.record_from_ms: int | None = None

    def go(self) -> None:
        """Start the dataflow, or start it again from its last snapshot."""
        self._process = self._cluster.start()

    def set(self, **variables: str) -> None:
        """Change settings for the next start, and record from now on."""
        self._cluster.variables |= variables
        self.record_from_ms = int(time.time() * 1000)

    def settable_clock(self) -> SettableClock:
        """Return a wall clock for the starts from now on."""
        return SettableClock(self._cluster, self._cluster.folder)

    def end(self, sign: signal.Signals) -> None:
        """Stop or kill it."""
        self._process.send_signal(sign)
        assert self._process.wait(30) == (0 if sign == signal.SIGTERM else -sign)

    def send(self, *events: str) -> None:
        """Send events such as `Start c1 s1`, then wait until they are there."""
        for event in events:
            self._cluster.send(*event.split())
        self._cluster.flush()

    def send_raw(self, value: bytes | None, key: str, time_ms: int = 0) -> None:
        """Send any bytes."""
        self._cluster.send_raw(value, key, time_ms)

    def send_at(self, beats: float, *events: str) -> None:
        """Send events that have the time of some heartbeats from now; before, if negative."""
        time_ms = int((time.time() + beats * HEARTBEAT_S) * 1000)
        for event in events:
            self._cluster.send(*event.split(), time_ms)
        self._cluster.flush()

    def place(self, beats: float, topic: str, partition: int, event: str) -> None:
        """Send an event of any device to a partition of the console or the pc topic."""
        kind, device, session = event.split()
        value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'
        where = {"console": self._cluster.console, "pc": self._cluster.pc}[topic], partition
        time_ms = int((time.time() + beats * HEARTBEAT_S) * 1000)
        self._cluster.send_raw(value.encode(), device, time_ms, where)
        self._cluster.flush()

    @contextmanager
    def busy(self, beats: float, topic: str, partition: int) -> Iterator[None]:
        """Let a partition have a record of a while ago in every answer, until it is left."""
        done = Event()

        def send() -> None:
            number = 0
            while not done.wait(0.02):
                number += 1
                self.place(beats, topic, partition, f"End busy-{number} s")

        thread = Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def beat(self, beats: float) -> None:
        """Let some heartbeat intervals pass."""
        time.sleep(beats * HEARTBEAT_S)

    def await_session(self, session: str) -> None:
        """Wait until a session is in the output."""
        self._cluster.wait(session, lambda: session in self._cluster.sessions())


def begin(run: Run) -> None:
    """Start sessions that beat through the whole recording, so that outages and its end show."""
    run.send("Start c-through s-c")
    run.beat(0.5)
    run.send("Start p-through s-p")
    run.await_session("s-p")


def start(run: Run) -> None:
    """Starts, duplicates, replacements at once and after heartbeats, a late duplicate."""
    run.send("Start c1 a", "Start c2 b", "Start p1 c", "Start p1 c", "Start p2 d", "Start p2 e")
    run.beat(2.5)
    run.send("Start c1 f", "Start c1 a", "Start p1 c", "Start c2 g")
    run.beat(4.2)
    run.send("Start c1 a")
    run.beat(1.5)


def heartbeat(run: Run) -> None:
    """Heartbeats of sessions that started at any time, without any other input."""
    for number in range(6):
        run.send(f"Start c{number} a{number}", f"Start p{number} b{number}")
        run.beat(0.3)
    run.beat(5)


def end(run: Run) -> None:
    """Ends at once, after heartbeats, of idle devices and of other sessions; a new start."""
    run.send(*(f"Start c{number} a{number}" for number in range(5)))
    run.send("End c0 a0", "End p9 x", "End c1 other")
    run.beat(3.1)
    run.send("End c1 a1", "End c2 a2", "End c2 a2", "Start c0 a9")
    run.beat(1.6)
    run.send("End c3 a3", "Start c1 b1")
    run.beat(2)


def timeout(run: Run) -> None:
    """Timeouts of idle sessions, and ends that come after them."""
    run.send("Start c1 a1", "Start p1 b1", "Start p2 b2")
    run.beat(2.5)
    run.send("End p2 b2", "Start c2 a2")
    run.beat(5)
    run.send("End c1 a1", "Start p1 b3")
    run.beat(3)


def outage(run: Run) -> None:
    """A kill and a clean stop; sessions end, start and are replaced while it is down."""
    run.send(*(f"Start c{number} a{number}" for number in range(4)), "Start p1 b1")
    for sign in (signal.SIGKILL, signal.SIGTERM):
        run.beat(3.3)
        run.end(sign)
        run.beat(2)
        number = 0 if sign == signal.SIGKILL else 1
        run.send(f"End c{number} a{number}", f"Start p{number} new{number}")
        run.beat(2)
        run.go()
        run.await_session(f"new{number}")
    run.beat(3)


def bad_input(run: Run) -> None:
    """Bad input between good one; a stamp in the future; the same record twice."""
    run.send("Start c1 a")
    for value in (*BAD, *BAD[:2]):
        run.send_raw(value, "c1")
        run.send_raw(value, "p1")
    late = b'{"type":"GameStart","device_id":"p2","session_id":"future"}'
    run.send_raw(late, "p2", int(time.time() * 1000) + 10_000_000)
    run.send_raw(b'{"type":"GameEnd","device_id":"c1","session_id":"a","more":1}', "c1")
    run.send("Start p2 b")
    run.beat(4)


def order(run: Run) -> None:
    """Facts that disagree: older starts, ends before starts, late ends, a relaunch, no time."""
    run.send("Start c1 new", "Start p1 a", "Start p2 a")
    run.send_at(-9, "Start c1 old")
    run.send("End c2 early")
    run.beat(1)
    run.send_at(-5, "Start c2 early")
    run.send_at(-0.5, "End c3 gone")
    run.beat(2)
    run.send("End c1 old", "End p1 a")
    run.send_at(-1.5, "End p2 a")
    run.beat(0.5)
    run.send("Start p1 a")
    run.send_at(-4, "Start p2 a")
    for time_ms in (-1, -62_135_596_800_000):
        value = b'{"type":"GameStart","device_id":"p3","session_id":"timeless"}'
        run.send_raw(value, "p3", time_ms)
    run.send_at(-40, "Start c4 late")
    run.send("End c1 new")
    run.beat(4)


def history(run: Run) -> None:
    """What was in the topics before the first start: sessions that ended, and that go on."""
    run.beat(2)


def old_events(run: Run) -> None:
    """Twenty seconds of history, in order of time."""
    for number in range(6):
        run.send_at(-40 + number, f"Start c{number} a{number}", f"Start p{number} b{number}")
    for number in range(3):
        run.send_at(-20 + number, f"End c{number} a{number}", f"Start p{number} d{number}")


# Where the start and the end of a device are: in two partitions, or in two topics.
APART = [
    (("console", 0), ("console", 1)),
    (("console", 1), ("console", 0)),
    (("pc", 0), ("pc", 1)),
    (("pc", 1), ("pc", 0)),
    (("pc", 0), ("console", 0)),
    (("console", 1), ("pc", 1)),
]


def apart(run: Run, name: str) -> None:
    """Send sessions of the last ten heartbeats whose events are in different partitions."""
    for number, (first, second) in enumerate(APART):
        run.place(-10 + 0.1 * number, *first, f"Start d{number} {name}{number}")
        run.place(-4 + 0.1 * number, *second, f"End d{number} {name}{number}")


def partitions(run: Run) -> None:
    """Starts and ends in different partitions: before the first start, in an outage, and live."""
    run.beat(3)
    run.end(signal.SIGTERM)
    run.beat(11)
    apart(run, "second")
    run.go()
    run.await_session("second0")
    run.beat(2)
    for number, (first, second) in enumerate(APART):
        run.place(0, *second, f"Start d{number} live{number}")
        run.place(0.01, *first, f"End d{number} live{number}")
    run.beat(3)


def busy(run: Run) -> None:
    """Timestamps of three seconds ago, live, beside a partition that never pauses."""
    with run.busy(-6, "pc", 0):
        run.beat(2)
        run.send_at(-6, "Start c1 a", "Start c2 b", "Start p1 c", "Start p2 d")
        run.beat(3.3)
        run.send_at(-6, "Start c1 e", "End c2 b")
        run.beat(8)
        run.send_at(-6, "End p1 c", "Start p2 f", "End c1 e")
        run.beat(4)


def clock(run: Run) -> None:
    """The clock of the machine is 20 s behind, and is put right."""
    wall = run.settable_clock()
    wall.step(-20)
    run.send_at(-60, "Start c0 old", "Start p0 old-p")
    run.go()
    begin(run)
    run.send("Start c1 a", "Start p1 b", "Start p1 c")
    run.send_at(90, "Start p2 far")
    run.beat(4.2)
    run.send("End c1 a")
    wall.step(0)
    run.beat(5)
    run.send("End p1 c", "Start c2 d", "End c0 old")
    run.beat(4)


def settings(run: Run) -> None:
    """The same store with twice the heartbeat interval, and with a maximum that some are over."""
    run.send("Start c1 a", "Start p1 b")
    run.beat(12)
    run.send("Start c2 c", "Start p2 d")
    run.beat(3.3)
    run.end(signal.SIGTERM)
    run.set(HEARTWHEEL_HEARTBEAT_MS="1000", HEARTWHEEL_MAX_SESSION_MS="6000")
    run.beat(1)
    run.go()
    run.send("Start c3 e", "Start p3 f")
    run.await_session("f")
    run.beat(6.5)
    run.send("End c3 e", "End c2 c", "Start p3 g")
    run.beat(9)


def alive(run: Run, beats: int, *sessions: str) -> None:
    """Let sessions ping at each heartbeat, and those that go through the whole recording."""
    for _ in range(beats):
        run.send(*(f"Ping {session}" for session in ("c-through s-c", "p-through s-p", *sessions)))
        run.beat(1)


def presence(run: Run) -> None:
    """Silence ends sessions, pings keep and begin them, and a kill is no silence."""
    run.send("Start c1 a", "Start c2 b", "Start p1 c", "Ping p2 d", "Start c4 h", "Start p6 k")
    game = b'{"type":"GameStart","device_id":"p3","session_id":"e","title":{"id":7}}'
    run.send_raw(game, "p3")
    alive(run, 3, "c2 b", "p2 d")
    run.send("Ping c9 nobody", "End p2 d", "End p6 k", "Ping c4 h")
    alive(run, 3, "c2 b", "p2 f", "p3 e")
    run.send("Start c1 g", "Ping p2 other", "Start c5 i")
    alive(run, 2, "c2 b", "p3 e")
    run.end(signal.SIGKILL)
    run.send("End c5 i", "Start p5 j")
    alive(run, 2, "c2 b", "p3 e")
    run.go()
    alive(run, 6, "c2 b", "p3 e")
    run.send("End c2 b")
    alive(run, 3, "p3 e", "p5 j")


def topics_for_consumers(cluster: Cluster) -> None:
    """Let heartbeats, summaries and the table of active sessions have topics of their own."""
    cluster.give_heartbeats_a_topic()
    cluster.give_summaries_a_topic()
    cluster.give_the_table_a_topic()


PING_TABLE = """
type = "type"
start = "GameStart"
end = "GameEnd"
ping = "GamePing"
device = "device_id"
session = "session_id"
carry = {title = "title"}
idle_timeout_ms = 1_500
open_on_ping = true
"""


def topics_of_presence(cluster: Cluster) -> None:
    """Read the pc topic by a table in which a ping begins a session, and have other topics."""
    topics_for_consumers(cluster)
    config = cluster.folder / "config.toml"
    config.write_text(f'[inputs.{cluster.pc}]\nplatform = "pc"{PING_TABLE}')
    cluster.variables["HEARTWHEEL_INPUT_TOPICS"] = f"{cluster.console}=console"
    cluster.variables["HEARTWHEEL_CONFIG"] = str(config)


TOPICS: dict[str, Callable[[Cluster], None]] = {
    "presence": topics_of_presence,
    "topics-apart": topics_for_consumers,
}
BEFORE: dict[str, Callable[[Run], None]] = {
    "history": old_events,
    "partitions": lambda run: apart(run, "first"),
}
# These start the dataflow themselves.
START_THEMSELVES = {"clock"}
SCENARIOS: dict[str, tuple[Callable[[Run], None], dict[str, str]]] = {
    "start": (start, {}),
    "heartbeat": (heartbeat, {}),
    "end": (end, {}),
    "timeout": (timeout, {"HEARTWHEEL_MAX_SESSION_MS": "2750"}),
    "outage-latest": (outage, {"HEARTWHEEL_CATCH_UP": "latest"}),
    "outage-all": (outage, {"HEARTWHEEL_CATCH_UP": "all"}),
    "bad-input": (bad_input, {}),
    "order": (order, {}),
    "history": (history, {"HEARTWHEEL_CATCH_UP": "latest"}),
    "partitions": (partitions, {}),
    "busy": (busy, {}),
    "clock": (clock, {}),
    "settings": (settings, {}),
    "presence": (
        presence,
        {"HEARTWHEEL_IDLE_TIMEOUT_MS": "2000", "HEARTWHEEL_CATCH_UP": "all"},
    ),
    "topics-apart": (outage, {"HEARTWHEEL_CATCH_UP": "latest"}),
}


def make(name: str, address: str, folder: Path, path: Path) -> None:
    """Run a scenario on topics of its own and record it."""
    scenario, variables = SCENARIOS[name]
    folder.mkdir()
    cluster = Cluster(address, folder, name)
    cluster.variables |= SETTINGS | variables
    TOPICS.get(name, lambda _cluster: None)(cluster)
    try:
        run = Run(cluster)
        BEFORE.get(name, lambda _run: None)(run)
        if name not in START_THEMSELVES:
            run.go()
            begin(run)
        scenario(run)
        run.end(signal.SIGTERM)
        begin_ms = run.record_from_ms
        record(cluster, path, *([] if begin_ms is None else ["--from", str(begin_ms)]))
    finally:
        cluster.end()


def record(cluster: Cluster, path: Path, *options: str) -> None:
    """Record the topics of a cluster."""
    path.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "heartwheel.cli", "record", str(path), *options],
        env=environment() | cluster.variables,
        cwd=ROOT,
        check=True,
    )


def main() -> None:
    """Make the recordings that are named, or all."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        broker = Broker(folder / "kafka")
        broker.start()
        try:
            for name in sys.argv[1:] or SCENARIOS:
                make(name, broker.address, folder / name, FOLDER / f"{name}.jsonl.zst")
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
