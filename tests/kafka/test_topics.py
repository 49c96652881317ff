"""The topics commands on a real Kafka: what they make, and what they find wrong."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource
from msgspec.structs import replace

from heartwheel.kafka.topics import faults
from tests.support.broker import Broker, create_topics
from tests.support.cluster import Cluster
from tests.support.command import command, one_line
from tests.support.topic_states import INTACT, SPEC


@pytest.fixture
def variables(address: str, tmp_path: Path) -> dict[str, str]:
    """Return the settings of topics that do not exist yet."""
    name = tmp_path.name
    return {
        "HEARTWHEEL_BOOTSTRAP_SERVERS": address,
        "HEARTWHEEL_INPUT_TOPICS": f"{name}-console=console,{name}-pc=pc",
        "HEARTWHEEL_OUTPUT_TOPIC": f"{name}-out",
        "HEARTWHEEL_DEAD_LETTER_TOPIC": f"{name}-letters",
        "HEARTWHEEL_LANES": "2",
    }


def test_topics_are_made_once_and_then_without_fault(variables: dict[str, str]) -> None:
    """A dry run makes nothing; what is made is as asked for, and stays as it is."""
    first = command("topics", "check", **variables)
    assert (first.returncode, first.stdout.count("does not exist")) == (1, 4)
    dry = command("topics", "create", "--dry-run", **variables)
    assert (dry.returncode, dry.stdout.count("would be created")) == (0, 4)
    assert command("topics", "check", **variables).stdout == first.stdout
    asked = ("--retention", "12h", "--timestamps", "create", "--input-partitions", "3")
    made = command("topics", "create", *asked, **variables)
    assert (made.returncode, made.stdout.count("created: ")) == (0, 4)
    assert made.stdout.count("CreateTime") == 2  # the input topics
    again = command("topics", "create", *asked, **variables)
    assert (again.returncode, again.stdout.count("exists: ")) == (0, 4)
    admin = AdminClient({"bootstrap.servers": variables["HEARTWHEEL_BOOTSTRAP_SERVERS"]})
    topics = admin.list_topics(timeout=10).topics
    name = variables["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
    assert [len(topics[f"{name}-{t}"].partitions) for t in ("console", "pc", "out", "letters")] == [
        3,
        3,
        2,
        1,
    ]
    assert command("topics", "check", "--retention", "12h", **variables).returncode == 0


def test_topic_of_heartbeats_is_made_with_a_partition_for_each_lane(
    address: str, variables: dict[str, str]
) -> None:
    """It is one of the topics only where the settings name it."""
    name = variables["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
    variables["HEARTWHEEL_HEARTBEAT_TOPIC"] = f"{name}-beats"
    made = command("topics", "create", **variables)
    assert (made.returncode, made.stdout.count(": created: ")) == (0, 5)
    admin = AdminClient({"bootstrap.servers": address})
    assert len(admin.list_topics(timeout=10).topics[f"{name}-beats"].partitions) == 2
    assert command("topics", "check", "--timestamps", "append", **variables).returncode == 0
    variables["HEARTWHEEL_LANES"] = "4"
    assert (
        f"FAULT {name}-beats: has 2 partitions, not 4"
        in command("topics", "check", **variables).stdout
    )


def test_table_is_compacted_and_a_fault_if_it_is_not(
    address: str, variables: dict[str, str]
) -> None:
    """Its newest rows must stay, however old they are."""
    name = variables["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
    table = variables["HEARTWHEEL_TABLE_TOPIC"] = f"{name}-table"
    assert command("topics", "create", **variables).returncode == 0
    admin = AdminClient({"bootstrap.servers": address})
    resource = ConfigResource(ConfigResource.Type.TOPIC, table)
    config = admin.describe_configs([resource])[resource].result(10)
    assert config["cleanup.policy"].value == "compact"
    assert command("topics", "check", **variables).returncode == 0
    plain = variables["HEARTWHEEL_TABLE_TOPIC"] = f"{name}-plain"
    create_topics(admin, {plain: 2})
    said = command("topics", "check", **variables).stdout
    assert f"FAULT {plain}: has cleanup.policy=delete" in said
    assert "set it to compact" in said


def test_each_fault_of_a_topic_is_a_line_and_exit_code_1(
    address: str, variables: dict[str, str]
) -> None:
    """Partitions, retention, timestamps, compaction, size of records, each with what to do."""
    admin = AdminClient({"bootstrap.servers": address})
    name = variables["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
    create_topics(admin, {f"{name}-console": 1}, **{"retention.ms": "60000"})
    create_topics(admin, {f"{name}-pc": 1}, **{"message.timestamp.type": "CreateTime"})
    create_topics(admin, {f"{name}-out": 3}, **{"cleanup.policy": "compact"})
    create_topics(admin, {f"{name}-letters": 1}, **{"max.message.bytes": "20000"})
    done = command("topics", "check", "--timestamps", "append", **variables)
    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    for topic, word in {
        "console": "retention.ms=60000",
        "pc": "message.timestamp.type=CreateTime",
        "out": "has 3 partitions, not 2, and was never written to: delete it and run",
        "letters": "max.message.bytes=20000",
    }.items():
        assert any(
            line.startswith(f"FAULT {name}-{topic}: has ") and word in line for line in wrong
        )
    assert any("cleanup.policy=compact" in line for line in wrong)
    same = command("topics", "create", "--timestamps", "append", **variables)
    assert same.returncode == 1
    assert ": created: " not in same.stdout


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"replicas": 1}, "has 1 replicas, not 3"),
        ({"min_isr": 1}, "min.insync.replicas=1, not 2"),
        ({"in_sync": 1}, "cannot be written to: 1 replicas in sync"),
        ({"leaderless": (0, 2)}, "no leader for partition 0, 2"),
    ],
)
def test_fault_that_takes_several_brokers_is_a_line(change: dict[str, object], word: str) -> None:
    """What a cluster of one broker cannot show."""
    assert list(faults(SPEC, INTACT)) == []
    (line,) = faults(SPEC, replace(INTACT, **change))
    assert word in line


@pytest.mark.parametrize(
    ("variable", "otherwise"),
    [("HEARTWHEEL_OUTPUT_TOPIC", "correct HEARTWHEEL_LANES"),
     ("HEARTWHEEL_HEARTBEAT_TOPIC", "correct HEARTWHEEL_LANES"),
     ("HEARTWHEEL_INPUT_TOPICS", "create a new topic")],
)  # fmt: skip
def test_wrong_number_of_partitions_says_what_to_do(variable: str, otherwise: str) -> None:
    """An auto-created topic is deleted; one with records is another matter."""
    state = replace(INTACT, partitions=1)
    (line,) = faults(replace(SPEC, named_by=variable, partitions=4), state)
    assert line.startswith(
        "has 1 partition, not 4: `heartwheel topics create` adds them to a topic that was never "
        "written to; else "
    )
    assert otherwise in line
    (line,) = faults(replace(SPEC, named_by=variable, partitions=4), replace(INTACT, partitions=5))
    assert line.startswith("has 5 partitions, not 4")
    assert "delete it and run `heartwheel topics create`" in line
    assert otherwise in line


def test_more_partitions_than_lanes_are_a_note_where_lanes_have_written(
    address: str, variables: dict[str, str]
) -> None:
    """A start goes on with them then; a topic that was never written to can be made again."""
    admin = AdminClient({"bootstrap.servers": address})
    name = variables["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
    variables["HEARTWHEEL_HEARTBEAT_TOPIC"] = f"{name}-beats"
    create_topics(admin, {f"{name}-out": 3, f"{name}-beats": 3})
    producer = Producer({"bootstrap.servers": address})
    producer.produce(f"{name}-out", b"x", partition=1)
    assert producer.flush(10) == 0
    for what, note, fault in (("create", "", ""), ("check", "NOTE ", "FAULT ")):
        done = command("topics", what, **variables)
        assert done.returncode == 1
        assert f"{note}{name}-out: has 3 partitions, not 2: a run whose store" in done.stdout
        assert f"{fault}{name}-beats: has 3 partitions, not 2, and was never" in done.stdout
    producer.produce(f"{name}-beats", b"x", partition=0)
    assert producer.flush(10) == 0
    for what in ("create", "check"):
        done = command("topics", what, **variables)
        assert (done.returncode, done.stdout.count("has 3 partitions, not 2: a run")) == (0, 2)


def test_partitions_are_added_to_a_topic_that_was_never_written_to(
    address: str, variables: dict[str, str]
) -> None:
    """As a broker with auto-creation leaves it; one with a record stays as it is."""
    admin = AdminClient({"bootstrap.servers": address})
    name = variables["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
    create_topics(admin, {f"{name}-out": 1, f"{name}-pc": 1})
    producer = Producer({"bootstrap.servers": address})
    producer.produce(f"{name}-pc", b"x")
    assert producer.flush(10) == 0
    dry = command("topics", "create", "--dry-run", **variables)
    assert f"{name}-out: partitions would be added: it had 1" in dry.stdout
    assert len(admin.list_topics(timeout=10).topics[f"{name}-out"].partitions) == 1
    done = command("topics", "create", "--input-partitions", "2", **variables)
    assert done.returncode == 1
    assert f"{name}-out: partitions added: it had 1, and no record" in done.stdout
    assert f"{name}-pc: has 1 partition, not 2" in done.stdout
    topics = admin.list_topics(timeout=10).topics
    assert [len(topics[f"{name}-{topic}"].partitions) for topic in ("out", "pc")] == [2, 1]


def test_input_that_is_there_may_have_any_partitions_clock_and_a_shorter_retention(
    address: str, variables: dict[str, str]
) -> None:
    """It is somebody else's; only where lanes follow from it, or one asks, must it have so many."""
    admin = AdminClient({"bootstrap.servers": address})
    name = variables["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
    theirs = {"message.timestamp.type": "CreateTime", "retention.ms": str(2 * 86_400_000)}
    create_topics(admin, {f"{name}-console": 6, f"{name}-pc": 3}, **theirs)
    made = command("topics", "create", **variables)
    assert (made.returncode, made.stdout.count(": exists: ")) == (0, 2)
    assert command("topics", "check", **variables).returncode == 0
    asked = command("topics", "create", "--timestamps", "append", "--retention", "3d", **variables)
    assert asked.returncode == 1
    assert "retention.ms=172800000, less than 259200000; set it, or say --ret" in asked.stdout
    assert "CreateTime; set it to LogAppendTime, or say --timestamps create" in asked.stdout
    variables["HEARTWHEEL_ROUTE"] = "partition"
    for what in ("create", "check"):
        by_partition = command("topics", what, **variables)
        assert by_partition.returncode == 1
        assert f"{name}-console: has 6 partitions, not 2" in by_partition.stdout
        assert f"{name}-pc: has 3 partitions, not 2" in by_partition.stdout


@pytest.mark.slow
def test_no_command_creates_a_topic_by_asking(
    kafka_libs: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    """On a broker that creates what a producer asks for; only `topics create` may."""
    assert kafka_libs.exists()
    broker = Broker(tmp_path / "auto", properties="auto.create.topics.enable=true\n")
    broker.start()
    try:
        asked = variables | {"HEARTWHEEL_BOOTSTRAP_SERVERS": broker.address}
        asked["HEARTWHEEL_RECOVERY_DIR"] = str(tmp_path / "recovery")
        asked["HEARTWHEEL_HTTP_PORT"] = "0"
        for arguments in (
            ("run",), ("topics", "check"), ("dead-letters", "list"), ("events", "try"),
            ("events", "guess", f"{tmp_path.name}-pc"), ("run",),
        ):  # fmt: skip
            assert command(*arguments, **asked).returncode
        inputs = dict.fromkeys(("console", "pc"), 1)
        name = asked["HEARTWHEEL_OUTPUT_TOPIC"].removesuffix("-out")
        create_topics(broker.admin(), {f"{name}-{topic}": n for topic, n in inputs.items()})
        for _ in range(2):
            done = command("run", **asked)
            assert (done.returncode, "does not exist" in done.stderr) == (2, True)
        found = {topic for topic in broker.admin().list_topics(timeout=10).topics if name in topic}
        assert found == {f"{name}-{topic}" for topic in inputs}
    finally:
        broker.stop()


def test_topic_that_kafka_refuses_is_one_line(variables: dict[str, str]) -> None:
    """More replicas than brokers."""
    one_line(
        command("topics", "create", "--replication", "3", **variables), 1, "replication factor"
    )


@pytest.mark.slow
def test_missing_broker_is_one_line_for_every_command(tmp_path: Path) -> None:
    """A line about the wait, then one with the setting to correct."""
    nowhere = {
        "HEARTWHEEL_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "HEARTWHEEL_RECOVERY_DIR": str(tmp_path),
    }
    commands = (("topics", "check"), ("dead-letters", "list"), ("load",), ("events", "try"))
    with ThreadPoolExecutor() as pool:  # each asks for 15 s
        ended = list(pool.map(lambda arguments: command(*arguments, **nowhere), commands))
    for done in ended:
        wait, _, done.stderr = done.stderr.partition("\n")
        assert wait.startswith("heartwheel: waiting for Kafka at 127.0.0.1:1: ")
        one_line(done, 2, "127.0.0.1:1", "refused", "HEARTWHEEL_BOOTSTRAP_SERVERS")


def test_topics_of_the_other_tests_are_fit_to_run_with(cluster: Cluster) -> None:
    """The check agrees with what the run accepts."""
    done = command("topics", "check", **cluster.variables)
    assert (done.returncode, done.stdout.count("\n")) == (0, 4)


def test_devices_in_partitions_of_several_numbers_are_found_and_named(cluster: Cluster) -> None:
    """By the topic's table, in one topic or across two; not if the number is the same."""
    config = cluster.folder / "heartwheel.toml"
    config.write_text(
        f'[inputs.{cluster.pc}]\nplatform = "pc"\ntype = "what"\nstart = ["on"]\nend = ["off"]\n'
        'device = "who"\nsession = "which"\n'
    )
    variables = cluster.variables | {
        "HEARTWHEEL_INPUT_TOPICS": f"{cluster.console}=console",
        "HEARTWHEEL_CONFIG": str(config),
    }

    def send(topic: str, device: str, partition: int) -> None:
        value = {"type": "GameStart", "device_id": device, "session_id": "s"}
        if topic == cluster.pc:
            value = {"what": "on", "who": device, "which": "s"}
        cluster.send_raw(json.dumps(value).encode(), "key", where=(topic, partition))

    for number in range(20):
        for topic in cluster.inputs:
            send(topic, f"whole-{number}", number % 2)
    cluster.send_raw(b"no json", "key", where=(cluster.pc, 0))
    cluster.flush()
    done = command("topics", "check", "--devices", **variables)
    assert (done.returncode, "FAULT" in done.stdout) == (0, False), done
    assert f"{cluster.pc}: 21 records looked at, 20 of them of a device" in done.stdout
    assert "0 of 20 devices are in partitions of several numbers" in done.stdout

    send(cluster.pc, "old\x1b", 0)
    send(cluster.pc, "old\x1b", 1)
    send(cluster.console, "across", 0)
    send(cluster.pc, "across", 1)
    cluster.flush()
    done = command("topics", "check", "--devices", **variables)
    assert done.returncode == 1
    assert "2 of 22 devices are in partitions of several numbers" in done.stdout
    title, *named = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert "one partitioner" in title
    assert sorted(named) == [
        f"FAULT across: {cluster.console}/0, {cluster.pc}/1",
        f"FAULT old\\x1b: {cluster.pc}/0, {cluster.pc}/1",
    ]

    for number in range(50):
        send(cluster.pc, f"new-{number}", number % 2)
        send(cluster.console, f"split-{number // 2}", number % 2)
    cluster.flush()
    done = command("topics", "check", "--devices", "--records", "48", **variables)
    assert f"{cluster.pc}: 48 records looked at, 48 of them of a device" in done.stdout
    assert "24 of 72 devices are in partitions of several numbers" in done.stdout
    assert (done.returncode, done.stdout.count("FAULT split-")) == (1, 10)
    assert "old" not in done.stdout
    assert command("topics", "check", **variables).returncode == 0


def test_devices_of_a_topic_that_is_missing_are_no_fault_of_their_own(
    variables: dict[str, str],
) -> None:
    """That it is missing is said in its own line."""
    done = command("topics", "check", "--devices", **variables)
    assert (done.returncode, done.stdout.count("does not exist")) == (1, 4)
    assert "0 of 0 devices" in done.stdout
    assert done.stderr == ""
