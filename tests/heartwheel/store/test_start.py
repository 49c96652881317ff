"""A start compares store and output topic: what it goes on with, and what it refuses."""

import pickle
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir
from confluent_kafka import KafkaError, TopicPartition
from msgspec.structs import replace

from dataflows.settings import Settings
from heartwheel.store.copying import copy_store
from heartwheel.store.identity import identify
from heartwheel.store.migration import migrate_store
from heartwheel.store.start import StartCheck
from session_logic.errors import ConfigError
from tests.support.fake_start import StartKafka
from tests.support.flow import SETTINGS
from tests.support.stores import execute

TOPIC = "session-events"
OTHER = {"owner": "f" * 32, "place": "machine:/srv/other"}


class Start:
    """A topic, and starts on it with stores of one directory each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kafka = StartKafka()

    def new(self, name: str) -> Path:
        """Return the directory of a new store."""
        folder = self.folder / name
        folder.mkdir()
        init_db_dir(folder, 1)
        return folder

    def check(self, store: Path, settings: Settings = SETTINGS) -> StartCheck:
        """Return the check of a start."""
        return StartCheck(settings, store, identify(store), self.kafka.consumer)

    def begin(self, store: Path, settings: Settings = SETTINGS) -> None:
        """Start as far as the dataflow, without a lease."""
        self.check(store, settings).begin(None)

    def write(self, store: Path, lane: int = 0, records: int = 9) -> None:
        """Let the run of a store write to a lane, and take a snapshot."""
        execute(
            store / "part-0.sqlite3",
            "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, 'heartwheel.sink', ?, 0, ?)",
            f"lane-{lane:03}",
            pickle.dumps((2, records, [], [])),
        )
        self.kafka.bounds[TOPIC, lane] = 0, records


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Return an empty topic that no store has written."""
    return Start(tmp_path)


def test_store_and_topic_that_are_new_begin_and_know_each_other(start: Start) -> None:
    """The first start says whose the topic is, in the topic's sign and in the store."""
    store = start.new("store")
    start.begin(store)
    assert start.kafka.said()["owner"] == identify(store).id
    assert start.kafka.said()["place"].endswith(f":{store}")
    assert identify(store).output_topic == TOPIC


def test_store_goes_on_with_the_topic_that_it_has_written(start: Start) -> None:
    """Every start but the first one."""
    store = start.new("store")
    start.begin(store)
    start.write(store)
    start.begin(store)


def test_empty_store_on_a_written_topic_is_refused_with_both_names(start: Start) -> None:
    """It would send everything again."""
    store, empty = start.new("store"), start.new("empty")
    start.begin(store)
    start.write(store)
    before = start.kafka.sign
    with pytest.raises(ConfigError) as error:
        start.begin(empty)
    line = str(error.value)
    for word in (TOPIC, identify(store).id[:8], str(store), identify(empty).id[:8], str(empty)):
        assert word in line
    assert "HEARTWHEEL_RECOVERY_DIR" in line
    assert "--new-store" in line
    assert "\n" not in line
    assert start.kafka.sign is before


def test_empty_store_that_is_meant_takes_the_topic_over(start: Start) -> None:
    """From then on it is the other one that is refused."""
    store, empty = start.new("store"), start.new("empty")
    start.begin(store)
    start.write(store)
    start.begin(empty, replace(SETTINGS, new_store=True))
    start.begin(empty)  # it was killed before it had sent anything
    with pytest.raises(ConfigError, match=r"was last written by store .*empty.*, not by store"):
        start.begin(store)
    start.begin(store, replace(SETTINGS, new_store=True))
    start.begin(store)


def test_empty_store_is_refused_even_if_kafka_has_forgotten_the_owner(start: Start) -> None:
    """The records are there, whoever wrote them; also those that have expired were written."""
    store = start.new("empty")
    start.kafka.bounds[TOPIC, 3] = 7, 7
    with pytest.raises(ConfigError, match="a store that Kafka has forgotten"):
        start.begin(store)


def test_empty_store_is_refused_on_a_topic_of_an_earlier_version(start: Start) -> None:
    """Its lease has the name of its lock."""
    store = start.new("empty")
    start.kafka.say(store="0a1b", run="r", renewal=3, released=True)
    start.kafka.bounds[TOPIC, 0] = 0, 1
    with pytest.raises(ConfigError, match=r"a store .its lock is 0a1b"):
        start.begin(store)


@pytest.mark.parametrize("lease", [True, False])
def test_store_of_an_earlier_version_is_adopted(start: Start, *, lease: bool) -> None:
    """It has no identity, and the topic has no sign; from then on both have."""
    store = start.new("store")
    start.write(store)
    if lease:
        start.kafka.say(store="0a1b", run="r", renewal=3, released=True)
    start.begin(store)
    assert start.kafka.said()["owner"] == identify(store).id
    assert identify(store).output_topic == TOPIC


