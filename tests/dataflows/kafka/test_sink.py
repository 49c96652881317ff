"""The sink's part of a lane that the store does not know."""

import random
from collections import Counter
from typing import Any

import pytest
from msgspec import UNSET

from dataflows.kafka.reconcile import ReconcileError
from dataflows.kafka.sink import KafkaSink
from dataflows.messages import DEAD_LETTER_KEY, HOLD_EPOCHS, lane_key
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.codec import decode_output, encode_output
from session_logic.errors import ConfigError
from session_logic.events import SessionEnd
from session_logic.keys import KEY_GROUPS, key_group_of, lane_of
from session_logic.output import batch_with
from tests.support.clocks import T
from tests.support.fake_kafka import Consumer, Log, Producer, Record
from tests.support.output_records import active, batch, beat

COMPLETE_MS = T + 10**9
DEVICE = next(f"d{n}" for n in range(99) if not lane_of(key_group_of(f"d{n}"), 4))


class Sink:
    """An output topic and one of heartbeats, and runs that write to them."""

    def __init__(self) -> None:
        self.log = Log({"session-events": 4, "beats": 4, "table": 4, "dead-letters": 1})
        self.state: object = None  # that of the last clean stop
        self.last: KafkaSink  # of the last run

    def values(self, topic: str = "session-events") -> list[bytes | None]:
        """Return what is in the partition of lane 0."""
        return [record.value for record in self.log.at((topic, 0))]

    def run(
        self,
        *epochs: list[bytes],
        new_store: bool = False,
        heartbeat_topic: str = "",
        table_topic: str = "",
        stopped: bool = False,
        rest_on_state: bool = False,
        snapshot_ms: int = 250,
    ) -> None:
        """Write values to lane 0, a snapshot after each list; only a stop leaves what is stored.

        The first of them may rest on the state.
        """
        kafka = Producer(self.log, random.Random(1), lambda: T)
        settings = Settings(
            new_store=new_store,
            heartbeat_topic=heartbeat_topic,
            table_topic=table_topic,
            snapshot_ms=snapshot_ms,
            stop_timeout_ms=20_000,
        )
        sink = KafkaSink(
            settings,
            RunState(),
            make_consumer=lambda _options: Consumer(self.log, lambda: T),
            make_producer=lambda _options: kafka,
        )
        part: Any = sink.build_part("sink", "lane-000", self.state)  # type: ignore[arg-type]
        for number, values in enumerate(epochs):
            records = batch_with(settings.topics_apart, 1)
            records.rests_on_state = rest_on_state and not number
            for value in values:
                records.add(decode_output(value), value)
            records.complete_up_to_ms = COMPLETE_MS if stopped else None
            part.write_batch([records])
            part.snapshot()
        sink.producer.flush()
        self.state = part.snapshot() if stopped else self.state
        self.last = sink

    def write(self, values: list[bytes]) -> None:
        """Let an earlier run have written values."""
        self.log.at(("session-events", 0)).extend(Record(T, b"k", v, None, T) for v in values)


VALUES = batch(active(DEVICE), beat(1, DEVICE), beat(2, DEVICE)).values


@pytest.fixture
def sink() -> Sink:
    """Return an empty topic."""
    return Sink()


def test_new_lane_sends_only_once_its_offset_is_stored(sink: Sink) -> None:
    """Its first records are held until then."""
    sink.run(VALUES)
    assert sink.values() == []
    sink.run(VALUES, *([] for _ in range(HOLD_EPOCHS - 1)))
    assert sink.values() == VALUES


def test_lane_that_was_new_after_the_copy_of_a_store_sends_nothing_again(sink: Sink) -> None:
    """The store was restored from before the lane began, and its partition has records."""
    sink.write(VALUES[:2])
    sink.run(VALUES)
    assert sink.values() == VALUES


def test_lane_of_a_store_that_is_meant_to_be_new_sends_all_again(sink: Sink) -> None:
    """What another store has written does not count."""
    sink.write(VALUES[:2])
    sink.run(VALUES, *([] for _ in range(HOLD_EPOCHS - 1)), new_store=True)
    assert sink.values() == VALUES[:2] + VALUES


START, BEATS = VALUES[:1], VALUES[1:]
HOLD: tuple[list[bytes], ...] = ([],) * HOLD_EPOCHS


def test_records_that_rest_on_the_state_are_sent_once_that_is_stored(sink: Sink) -> None:
    """And so is all that comes after them; a stop in between leaves it to the next run."""
    sink.run(*HOLD, START, stopped=True)
    sink.run(BEATS[:1], rest_on_state=True)
    assert sink.values() == START
    sink.run(BEATS[:1], BEATS[1:], rest_on_state=True)
    assert sink.values() == VALUES
    sink.log.at(("session-events", 0))[1:] = []
    sink.run(BEATS[:1], rest_on_state=True)
    assert sink.values() == START


