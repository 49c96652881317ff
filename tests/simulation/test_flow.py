"""The whole dataflow against the slow model, through delays and crashes, and planted faults."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaException,
    TopicPartition,
)

from dataflows import decode
from dataflows.formats import StoredOutbox
from dataflows.kafka import consumer, lease, permit, reader, reconcile, sink, source
from dataflows.kafka.already_written import AlreadyWritten
from dataflows.kafka.end_of_input import EndOfInput
from dataflows.kafka.known_ends import KnownEnds
from dataflows.kafka.letter_queue import LetterQueue
from dataflows.kafka.letter_topic import LetterTopic
from dataflows.kafka.outbox import Outbox
from dataflows.kafka.partition import InputPartition
from dataflows.kafka.reconcile import ReconcileError
from heartwheel.store import skip, start
from heartwheel.store.offsets import StoredOffsets
from session_logic import clock, hearing, lane, restoring, table, transitions
from session_logic.codec import decode_summary
from session_logic.errors import HeartwheelError
from session_logic.events import Fact, Kind, OutputEvent, Watermark
from session_logic.output import OutputBatch
from tests.simulation import engine, flow
from tests.simulation.flow import PARTITIONS, simulate
from tests.support.output_records import active

HISTORIES = 200
# A fault must be found in fewer histories than this.
SEARCH = 1_000
NEVER_MS = 1 << 60


@pytest.mark.parametrize(
    ("first", "count"),
    [
        (0, 30),
        pytest.param(30, 70, marks=pytest.mark.slow),
        *(pytest.param(n, 100, marks=pytest.mark.slow) for n in range(100, HISTORIES, 100)),
    ],
)
def test_random_histories_of_the_whole_flow_match_the_model(first: int, count: int) -> None:
    """The output topic holds each record once and in order, whatever crashes in between."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        counts += simulate(seed).counts
    assert counts["records"] > 40 * count
    assert counts["runs"] > 4 * count
    rare = ("raced facts", "skipped heartbeats", "missed heartbeats", "failed runs",
            "dead letters by the clock", "reordered devices", "clock set back",
            "clock set forward", "runs with other topics", "runs with other rules",
            "leaders moved", "coordinators moved", "wrong stores", "strays", "letters lost",
            "input expired", "output cut", "heartbeats apart",
            "changes of the heartbeat topic", "summaries", "rows", "pings",
            "silent ends")  # fmt: skip
    assert all(counts[name] for name in rare), counts


def find(first: int) -> None:
    """Run histories until one is wrong, and raise its error."""
    for seed in range(first, first + SEARCH):
        simulate(seed)


def drop_journal_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose a row of the store at a resume."""
    load = engine.Database.load

    def lossy(self: engine.Database, step: str) -> dict[str, Any]:
        loaded = load(self, step)
        if step == "store":
            rows = [name for name in loaded if name.startswith("journal")]
            if len(rows) > 1:
                del loaded[rows[-1]]
        return loaded

    monkeypatch.setattr(engine.Database, "load", lossy)


def forget_a_reconciled_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose one of the sessions that were found in the partition."""
    reconcile = Outbox.reconcile

    def forgetful(
        self: Outbox, end_offset: int, written: AlreadyWritten, ends_apart: dict[Kind, int]
    ) -> OutputBatch:
        if written.places:
            written.places.popitem()
        return reconcile(self, end_offset, written, ends_apart)

    monkeypatch.setattr(Outbox, "reconcile", forgetful)


def miss_due_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is due now for not due yet."""
    monkeypatch.setattr(table, "is_due", lambda due_ms, now_ms: due_ms < now_ms)


def store_no_waiting_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshot the end offset without what is not acknowledged."""
    stored = Outbox.stored_part

    def short(self: Outbox, *, settled: bool) -> StoredOutbox:
        return stored(self, settled=settled)._replace(keys=[], values=[])

    monkeypatch.setattr(Outbox, "stored_part", short)


def look_for_no_heartbeats_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is in the topic of heartbeats for not there."""
    add = AlreadyWritten.add

    def blind(self: AlreadyWritten, event: OutputEvent, *, apart: bool = False) -> None:
        if not apart:
            add(self, event)

    monkeypatch.setattr(AlreadyWritten, "add", blind)


def send_no_summary_of_an_end_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a summary for sent because the end of its session is there."""
    missing = AlreadyWritten.missing_summary

    def hasty(self: AlreadyWritten, value: bytes) -> bytes | None:
        one = decode_summary(value)
        name = one.device_id, one.session_id, one.started_ms
        return None if name in self._ends else missing(self, value)

    monkeypatch.setattr(AlreadyWritten, "missing_summary", hasty)