def test_other_store_with_sessions_is_refused(start: Start) -> None:
    """Its offsets mean nothing in this topic."""
    store = start.new("store")
    start.write(store)
    start.kafka.say(**OTHER)
    with pytest.raises(ConfigError, match=r"last written by store ffffffff .machine:/srv/other"):
        start.begin(store)


def test_store_on_another_topic_than_its_own_is_refused(start: Start) -> None:
    """Also if that topic is empty, and if a new store is meant."""
    store = start.new("store")
    start.begin(store)
    start.write(store)
    elsewhere = replace(SETTINGS, output_topic="elsewhere", new_store=True)
    with pytest.raises(ConfigError, match=r"_TOPIC is elsewhere, .* writes to session-events"):
        start.begin(store, elsewhere)


def test_copy_is_the_same_store(start: Start) -> None:
    """A backup goes on where it was made, with the topic that is ahead of it."""
    store, copy = start.new("store"), start.folder / "copy"
    start.begin(store)
    start.write(store)
    copy_store(store, copy)
    start.kafka.bounds[TOPIC, 0] = 0, 20
    start.begin(copy)


def test_copy_of_an_empty_store_is_the_same_store(start: Start) -> None:
    """What its topic has been given meanwhile is its own."""
    store, copy = start.new("store"), start.folder / "copy"
    start.begin(store)
    copy_store(store, copy)
    start.write(store)
    start.begin(copy)


def test_migrated_store_is_another_one(start: Start, intact_store: Path) -> None:
    """It begins with a new topic, and not with one that has records."""
    moved = start.folder / "moved"
    migrate_store(intact_store, moved, 2, SETTINGS.rules())
    settings = replace(SETTINGS, lanes=2, output_topic="two")
    start.kafka.bounds["two", 1] = 0, 1
    with pytest.raises(ConfigError, match="two was written by"):
        start.begin(moved, settings)
    start.kafka.bounds.clear()
    with pytest.raises(ConfigError, match="has route hash, all lanes: set them back"):
        start.begin(moved, replace(settings, route="partition"))
    start.begin(moved, settings)
    assert identify(moved).output_topic == "two"


@pytest.mark.parametrize("metadata", ["", "made by a tool", "[]", "null", '{"x": 1}'])
def test_sign_that_nobody_can_read_is_none(start: Start, metadata: str) -> None:
    """An offset that a tool has committed to the group stops no start."""
    store = start.new("store")
    start.write(store)
    start.kafka.sign = TopicPartition(TOPIC, 0, 0, metadata)
    start.begin(store)


def test_coordinator_that_is_not_there_yet_is_waited_for(start: Start) -> None:
    """A broker that was just started has none."""
    start.kafka.errors = [KafkaError.COORDINATOR_LOAD_IN_PROGRESS]
    start.begin(start.new("store"))


def test_group_that_may_not_be_read_is_one_line(start: Start) -> None:
    """With what to do."""
    start.kafka.errors = [KafkaError.GROUP_AUTHORIZATION_FAILED]
    with pytest.raises(ConfigError, match=r"Group authorization failed; docs/security.md"):
        start.begin(start.new("store"))


@pytest.mark.parametrize("topic", [TOPIC, "beats"])
def test_topics_fit_the_lanes_or_have_more_partitions_once_lanes_have_written(
    start: Start, topic: str
) -> None:
    """As a start sees it; fewer are refused always, and a topic that is missing as well."""
    settings = replace(SETTINGS, heartbeat_topic="beats")
    store = start.new("store")
    start.begin(store)
    start.kafka.bounds = {(name, lane): (0, 0) for name in (TOPIC, "beats") for lane in range(4)}

    def faults() -> list[str]:
        return [line[:40] for line in start.check(store, settings).lane_topics()]

    assert faults() == ["topic dead-letters does not exist on 127"]
    start.kafka.bounds["dead-letters", 0] = 0, 0
    assert faults() == []
    start.kafka.bounds[topic, 5] = 0, 0
    assert faults() == [f"topic {topic} has 6 partitions, not 4: if it is"[:40]]
    start.write(store)
    assert faults() == []
    start.kafka.bounds = {where: ends for where, ends in start.kafka.bounds.items() if where[1] < 3}
    found = start.check(store, settings).lane_topics()
    assert [line.partition(":")[0] for line in found] == [
        f"topic {name} has 3 partitions, not 4" for name in (TOPIC, "beats")
    ]


def test_other_topics_are_refused_while_more_may_be_out_than_the_store_knows(start: Start) -> None:
    """It could come again in another topic; after a clean stop the store knows of all."""
    store = start.new("store")
    start.begin(store)
    start.write(store)
    beats = replace(SETTINGS, heartbeat_topic="beats")
    assert list(start.check(store, beats).faults()) == []
    start.kafka.bounds[TOPIC, 0] = 0, 10
    assert list(start.check(store).faults()) == []
    (line,) = start.check(store, beats).faults()
    assert "HEARTWHEEL_HEARTBEAT_TOPIC is beats and was not set, and the run before was not" in line
