"""Kafka as a Bytewax source, with a Kafka in memory."""

from collections import Counter

import pytest
from bytewax.inputs import StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Producer
from prometheus_client import REGISTRY

from dataflows.formats import SourceState
from dataflows.kafka.client import make_admin
from dataflows.kafka.input_topics import OtherTopicError, describe_inputs
from dataflows.kafka.source_errors import source_error
from dataflows.kafka.topic_watch import SPARE_PARTITIONS
from dataflows.messages import PartitionBatch
from dataflows.settings import Settings
from session_logic.clock import PartitionProgress
from session_logic.errors import ConfigError
from tests.support.clocks import T
from tests.support.fake_input import FakeInput


def at(fake: FakeInput, offset: int) -> SourceState:
    """Return the state of a partition that was read up to an offset."""
    return 2, offset, fake.log.ids["in"], fake.log.cluster_id


def fetched(
    stored: int | None,
) -> tuple[FakeInput, StatefulSourcePartition[PartitionBatch, SourceState]]:
    """Return a partition, from a stored offset on, for which one message is there to be taken."""
    fake = FakeInput()
    source = fake.source()
    source.list_parts()
    part = source.build_part("source", "in/0", stored)
    fake.append(0, T)
    fake.fetch(0)
    return fake, part


def test_parts_are_all_partitions_of_the_input_topics_and_those_that_may_come() -> None:
    """Each has a name that Bytewax stores."""
    assert FakeInput(3).source().list_parts() == [f"in/{n}" for n in range(3 + SPARE_PARTITIONS)]


def test_shard_has_the_partitions_of_its_lanes_and_waits_for_no_other() -> None:
    """No partition may come for which there is no lane."""
    fake = FakeInput(8, lanes=8, route="partition", shard="1/3")
    source = fake.source()
    assert source.list_parts() == ["in/1", "in/4", "in/7"]
    assert source.parts == 3
    assert not source.topics.may_come("in", 8)


def test_input_without_a_lane_for_each_partition_is_refused() -> None:
    """By the route `partition` some would be in no lane, or some lanes would have none."""
    with pytest.raises(ConfigError, match="has 3 partitions and HEARTWHEEL_LANES is 4"):
        FakeInput(3, route="partition").source().check()


def test_input_to_which_partitions_were_added_is_read_as_far_as_there_are_lanes() -> None:
    """A start goes on with what the store has read; a new one would leave out the others."""
    source = FakeInput(6, route="partition").source()
    source.check({f"in/{number}": (2, 7, "", "") for number in range(4)})
    assert source.list_parts() == [f"in/{number}" for number in range(4)]
    assert not source.topics.may_come("in", 4)
    with pytest.raises(ConfigError, match="has 6 partitions and HEARTWHEEL_LANES is 4"):
        FakeInput(6, route="partition").source().check({"retired/0": (2, 7, "", "")})
    with pytest.raises(ConfigError, match="has 3 partitions and HEARTWHEEL_LANES is 4"):
        FakeInput(3, route="partition").source().check({"in/0": (2, 7, "", "")})


@pytest.mark.parametrize("processes", [2, 3, 4])
@pytest.mark.parametrize("partitions", [1, 4, 7])
def test_partitions_are_spread_evenly_over_processes(processes: int, partitions: int) -> None:
    """Whatever the names of the spare ones are; Bytewax deals out first what fewer have."""
    listed = []
    for number in range(processes):
        source = FakeInput(partitions).source()
        source.share(number, processes)
        listed.append(set(source.list_parts()))
    owners: Counter[int] = Counter()
    having = {
        part: [n for n, parts in enumerate(listed) if part in parts]
        for part in set().union(*listed)
    }
    real = []
    for part in sorted(sorted(having), key=lambda part: len(having[part])):
        owner = min(having[part], key=lambda number: (owners[number], number))
        owners[owner] += 1
        if int(part.removeprefix("in/")) < partitions:
            real.append(owner)
    counts = [real.count(number) for number in range(processes)]
    assert sum(counts) == partitions
    assert max(counts) - min(counts) <= 1


def test_missing_topic_is_named() -> None:
    """Before anything is read."""
    fake = FakeInput()
    del fake.log.topics["in"]
    with pytest.raises(ConfigError, match="input topic in does not exist"):
        fake.source().check()


