"""What the output topic says: latency by type, and each session against the reference model."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from confluent_kafka import Consumer, TopicPartition
from msgspec import Struct, field

from session_logic.codec import decode_input, decode_output
from session_logic.events import (
    Fact,
    GameStart,
    Heartbeat,
    OutputEvent,
    Rejected,
    SessionActive,
    Watermark,
)
from session_logic.rules import Rules
from tests.support.model import Model

NOTHING_FIRED = Watermark(-1)
Histogram = Counter[int]


def read_topic(address: str, topic: str) -> Iterator[tuple[int, bytes]]:
    """Yield (timestamp in ms, value) of every record, partition by partition in offset order."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "heartwheel-report",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 8_000_000,
        }
    )
    for partition in consumer.list_topics(topic, timeout=15).topics[topic].partitions:
        consumer.assign([TopicPartition(topic, partition, 0)])
        at_end = False
        while not at_end:
            for message in consumer.consume(20_000, 1.0):
                if message.error() is not None:
                    at_end = True
                else:
                    yield message.timestamp()[1], message.value()
    consumer.close()


class Seen(Struct, gc=False):
    """How far the output of a session has come, or should have."""

    last: int = 0  # sequence of the last heartbeat
    end: str = ""  # reason, once ended
    end_ms: int = 0


class Latency(Struct):
    """Latencies in ms by type, in all and by second of the window."""

    total: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Counter))
    by_second: defaultdict[tuple[str, int], Histogram] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def add(self, name: str, second: int, latency_ms: int) -> None:
        """Count one record."""
        self.total[name][latency_ms] += 1
        self.by_second[name, second][latency_ms] += 1


def percentile(histogram: Histogram, share: float) -> int:
    """Return the smallest latency that at least this share of the records keeps within."""
    wanted = share * histogram.total()
    counted = 0
    for latency_ms in sorted(histogram):
        counted += histogram[latency_ms]
        if counted >= wanted:
            return latency_ms
    return 0


def expected_sessions(
    address: str, topics: dict[str, str], rules: Rules, upto_ms: int
) -> dict[str, tuple[int, Seen]]:
    """Return what the reference model makes of the input: session -> (started_ms, Seen)."""
    model = Model(rules)
    sessions: dict[str, tuple[int, Seen]] = {}

    def note(events: list[OutputEvent]) -> None:
        for event in events:
            if isinstance(event, SessionActive):
                sessions[event.session_id] = (event.started_ms, Seen())
            elif isinstance(event, Heartbeat):
                sessions[event.session_id][1].last = event.sequence
            else:
                seen = sessions[event.session_id][1]
                seen.end, seen.end_ms = event.reason, event.time_ms

    for topic, platform in topics.items():
        for time_ms, value in read_topic(address, topic):
            event = decode_input(value)
            assert not isinstance(event, Rejected)
            fact = Fact(
                isinstance(event, GameStart), event.device_id, event.session_id, platform, time_ms
            )
            note(model.apply(fact, NOTHING_FIRED))
    note(model.advance(-1, upto_ms, newest_only=False))
    return sessions


class Check(Struct):
    """Differences between output and model; all but raced must be 0."""

    sessions: int = 0
    records: int = 0
    missing: int = 0
    duplicate: int = 0
    misordered: int = 0
    unexpected: int = 0
    raced: int = 0  # heartbeats sent before an end that was stamped earlier but read later


def check_output(
    address: str,
    topic: str,
    expected: dict[str, tuple[int, Seen]],
    rules: Rules,
    window_ms: tuple[int, int],
    checked_ms: int,
) -> tuple[Check, Latency]:
    """Compare the output with the model, session by session, and measure it.

    Latency is measured on what is due in the window; what is due after checked_ms may be there
    or not, as the run was stopped about then.
    """
    check, latency = Check(sessions=len(expected)), Latency()
    seen: dict[str, Seen] = {}
    begin_ms, end_ms = window_ms
    for stamped_ms, value in read_topic(address, topic):
        event = decode_output(value)
        check.records += 1
        name = type(event).__name__
        if name == "SessionEnd" and event.reason == "timed_out":
            name = "TimedOut"
        if begin_ms <= event.time_ms < end_ms:
            second = (event.time_ms - begin_ms) // 1000
            latency.add(name, second, stamped_ms - event.time_ms)
            if name == "SessionActive":
                planned_ms = int(event.session_id[-13:])
                latency.add("SessionActive from plan", second, stamped_ms - planned_ms)
        state = seen.get(event.session_id)
        if event.session_id not in expected:
            check.unexpected += 1
        elif isinstance(event, SessionActive):
            if state is not None:
                check.duplicate += 1
            else:
                seen[event.session_id] = Seen()
        elif state is None:
            check.misordered += 1
        elif state.end:
            if isinstance(event, Heartbeat) and event.sequence > state.last:
                check.misordered += 1
            else:
                check.duplicate += 1
        elif isinstance(event, Heartbeat):
            if event.sequence <= state.last:
                check.duplicate += 1
            elif event.sequence > state.last + 1:
                check.missing += event.sequence - state.last - 1
                state.last = event.sequence
            else:
                state.last = event.sequence
        else:
            state.end, state.end_ms = event.reason, event.time_ms
    for session_id, (started_ms, want) in expected.items():
        got = seen.get(session_id)
        if got is None:
            check.missing += 1
            continue
        if want.end and not got.end and want.end_ms <= checked_ms:
            check.missing += 1
        if got.end and (got.end != want.end or got.end_ms != want.end_ms):
            check.unexpected += 1
        must = min(want.last, max(0, (checked_ms - started_ms) // rules.heartbeat_ms))
        check.missing += max(0, must - got.last)
        if got.last > want.last and want.end:
            check.raced += got.last - want.last
    return check, latency