def send_a_summary_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a summary that is there for not there."""
    monkeypatch.setattr(AlreadyWritten, "missing_summary", lambda _, value: value)


def forget_a_ping_at_a_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay what is stored without the signs of life."""

    def apply(
        of: table.SessionTable, fact: Fact, watermark: Watermark, group: int
    ) -> list[OutputEvent]:
        return [] if fact.ping else transitions.apply_fact(of, fact, watermark, group)

    monkeypatch.setattr(restoring, "apply_fact", apply)


def take_an_outage_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let silence count while nobody can be heard, in histories that all have long timeouts."""
    listen_patiently(monkeypatch)
    monkeypatch.setattr(hearing, "STALL_MS", NEVER_MS)
    monkeypatch.setattr(hearing, "GAP_MS", NEVER_MS)


def listen_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let silence end sessions in all histories, and only after long."""
    monkeypatch.setattr(flow, "LISTENING", range(10))
    monkeypatch.setattr(flow, "IDLE_TIMEOUTS_MS", [5_000])


def take_a_restart_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go by the input alone in what has come while no run was there."""
    listen_patiently(monkeypatch)
    monkeypatch.setattr(hearing, "RESTART_MS", NEVER_MS)


def take_an_end_for_all_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out heartbeats apart because the end of their session is there."""
    has = AlreadyWritten.has
    monkeypatch.setattr(AlreadyWritten, "has", lambda self, event, **_: has(self, event))


def store_no_waiting_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshot the ends of the dead letters without those that are not acknowledged."""
    monkeypatch.setattr(LetterQueue, "waiting", lambda _: [])


def move_the_offset_before_all_is_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshot the end of the partition before all that was found there has come again."""
    stored = Outbox.stored_part

    def hasty(self: Outbox, *, settled: bool) -> StoredOutbox:  # noqa: ARG001
        return stored(self, settled=True)

    monkeypatch.setattr(Outbox, "stored_part", hasty)


def forget_the_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what was found in the partition with the first records that come."""
    admit = Outbox.admit

    def hasty(self: Outbox, records: OutputBatch) -> OutputBatch:
        admitted = admit(self, records)
        if records:
            self._written = None
        return admitted

    monkeypatch.setattr(Outbox, "admit", hasty)


def send_before_the_offset_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a new lane send in its first epoch."""
    monkeypatch.setattr("dataflows.kafka.sink.HOLD_EPOCHS", 0)


def act_on_no_fact_that_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take facts that came during a restore for done when it is interrupted."""
    monkeypatch.setattr(lane.LaneState, "waiting", 0)


def trust_an_end_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end of a partition count as known long after it was renewed last."""
    monkeypatch.setattr(clock, "END_VALID_MS", 60_000)


def invalidate_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a source that was paused keep its ends of partitions."""
    monkeypatch.setattr(KnownEnds, "invalidate", lambda *_: None)


def judge_ends_by_timestamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a partition for caught up only while its records are young."""
    progress = InputPartition.progress

    def dated(
        self: InputPartition, parts: int, source: str, now_ms: int
    ) -> clock.PartitionProgress | None:
        if self.watermark_ms and self.end is EndOfInput.REACHED:
            self.end, self.end_ms = EndOfInput.PASSED, self.watermark_ms
        return progress(self, parts, source, now_ms)

    monkeypatch.setattr(InputPartition, "progress", dated)


def wait_for_an_answer_without_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """See no end where Kafka does not announce one."""
    note_answer = InputPartition.note_answer

    def deaf(self: InputPartition, high_watermark: int, now_ms: int) -> None:
        if not self.pending:
            note_answer(self, high_watermark, now_ms)

    monkeypatch.setattr(InputPartition, "note_answer", deaf)


def trust_an_old_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with the watermark before a new answer has come."""
    refetch = KnownEnds.refetch

    def hasty(self: KnownEnds, kafka: Any) -> None:
        outdated = [part for part in self._partitions if part.end is EndOfInput.REFETCH]
        refetch(self, kafka)
        for part in outdated:
            self.note_answer(kafka, part, self._run.clock.now_ms())

    monkeypatch.setattr(KnownEnds, "refetch", hasty)


def believe_in_an_end_before_an_open_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no news for no input, where a transaction that has begun holds it up."""
    monkeypatch.setattr(InputPartition, "check_end", lambda *_: None)