def test_batch_has_the_messages_and_the_progress() -> None:
    """The last one says that the end is reached; then there is nothing but renewals."""
    fake = FakeInput(2)
    source = fake.source()
    source.list_parts()
    part = source.build_part("source", "in/1", 0)
    fake.append(1, T)
    fake.fetch(1)
    (batch,) = part.next_batch()
    assert (batch.topic, batch.partition, batch.platform) == ("in", 1, "pc")
    assert batch.messages == [(0, T, b"k", b"v", True, None)]
    assert batch.progress is not None
    assert (batch.progress.part, batch.progress.parts) == ("in/1", 2)
    assert batch.progress.watermark_ms is None
    (renewal,) = part.next_batch()
    assert renewal.messages == []
    assert part.next_batch() == []


def test_first_epoch_of_a_new_partition_has_no_messages() -> None:
    """Only the word that it begins, also before a stop; where it ends is known all the same."""
    fake, part = fetched(None)
    fake.run.stop.set()
    assert part.next_batch() == [PartitionBatch("in", 0, "pc", [], None, begins=True)]
    fake.run.stop.clear()
    assert [batch.messages for batch in part.next_batch()] == []
    assert part.snapshot() == at(fake, OFFSET_BEGINNING)
    (batch,) = part.next_batch()
    assert (len(batch.messages), batch.begins) == (1, False)
    assert part.snapshot() == at(fake, 1)


def test_stop_is_told_once_then_the_partition_ends() -> None:
    """What has not been taken comes at the next start."""
    fake, part = fetched(0)
    fake.run.stop.set()
    assert part.next_batch() == [PartitionBatch("in", 0, "pc", [], None, stop=True)]
    with pytest.raises(StopIteration):
        part.next_batch()


def test_stop_waits_for_output_that_is_held_back() -> None:
    """Input is read until then, and the partition ends afterwards."""
    fake, part = fetched(0)
    fake.run.holds_output = lambda: True
    fake.run.stop.set()
    (batch,) = part.next_batch()
    assert (len(batch.messages), batch.stop) == (1, False)
    fake.run.holds_output = lambda: False
    (batch,) = part.next_batch()
    assert batch.stop


def test_offsets_are_committed_when_their_snapshot_is_complete() -> None:
    """Bytewax asks for the next batch only then; the first partition says so for all."""
    fake = FakeInput(2)
    source = fake.source()
    source.list_parts()
    first, second = (source.build_part("source", f"in/{number}", 0) for number in (0, 1))
    fake.append(0, T, T)
    fake.append(1, T)
    fake.fetch(0, 1)
    first.next_batch()
    second.next_batch()
    assert [part.snapshot()[1] for part in (first, second)] == [2, 1]
    assert fake.committer.committed == {}
    second.next_batch()
    assert fake.committer.committed == {}
    first.next_batch()
    assert fake.committer.committed == {("in", 0): 2, ("in", 1): 1}
    fake.committer.committed.clear()
    first.next_batch()
    assert fake.committer.committed == {}


def test_state_is_the_position_with_the_ids_of_topic_and_cluster() -> None:
    """One of version 1, which had the offset alone, gets the ids that are there now."""
    fake = FakeInput()
    fake.append(0, T, T, T)
    source = fake.source()
    source.list_parts()
    assert source.build_part("source", "in/0", 2).snapshot() == at(fake, 2)


def test_partition_that_is_added_is_read_from_its_beginning_without_a_restart() -> None:
    """Once the next look has found it, whatever the settings say of new partitions."""
    fake = FakeInput(start="latest")
    source = fake.source()
    source.list_parts()
    first = source.build_part("source", "in/0", at(fake, 0))
    added = source.build_part("source", "in/1", None)
    assert added.next_batch() == []
    assert added.snapshot() == (2, OFFSET_BEGINNING, "", "")
    fake.log.add_partitions("in", 1)
    fake.append(1, T)
    assert added.next_batch() == []
    source.topics.look()
    added.next_batch()
    fake.fetch(1)
    fake.clock.now += 1_000
    first.next_batch()
    (batch,) = added.next_batch()
    assert (batch.partition, [offset for offset, *_ in batch.messages]) == (1, [0])
    assert added.snapshot() == at(fake, 1)


