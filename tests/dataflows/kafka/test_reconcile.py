"""The reconciliation with a Kafka in memory: what is found, and what stops a start."""

import msgspec
import pytest
from confluent_kafka import KafkaError, TopicPartition

from dataflows.kafka import reader as reader_module
from dataflows.kafka.outbox import Outbox
from dataflows.kafka.reader import ReadError
from dataflows.kafka.reconcile import OutputReader, ReconcileError, Reconciliation
from dataflows.settings import Settings
from session_logic.keys import key_group_of, lane_of
from session_logic.output import OutputBatch
from tests.support.clocks import T
from tests.support.events import decoded
from tests.support.fake_kafka import Consumer, Log, Record
from tests.support.output_records import active, batch, beat

LANES = 2
DEVICES = [
    next(f"d{n}" for n in range(99) if lane_of(key_group_of(f"d{n}"), LANES) == lane)
    for lane in range(LANES)
]


class Resume:
    """An output topic, and what a resume sends to it."""

    def __init__(self) -> None:
        self.log = Log({"out": LANES})
        self.kafka = Consumer(self.log, lambda: T)
        settings = Settings(output_topic="out", lanes=LANES)
        self.reader = OutputReader(settings, lambda _options: self.kafka)
        self.reconciliation = Reconciliation(settings, self.reader)
        self.sent: dict[int, OutputBatch] = {}

    def append(self, lane: int, *values: bytes) -> None:
        """Write records to a partition."""
        self.log.at(("out", lane)).extend(Record(T, b"k", value, None, T) for value in values)

    def resume(
        self,
        lane: int,
        end_offset: int,
        waiting: OutputBatch | None = None,
        strays_before: int = 0,
    ) -> None:
        """Add a lane with what its snapshot has."""
        outbox = Outbox(end_offset, waiting, strays_before)
        self.reconciliation.add(lane, outbox, lambda records: self.sent.update({lane: records}))


@pytest.fixture
def resume() -> Resume:
    """Return an empty output topic."""
    return Resume()


def test_newest_record_of_all_partitions_tells_how_far_runs_have_come(resume: Resume) -> None:
    """It is the last one of its partition; partitions without records tell nothing."""
    assert resume.reader.newest_ms("out", range(LANES)) == 0
    resume.log.at(("out", 1)).extend(Record(T + ms, b"k", b"v", None, T) for ms in (-5, 7))
    assert resume.reader.newest_ms("out", range(LANES)) == T + 7


def test_lanes_learn_what_is_there_and_send_the_rest(resume: Resume) -> None:
    """All lanes are read at once, each from its own offset."""
    first, second = DEVICES
    old = active(first, T - 1)
    resume.append(0, *batch(old, active(first), beat(1, first)).values)
    resume.resume(0, 1, batch(active(first), beat(1, first), beat(2, first)))
    resume.resume(1, 0, batch(active(second)))
    resume.reconciliation.reconcile()
    assert decoded(resume.sent[0]) == [beat(2, first)]
    assert decoded(resume.sent[1]) == [active(second)]


def test_lanes_learn_only_once(resume: Resume) -> None:
    """The hot path asks at each batch."""
    resume.resume(0, 0)
    resume.reconciliation.reconcile()
    resume.sent.clear()
    resume.reconciliation.reconcile()
    assert resume.sent == {}


def test_record_that_was_compacted_away_is_known_by_a_later_one(resume: Resume) -> None:
    """Compaction leaves the last record of a device, and they are written in order."""
    records = batch(active(DEVICES[0]), beat(1, DEVICES[0]), beat(2, DEVICES[0]))
    resume.append(0, *batch(active(DEVICES[0]), beat(1, DEVICES[0])).values)
    resume.log.at(("out", 0))[0].hidden = True
    resume.resume(0, 0, records)
    resume.reconciliation.reconcile()
    assert decoded(resume.sent[0]) == [beat(2, DEVICES[0])]