def take_an_announced_end_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at the last stable offset, though the log goes on."""
    note_answer = InputPartition.note_answer

    def gullible(self: InputPartition, high_watermark: int, now_ms: int) -> None:
        announced = self.announced_offset == self.fetched_offset
        note_answer(self, self.fetched_offset if announced else high_watermark, now_ms)

    monkeypatch.setattr(InputPartition, "note_answer", gullible)


def begin_an_added_partition_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what was sent to a partition before it was noticed for history."""
    assign = consumer.SharedConsumer.assign

    def late(
        self: consumer.SharedConsumer, topic: str, number: int, offset: int | None
    ) -> InputPartition:
        if offset == OFFSET_BEGINNING and number >= PARTITIONS:
            end = self.open().get_watermark_offsets(TopicPartition(topic, number), 10)[1]
            return assign(self, topic, number, end)
        return assign(self, topic, number, offset)

    monkeypatch.setattr(consumer.SharedConsumer, "assign", late)


def forget_the_position_of_an_added_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read it from its beginning at every start."""
    build = source.KafkaSource.build_part

    def forgetful(self: source.KafkaSource, step: str, name: str, state: Any) -> Any:
        added = int(name.rpartition("/")[2]) >= PARTITIONS
        return build(self, step, name, (2, OFFSET_BEGINNING, "", "") if added else state)

    monkeypatch.setattr(source.KafkaSource, "build_part", forgetful)


def keep_unfinished_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let snapshots of an epoch that was not finished stay in the store."""
    monkeypatch.setattr(engine.Database, "forget_unfinished", lambda _: None)


def decide_by_the_clock_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a later clock judge what an earlier run has rejected."""
    monkeypatch.setattr(decode.Decode, "_rejected_earlier", lambda *_: {})


def swap_two_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send what waited in another order."""

    release = Outbox.release

    def reversed_release(self: Outbox) -> OutputBatch:
        waiting = release(self)
        return OutputBatch(waiting.keys[::-1], waiting.values[::-1], apart=waiting.apart)

    monkeypatch.setattr(Outbox, "release", reversed_release)


def end_no_session_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a session open that a crashed run has announced and this one ignores."""
    monkeypatch.setattr(transitions, "_end_if_open", lambda _: [])


def mistake_who_set_the_timestamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a broker's timestamp for a sender's, and the other way round."""
    monkeypatch.setattr(consumer, "TIMESTAMP_CREATE_TIME", TIMESTAMP_LOG_APPEND_TIME)


def judge_by_this_clock_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reject by a clock that is behind what an earlier run has acted on; all clocks are set."""
    monkeypatch.setattr(sink.KafkaSink, "published_ms", lambda _: 0)
    begin = flow.Simulation.__init__

    def begin_with_wrong_clocks(self: flow.Simulation, seed: int) -> None:
        begin(self, seed)
        self._wrong_ms = [3_000, 100_000, 3_600_000]

    monkeypatch.setattr(flow.Simulation, "__init__", begin_with_wrong_clocks)


def begin_at_the_end_of_a_leader_that_knows_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask at a start for no end, so that the first answer tells it."""
    monkeypatch.setattr(consumer, "end_offset", lambda *_: 0)


def read_output_to_any_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the end that a new leader announces for that of all that has been written."""

    def note_end(self: reader.ReadToEnd, partition: int, offset: int) -> None:
        self.ends[partition] = offset

    monkeypatch.setattr(reader.ReadToEnd, "_note_end", note_end)


def go_on_without_a_partition_that_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a partition without a leader, whatever an earlier run has read of it."""

    def may_be_left(self: InputPartition, now_ms: int) -> bool:
        since_ms = self.leaderless_ms
        return self.idle_ms > 0 and since_ms is not None and now_ms - since_ms >= self.idle_ms

    monkeypatch.setattr(InputPartition, "may_be_left", may_be_left)


def write_by_a_lease_of_any_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look only at whether there has been a renewal."""
    monkeypatch.setattr(permit.WritePermit, "valid", property(lambda self: self._given))


def renew_with_a_producer_that_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin the next transaction after one that was not answered."""
    turn = lease.Lease._turn

    def stubborn(self: lease.Lease) -> None:
        producer = self._producer
        try:
            turn(self)
        except KafkaException:
            self._producer = producer
            raise

    monkeypatch.setattr(lease.Lease, "_turn", stubborn)


def take_any_store_for_the_one_that_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start not compare the sign of the output topic with the store."""
    monkeypatch.setattr(start.StartCheck, "_of_owner", lambda _: iter(()))


def take_a_stray_record_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe that each record of the output is of this store."""
    own = reconcile.output_event
    monkeypatch.setattr(reconcile, "output_event", lambda *of: own(*of) or active("anybody"))