@pytest.mark.parametrize("state", [None, (2, OFFSET_BEGINNING, "", "")])
def test_partition_that_was_added_while_nothing_ran_is_read_from_its_beginning(
    state: SourceState | None,
) -> None:
    """A spare one was waited for; of others the store knows the topic."""
    fake = FakeInput(2, start="latest")
    fake.append(1, T)
    source = fake.source()
    source.check({"in/0": at(fake, 0)})
    source.list_parts()
    source.build_part("source", "in/1", state)
    source.consumer.fetch_new()
    assert fake.kafka.next["in", 1] == OFFSET_BEGINNING


def test_partition_that_is_added_is_read_from_the_moment_of_the_start() -> None:
    """Whatever of it is timestamped before that is from before the first run reads."""
    fake = FakeInput(start="2023-11-14T22:13:20Z")  # is T
    source = fake.source()
    source.list_parts()
    first = source.build_part("source", "in/0", at(fake, 0))
    added = source.build_part("source", "in/1", None)
    assert added.next_batch() == []
    fake.log.add_partitions("in", 1)
    fake.append(1, T - 1, T, T - 1)
    source.topics.look()
    added.next_batch()
    fake.fetch(1)
    fake.clock.now += 1_000
    first.next_batch()
    (batch,) = added.next_batch()
    assert (batch.partition, [offset for offset, *_ in batch.messages]) == (1, [1, 2])
    assert added.snapshot() == at(fake, 3)


def test_more_partitions_than_can_be_read_are_told_of_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, and they are read from the next start on."""
    fake = FakeInput()
    source = fake.source()
    source.list_parts()
    for count in (1, SPARE_PARTITIONS + 2, 0):
        fake.log.add_partitions("in", count)
        source.topics.look()
    assert [record.msg["partitions"] for record in caplog.records] == [2, SPARE_PARTITIONS + 4]
    unread = REGISTRY.get_sample_value("heartwheel_unread_partitions", {"topic": "in"})
    assert unread == 3


@pytest.mark.parametrize("part", ["retired/0", f"in/{SPARE_PARTITIONS + 1}"])
def test_partition_that_is_not_there_any_more_is_left_and_its_offset_kept(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The run says which, and goes on without it."""
    fake = FakeInput()
    source = fake.source()
    state = 2, 7, "id", fake.log.cluster_id
    source.check({part: state, "in/0": at(fake, 0)})
    assert part in source.list_parts()
    (warning,) = [record.msg for record in caplog.records]
    assert (warning["part"], warning["offset"]) == (part, 7)
    left = source.build_part("source", part, state)
    with pytest.raises(StopIteration):
        left.next_batch()
    assert left.snapshot() == state


def test_partition_of_a_topic_that_comes_back_is_read_on_where_it_was_left() -> None:
    """It is the same topic by its id."""
    fake = FakeInput(2)
    fake.append(1, T, T, T)
    source = fake.source()
    source.check({"in/1": at(fake, 2)})
    source.list_parts()
    source.build_part("source", "in/1", at(fake, 2))
    source.consumer.fetch_new()
    assert fake.kafka.next["in", 1] == 2


def test_topic_that_was_made_anew_is_refused_with_both_ids() -> None:
    """Also where the old offset is in the new topic: what is before it would be passed over."""
    fake = FakeInput()
    state, before = at(fake, 5), fake.log.ids["in"]
    fake.log.make("in", 1)
    fake.append(0, *[T] * 8)
    source = fake.source()
    for use in (
        lambda: source.check({"in/0": state}),
        lambda: source.build_part("source", "in/0", state),
    ):
        with pytest.raises(OtherTopicError) as refused:
            use()
        assert before in str(refused.value)
        assert fake.log.ids["in"] in str(refused.value)
        assert "store skip --anew in" in str(refused.value)


def test_other_cluster_with_the_same_topics_is_refused_with_both_ids() -> None:
    """A mirror has the same records under other offsets."""
    fake = FakeInput()
    state = at(fake, 5)
    fake.log.cluster_id = "cluster-2"
    with pytest.raises(OtherTopicError, match=r"cluster cluster-1.*leads to cluster-2"):
        fake.source().check({"in/0": state})