@pytest.mark.parametrize("rest_on_state", [False, True])
def test_records_are_held_until_the_snapshots_of_so_many_epochs(
    sink: Sink, *, rest_on_state: bool
) -> None:
    """Those of a new lane, and those that rest on the state."""
    if rest_on_state:
        sink.run(*HOLD, stopped=True)
    held = []
    for epochs in range(HOLD_EPOCHS + 1):
        sink.run(*([START] * (epochs > 0)), *HOLD[1:epochs], rest_on_state=rest_on_state)
        held.append(sink.last.holds())
    assert held == [not rest_on_state, *([True] * (HOLD_EPOCHS - 1)), False]


@pytest.mark.parametrize(("snapshot_ms", "waits"), [(5_000, True), (5_001, False)])
def test_stop_waits_for_no_snapshots_that_take_more_than_half_of_its_time(
    sink: Sink, snapshot_ms: int, *, waits: bool
) -> None:
    """Records stay in the store then, and the next run sends them."""
    sink.run(START, snapshot_ms=snapshot_ms)
    assert sink.last.holds() == waits


def test_records_whose_offsets_are_not_told_are_there_and_not_sent_again(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka may know no more of one that was sent again; the run goes on, and so does the next."""
    sink.run(*HOLD, START, stopped=True)
    monkeypatch.setattr(Producer, "tells_offset", staticmethod(lambda: False))
    sink.run(BEATS[:1], BEATS[1:], stopped=True)
    assert sink.values() == VALUES
    sink.run([])
    assert sink.values() == VALUES


def test_ends_for_silence_that_are_out_are_told_once_they_are_read(sink: Sink) -> None:
    """Those of a killed run, in the output or as a summary alone; a new lane has none."""
    sink.run(*HOLD, START, stopped=True)
    assert sink.last.silent_ends(0) == {}
    times_ms = T, T + 9_000, "went_silent", 4_000, UNSET, T + 4_000
    end = SessionEnd(DEVICE, "s", "pc", *times_ms)  # type: ignore[arg-type]
    sink.write([encode_output(end)])
    sink.run([])
    assert sink.last.silent_ends(0) == {(DEVICE, "s", T): T + 9_000}
    assert sink.last.silent_ends(1) is None


def test_heartbeats_go_to_their_topic_once_its_offset_is_stored(sink: Sink) -> None:
    """What another run has left there does not count."""
    sink.log.at(("beats", 0)).append(Record(T, b"k", b"of another run", None, T))
    sink.run(*HOLD, START, stopped=True)
    sink.run(BEATS[:1], heartbeat_topic="beats")
    assert sink.values("beats")[1:] == []
    sink.run(BEATS[:1], [], heartbeat_topic="beats", stopped=True)
    sink.run(BEATS[1:], heartbeat_topic="beats", stopped=True)
    assert (sink.values(), sink.values("beats")[1:]) == (START, BEATS)


def test_heartbeats_that_were_found_in_their_topic_are_not_sent_again(sink: Sink) -> None:
    """A killed run has sent them."""
    sink.run(*HOLD, heartbeat_topic="beats", stopped=True)
    sink.run(VALUES, heartbeat_topic="beats")
    sink.run(VALUES, heartbeat_topic="beats", stopped=True)
    assert (sink.values(), sink.values("beats")) == (START, BEATS)


@pytest.mark.parametrize("change", [("", "beats"), ("beats", "")], ids=["on", "off"])
def test_heartbeat_topic_is_not_changed_after_a_crash(sink: Sink, change: tuple[str, str]) -> None:
    """What the killed run has sent could come again in the other topic; the line says how to go."""
    before, after = change
    sink.run(*HOLD, heartbeat_topic=before, stopped=True)
    sink.run(VALUES, heartbeat_topic=before)
    with pytest.raises(ReconcileError, match=r"start it as it was, stop it with SIGTERM"):
        sink.run(VALUES, heartbeat_topic=after, stopped=True)
    sink.run(VALUES, heartbeat_topic=before, stopped=True)
    sink.run(*HOLD, heartbeat_topic=after, stopped=True)
    assert sorted(sink.values() + sink.values("beats")) == sorted(VALUES)  # type: ignore[type-var]


def test_heartbeats_come_back_to_the_output_after_a_clean_stop(sink: Sink) -> None:
    """Their topic may be deleted by then; nothing of it is needed any more."""
    sink.run(*HOLD, START + BEATS[:1], heartbeat_topic="beats", stopped=True)
    del sink.log.topics["beats"]
    sink.run(BEATS[1:], [], stopped=True)
    assert sink.values() == START + BEATS[1:]
    assert len(sink.state) == len(("version", "offset", "keys", "values"))  # type: ignore[arg-type]


def test_run_that_was_killed_before_it_stored_that_heartbeats_are_back_has_sent_none(
    sink: Sink,
) -> None:
    """So another run may have either topics."""
    sink.run(*HOLD, START, heartbeat_topic="beats", stopped=True)
    sink.run(BEATS)
    assert (sink.values(), sink.values("beats")) == (START, [])
    sink.run(BEATS[:1], heartbeat_topic="beats", stopped=True)
    sink.run(BEATS[1:], [], stopped=True)
    assert (sink.values(), sink.values("beats")) == (START + BEATS[1:], BEATS[:1])


def test_device_without_a_session_has_no_value_in_the_table(sink: Sink) -> None:
    """Compaction removes it then."""
    end = SessionEnd(DEVICE, "s", "pc", T, T + 9, "ended", 9)
    sink.run(*HOLD, [*START, encode_output(end)], table_topic="table", stopped=True)
    first, last = sink.values("table")
    assert b'"session_id":"s"' in (first or b"")
    assert last is None


def test_table_begins_in_a_topic_without_records(sink: Sink) -> None:
    """Rows of devices that have ended meanwhile would stay for ever."""
    sink.run(*HOLD, START, table_topic="table", stopped=True)
    sink.run(BEATS[:1], table_topic="table", stopped=True)
    sink.run(BEATS[1:], [], stopped=True)
    with pytest.raises(ConfigError, match=r"topic table has had records, .* a new topic"):
        sink.run(BEATS, table_topic="table", stopped=True)


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("nowhere", r"topic nowhere does not exist .* or correct HEARTWHEEL_SUMMARY_TOPIC"),
        ("few", r"topic few has 3 partitions, not 4"),
    ],
)
@pytest.mark.parametrize("begun", [True, False, None])
def test_topic_apart_that_does_not_fit_is_refused_as_the_output_is(
    topic: str, line: str, *, begun: bool | None
) -> None:
    """A lane has a partition of its own in each, whether it has begun or not."""
    sink = start({"session-events": 4, "few": 3}, summary_topic=topic)
    with pytest.raises(ConfigError, match=line):
        sink.check(begun=begun)


def start(partitions: dict[str, int], **settings: str) -> KafkaSink:
    """Return the sink of a run that begins with these topics."""
    log = Log(partitions | {"dead-letters": 1})
    return KafkaSink(
        Settings(**settings),  # type: ignore[arg-type]
        RunState(),
        make_producer=lambda _options: Producer(log, random.Random(1), lambda: T),
    )


@pytest.mark.parametrize(("route", "command"), [("hash", "migrate"), ("partition", "reshard")])
def test_store_goes_on_with_more_partitions_than_lanes_and_says_so_of_each_topic(
    caplog: pytest.LogCaptureFixture, route: str, command: str
) -> None:
    """Nobody can take them away, and lanes write to none of them."""
    partitions = {"session-events": 5, "beats": 6, "summaries": 4}
    sink = start(partitions, heartbeat_topic="beats", summary_topic="summaries", route=route)
    sink.check(begun=True)
    said = [(record.msg["topic"], record.msg["partitions"]) for record in caplog.records]
    assert said == [("session-events", 5), ("beats", 6)]
    assert {record.msg["lanes"] for record in caplog.records} == {4}
    assert all(
        f"heartwheel store {command} --lanes" in record.msg["event"] for record in caplog.records
    )


@pytest.mark.parametrize("topic", ["session-events", "beats"])
def test_new_store_is_refused_more_partitions_than_lanes(topic: str) -> None:
    """It is most likely a wrong number of lanes, which the store would keep."""
    sink = start({"session-events": 4, "beats": 4} | {topic: 8}, heartbeat_topic="beats")
    with pytest.raises(ConfigError, match=rf"topic {topic} has 8 .*, not 4: .* HEARTWHEEL_LANES"):
        sink.check(begun=False)


def test_process_without_the_store_leaves_more_partitions_to_the_first_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It cannot tell whether the store is new, and none begins before the first."""
    start({"session-events": 5}).check(begun=None)
    assert not caplog.records


def test_part_of_a_lane_is_named_by_the_process_that_has_the_lane() -> None:
    """So its records are written there; what no lane uses is named by all of them."""
    named: Counter[str] = Counter()
    for number in range(3):
        log = Log({"session-events": 4, "dead-letters": 1})
        run = RunState(has_lane=lambda lane, number=number: lane % 3 == number)
        sink = KafkaSink(
            Settings(lanes=4),
            run,
            make_producer=lambda _options, log=log: Producer(log, random.Random(1), lambda: T),
        )
        named.update(sink.list_parts())
    assert named.keys() == {*map(lane_key, range(KEY_GROUPS)), DEAD_LETTER_KEY}
    assert {named[lane_key(lane)] for lane in range(4)} == {1}
    assert {named[lane_key(4)], named[DEAD_LETTER_KEY]} == {3}