def begin_behind_a_gap_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start not compare what it has read with what is there."""
    monkeypatch.setattr(StoredOffsets, "input_gaps", lambda *_: [])


def begin_behind_a_gap_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start not compare what it has written with what is there."""
    monkeypatch.setattr(StoredOffsets, "output_gaps", lambda *_: [])


def refuse_a_start_without_the_letters_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run stop where the dead-letter topic has expired or was made anew."""

    def refuse(_self: LetterTopic, *where: int) -> None:
        raise ReconcileError(f"no dead letters from {where} on")

    monkeypatch.setattr(LetterTopic, "_warn_of_gap", refuse)


def forget_the_sessions_in_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin anew behind what is lost."""
    apply = skip.Skipping.apply

    def careless(self: skip.Skipping, skips: list[skip.Skip]) -> None:
        for part in self._recovery.parts:
            part.db.execute("DELETE FROM snaps WHERE step_id = 'heartwheel.sessions'")
            part.db.execute("DELETE FROM snaps WHERE step_id = 'heartwheel.store'")
        apply(self, skips)

    monkeypatch.setattr(skip.Skipping, "apply", careless)


def note_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no trace in the store of what was accepted as lost."""
    monkeypatch.setattr(skip, "note_down", lambda *_: None)


# Each with a history that shows it, at which the search begins.
FAULTS = {
    mistake_who_set_the_timestamp: 0,
    drop_journal_row: 0,
    forget_a_reconciled_record: 1,
    miss_due_by_one: 7,
    store_no_waiting_records: 5,
    move_the_offset_before_all_is_matched: 16,
    forget_the_found_at_once: 5,
    send_before_the_offset_is_stored: 8,
    act_on_no_fact_that_waited: 1,
    trust_an_end_for_a_minute: 19,
    judge_ends_by_timestamps: 0,
    wait_for_an_answer_without_records: 0,
    swap_two_records: 1,
    renew_with_a_producer_that_has_failed: 12,
    take_a_stray_record_for_its_own: 22,
    forget_the_sessions_in_a_skip: 11,
    note_no_skip: 11,
    look_for_no_heartbeats_apart: 1,
    take_an_end_for_all_before_it: 1,
    send_no_summary_of_an_end_that_is_there: 1,
    send_a_summary_again: 1,
    forget_a_ping_at_a_restore: 3,
    take_an_outage_for_silence: 25,
    take_a_restart_for_none: 82,
    take_an_announced_end_for_the_end: 66,
    judge_by_this_clock_alone: 216,
    store_no_waiting_letters: 56,
    begin_an_added_partition_at_its_end: 65,
    invalidate_no_end: 38,
    trust_an_old_watermark: 128,
    keep_unfinished_snapshots: 43,
    end_no_session_that_is_ignored: 206,
    forget_the_position_of_an_added_partition: 24,
    believe_in_an_end_before_an_open_transaction: 19,
    decide_by_the_clock_again: 7,
    begin_at_the_end_of_a_leader_that_knows_less: 39,
    go_on_without_a_partition_that_is_unread: 81,
    read_output_to_any_end: 69,
    write_by_a_lease_of_any_age: 626,
    take_any_store_for_the_one_that_has_written: 5,
    begin_behind_a_gap_of_the_input: 11,
    begin_behind_a_gap_of_the_output: 17,
    refuse_a_start_without_the_letters_of_before: 10,
}


@pytest.mark.parametrize("plant", FAULTS)
def test_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation finds each of these faults, and names the seed; without it all is well."""
    simulate(FAULTS[plant])
    plant(monkeypatch)
    with pytest.raises((AssertionError, HeartwheelError, LookupError)) as found:
        find(FAULTS[plant])
    assert any(note.startswith("seed=") for note in found.value.__notes__)


def learn_of_no_silent_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decide about silence again, whatever a crashed run has sent."""
    monkeypatch.setattr(AlreadyWritten, "silent_ends", lambda _: {})


def send_before_an_outage_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold nothing back that follows from an outage."""
    hear_anew = lane.Lane._hear_anew

    def hasty(self: lane.Lane, time_ms: int, output: lane.LaneOutput) -> None:
        hear_anew(self, time_ms, output)
        output.records.rests_on_state = False

    monkeypatch.setattr(lane.Lane, "_hear_anew", hasty)


@pytest.mark.parametrize(
    ("plant", "first"), [(learn_of_no_silent_end, 107), (send_before_an_outage_is_stored, 301)]
)
def test_silence_that_is_decided_again_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sessions end for silence in all histories, from a seed on that is known to tell."""
    monkeypatch.setattr(flow, "LISTENING", range(10))
    for seed in range(first, first + 2):
        simulate(seed)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in range(first, first + 100):
            simulate(seed)