def test_topic_of_which_nothing_was_read_may_be_made_anew() -> None:
    """There is no offset that could be wrong."""
    fake = FakeInput()
    state = at(fake, OFFSET_BEGINNING)
    fake.log.make("in", 1)
    source = fake.source()
    source.check({"in/0": state})
    source.list_parts()
    assert source.build_part("source", "in/0", state).snapshot() == at(fake, OFFSET_BEGINNING)


def test_topic_that_is_made_anew_while_it_is_read_ends_the_run() -> None:
    """What is stored until then has the id of the old one, so that a start refuses it as well."""
    fake = FakeInput()
    source = fake.source()
    source.list_parts()
    part = source.build_part("source", "in/0", at(fake, 0))
    before = fake.log.ids["in"]
    fake.log.make("in", 1)
    source.topics.look()
    with pytest.raises(OtherTopicError, match=before):
        part.next_batch()
    assert part.snapshot()[2] == before


def test_offset_that_is_gone_because_the_topic_was_made_anew_is_named_so() -> None:
    """Kafka says only that the offset is not there."""
    fake = FakeInput()
    fake.append(0, T, T)
    source = fake.source()
    source.list_parts()
    part = source.build_part("source", "in/0", at(fake, 2))
    fake.log.make("in", 1)
    fake.fetch(0)
    with pytest.raises(OtherTopicError, match="was made anew"):
        part.next_batch()


def test_topic_that_is_away_for_a_moment_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Kafka may not tell of a topic, and not answer."""
    fake = FakeInput()
    source = fake.source()
    source.list_parts()
    parts = fake.log.topics.pop("in")
    source.topics.look()
    fake.log.topics["in"] = parts
    source.topics.look()
    assert source.topics.now == source.topics.begun
    assert caplog.text == ""


def test_input_topic_that_was_deleted_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its sessions go on, and nothing more comes from it."""
    fake = FakeInput()
    source = fake.source()
    source.list_parts()
    del fake.log.topics["in"]
    for _ in range(4):
        source.topics.look()
    (record,) = caplog.records
    assert "an input topic is not there any more" in record.msg["event"]