def test_end_that_a_broker_tells_which_has_just_taken_over_is_not_the_end(
    resume: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it does not know yet would be sent again."""
    sent = batch(active(DEVICES[0]), beat(1, DEVICES[0]))
    resume.append(0, *sent.values)
    assign = resume.kafka.assign

    def late(parts: list[TopicPartition]) -> None:
        resume.log.elect(("out", 0), 1)
        assign(parts)

    monkeypatch.setattr(resume.kafka, "assign", late)
    resume.resume(0, 0, sent)
    resume.reconciliation.reconcile()
    assert resume.sent[0].values == []


def test_store_without_an_offset_begins_at_the_end(resume: Resume) -> None:
    """A migrated lane knows that nothing of it is under way."""
    resume.append(0, *batch(active(DEVICES[0])).values)
    resume.resume(0, -1, batch(active(DEVICES[0])))
    resume.reconciliation.reconcile()
    assert len(resume.sent[0]) == 1


@pytest.mark.parametrize(
    "value", [b"{}", b"", msgspec.json.encode(active(DEVICES[1]))], ids=["json", "none", "lane"]
)
def test_record_of_somebody_else_stops_the_start(resume: Resume, value: bytes) -> None:
    """Also an event of a device that belongs to another partition."""
    resume.append(0, value)
    resume.resume(0, 0)
    with pytest.raises(ReconcileError, match=r"out/0: the record at offset 0 is not Heartwheel's"):
        resume.reconciliation.reconcile()


def test_record_of_somebody_else_that_was_accepted_is_passed_over(resume: Resume) -> None:
    """What is Heartwheel's around it is found; one that comes later is not accepted."""
    device = DEVICES[0]
    resume.append(0, *batch(active(device)).values, b"stray", *batch(beat(1, device)).values)
    records = batch(active(device), beat(1, device), beat(2, device))
    resume.resume(0, 0, records, strays_before=2)
    resume.reconciliation.reconcile()
    assert decoded(resume.sent[0]) == [beat(2, device)]
    resume.append(0, b"another stray")
    resume.resume(0, 0, records, strays_before=2)
    with pytest.raises(ReconcileError, match=r"out/0: the record at offset 3 is not Heartwheel's"):
        resume.reconciliation.reconcile()


def test_topic_that_was_cut_stops_the_start(resume: Resume) -> None:
    """What the store has written is gone."""
    resume.append(0, *batch(active(DEVICES[0])).values)
    resume.resume(0, 2)
    with pytest.raises(ReconcileError, match=r"out/0 ends at offset 1, .* written up to 2"):
        resume.reconciliation.reconcile()


def test_offset_that_has_expired_stops_the_start(
    resume: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written since the snapshot cannot be known."""
    monkeypatch.setattr(resume.kafka, "get_watermark_offsets", lambda *_: (3, 9))
    resume.resume(0, 2)
    with pytest.raises(ReconcileError, match=r"out/0 begins at offset 3, .* longer retention"):
        resume.reconciliation.reconcile()


def test_error_that_does_not_pass_ends_the_read(resume: Resume) -> None:
    """It is told at once."""

    def assign(_parts: list[TopicPartition]) -> None:
        resume.kafka.fail(("out", 0), KafkaError.TOPIC_AUTHORIZATION_FAILED)

    resume.kafka.assign = assign
    resume.resume(0, 0)
    with pytest.raises(ReadError, match="out cannot be read: Broker: Topic authorization failed"):
        resume.reconciliation.reconcile()


def test_damage_in_the_output_says_how_to_get_past_it(resume: Resume) -> None:
    """The store has an offset of it, and none of another topic that is read so."""

    def assign(parts: list[TopicPartition]) -> None:
        resume.kafka.fail((parts[0].topic, 0), KafkaError._BAD_MSG)

    resume.kafka.assign = assign
    with pytest.raises(ReadError, match=r"`heartwheel store skip --to out/0=OFFSET`"):
        resume.reader.read("out", {0: 0}, lambda _message: None)
    resume.log.topics["letters"] = resume.log.topics["out"]
    with pytest.raises(ReadError) as error:
        resume.reader.read("letters", {0: 0}, lambda _message: None)
    assert "skip" not in str(error.value)


def test_broker_that_does_not_answer_ends_the_read(
    resume: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection is waited for, but not for ever."""
    monkeypatch.setattr(reader_module, "TIMEOUT_S", 0.0)

    def assign(_parts: list[TopicPartition]) -> None:
        resume.kafka.lose_broker()

    resume.kafka.assign = assign
    resume.resume(0, 0)
    with pytest.raises(ReadError, match="out cannot be read: no answer"):
        resume.reconciliation.reconcile()