def test_partitions_that_are_added_to_topics_of_lanes_are_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those that were there at the start are told of by the start, and a start goes on."""
    apart = {"heartbeat_topic": "beats", "summary_topic": "ends", "table_topic": "table"}
    fake = FakeInput(lanes=1, **apart)
    for name, count in {"beats": 1, "ends": 2, "table": 1}.items():
        fake.log.make(name, count)
    source = fake.source()
    source.list_parts()
    for count in (0, 3, 0):
        for name in ("out", "beats", "table"):
            fake.log.add_partitions(name, count)
        source.topics.look()
    del fake.log.topics["beats"]  # for a moment Kafka may not know
    source.topics.look()
    fake.log.make("beats", 4)
    source.topics.look()
    said = [record.msg for record in caplog.records]
    assert sorted(one["topic"] for one in said) == ["beats", "out", "table"]
    assert {(one["partitions"], one["lanes"]) for one in said} == {(4, 1)}
    assert not any("needs as many" in one["event"] for one in said)


class Leaderless:
    """Two partitions that were read to their ends, of which the second then loses its leader."""

    def __init__(self, *, read: bool = True, **settings: int) -> None:
        self.fake = FakeInput(2, **settings)
        source = self.fake.source()
        source.list_parts()
        self.parts = [source.build_part("source", f"in/{n}", at(self.fake, 0)) for n in (0, 1)]
        if read:
            self.fake.fetch(0, 1)
            self.progress()
        self.fake.kafka.tell_leaders(("in", 1))
        self.reached_ms = self.fake.clock.now

    def progress(self, after_ms: int = 400) -> list[PartitionProgress]:
        """Let time pass; return what is said of the second partition then."""
        self.fake.clock.now += after_ms
        self.parts[0].next_batch()
        said = [batch.progress for batch in self.parts[1].next_batch()]
        return [one for one in said if isinstance(one, PartitionProgress)]


def test_partition_without_a_leader_is_left_after_the_time_that_is_set() -> None:
    """Once, and until then time waits for it."""
    leaderless = Leaderless(idle_partition_ms=10_000)
    (behind,) = leaderless.progress()
    assert behind.watermark_ms is not None
    for _ in range(24):
        assert not any(said.left for said in leaderless.progress())
    (left,) = leaderless.progress()
    assert left.left
    assert leaderless.progress() == []


def test_partition_without_a_leader_is_waited_for_by_default() -> None:
    """For as long as it takes."""
    leaderless = Leaderless()
    for _ in range(100):
        assert not any(said.left for said in leaderless.progress())


def test_partition_that_was_never_read_to_its_end_is_not_left() -> None:
    """An earlier run may have acted on what is in it."""
    leaderless = Leaderless(read=False, idle_partition_ms=10_000)
    for _ in range(30):
        assert not any(said.left for said in leaderless.progress())


def test_partition_that_has_a_leader_again_is_read_on() -> None:
    """What was appended meanwhile is read before it is at its end again."""
    leaderless = Leaderless(idle_partition_ms=1_000)
    while not any(said.left for said in leaderless.progress()):
        assert leaderless.fake.clock.now < leaderless.reached_ms + 3_000
    leaderless.fake.append(1, T)
    leaderless.fake.kafka.tell_leaders()
    (behind,) = leaderless.progress()
    assert behind.watermark_ms is not None
    assert (behind.left, behind.watermark_ms < leaderless.reached_ms) == (False, True)
    leaderless.fake.fetch(0, 1)
    (ended,) = leaderless.progress()
    assert (ended.left, ended.watermark_ms) == (False, None)


def test_last_offsets_are_committed_at_the_end() -> None:
    """Those of the last snapshot of each partition, once, when the last partition closes."""
    fake = FakeInput(2)
    source = fake.source()
    source.list_parts()
    parts = [source.build_part("source", f"in/{number}", 0) for number in (0, 1)]
    fake.append(0, T)
    fake.append(1, T, T)
    fake.fetch(0, 1)
    for part in parts:
        part.next_batch()
    for part in parts:
        part.snapshot()
        part.close()
    assert fake.committer.committed == {("in", 0): 1, ("in", 1): 2}
    assert fake.committer.closed


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (KafkaError._AUTO_OFFSET_RESET, "`heartwheel store skip` goes on without"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "docs/security.md lists the rights"),
        (KafkaError._BAD_COMPRESSION, "HEARTWHEEL_CONSUMER_RECEIVE_MESSAGE_MAX_BYTES"),
        (KafkaError.UNKNOWN, "`heartwheel store skip --to in/3=OFFSET` goes on behind it"),
        (KafkaError._BAD_MSG, "let another replica lead; or `heartwheel store skip --to in/3="),
        (KafkaError._NOT_IMPLEMENTED, "`heartwheel store skip --to in/3=OFFSET` goes on behind"),
        (KafkaError._FATAL, "input in/3: "),
    ],
)
def test_error_of_kafka_says_what_to_do(code: int, hint: str) -> None:
    """One line with the partition, Kafka's words and the next step."""
    text = str(source_error("in", 3, KafkaError(code)))
    assert text.startswith("input in/3: ")
    assert hint in text
    assert "\n" not in text


def test_broker_without_a_controller_tells_partitions_and_no_ids() -> None:
    """The one of the demonstration, which is built into librdkafka: nobody waits for its answer."""
    kafka = Producer({"test.mock.num.brokers": "1", "log_level": "0"})
    (broker,) = kafka.list_topics(timeout=10).brokers.values()
    kafka.list_topics("pc-events", timeout=10)  # appears on first use
    settings = Settings(bootstrap_servers=f"{broker.host}:{broker.port}")
    found = describe_inputs(make_admin(settings), settings)
    assert found.topics == {"pc-events": ("", 4)}


def test_brokers_that_come_while_it_runs_are_known_though_others_go() -> None:
    """A connection to one that is away is still there."""
    fake = FakeInput()
    source = fake.source()
    source.list_parts()
    first = fake.log.ports
    fake.log.ports = (first[0] + 1,)
    source.topics.look()
    assert source.topics.now.ports == {first[0], first[0] + 1}
