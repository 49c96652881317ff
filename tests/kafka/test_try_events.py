"""`heartwheel events` on a real Kafka: the newest records, and a line where there are none."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from confluent_kafka import Producer

from heartwheel.events.records import SeenRecord
from tests.support.cluster import Cluster
from tests.support.command import command, one_line
from tests.support.own_events import iso, reference, reference_table
from tests.support.secure import SecureBroker


@pytest.fixture
def own(cluster: Cluster) -> Cluster:
    """Return topics of which the console one is in our own format, and the other has a table."""
    config = cluster.folder / "heartwheel.toml"
    config.write_text(reference_table(cluster.pc))
    cluster.variables["HEARTWHEEL_INPUT_TOPICS"] = f"{cluster.console}=console"
    cluster.variables["HEARTWHEEL_CONFIG"] = str(config)
    return cluster


def send(cluster: Cluster, records: list[SeenRecord]) -> None:
    """Send records to both partitions of the topic with a table, as if they were of now."""
    now_ms = int(time.time() * 1000)
    for number, one in enumerate(records):
        value = json.loads(one.value or b"") | {"timestamp": iso(now_ms)}
        cluster.send_raw(
            json.dumps(value).encode(), value["hostPcId"], now_ms + number, (cluster.pc, number % 2)
        )
    cluster.flush()


def fresh(count: int) -> list[SeenRecord]:
    """Return the newest records of the reference pipeline, as events of now."""
    return reference(sessions=8)[-count:]


def events(*arguments: str, **variables: str) -> CompletedProcess[str]:
    """Run one of the commands for events."""
    return command("events", *arguments, **variables)


def tried(cluster: Cluster, *arguments: str) -> list[dict[str, object]]:
    """Return what `events try` says of each record."""
    done = events("try", "--json", *arguments, **cluster.variables)
    assert done.returncode == 0, done
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_newest_records_of_every_topic_are_tried(own: Cluster) -> None:
    """Those of our own format as well; of all partitions, in the order of their timestamps."""
    send(own, fresh(12))
    own.send("Start", "c1", "s1")
    own.send_raw(b"no json", "c2")
    own.flush()
    found = tried(own, "--last", "5")
    mapped = [one for one in found if one["topic"] == own.pc]
    assert [one["record"] for one in mapped] == ["1/3", "0/4", "1/4", "0/5", "1/5"]
    assert {one["becomes"] for one in mapped} == {"start", "end"}
    assert {one["platform"] for one in mapped} == {"pc"}
    plain = [one for one in found if one["topic"] == own.console]
    assert sorted(str(one["becomes"]) for one in plain) == ["rejected", "start"]
    assert {one["topic"] for one in tried(own, "--topic", own.pc)} == {own.pc}


def test_pipe_gets_text_without_colours(own: Cluster) -> None:
    """And no folded line."""
    send(own, fresh(4))
    done = events("try", "--topic", own.pc, **own.variables)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    title, head, *rows, counts = done.stdout.splitlines()
    assert title == f"{own.pc}, read by its table"
    assert head.split()[:4] == ["record", "timestamp", "key", "becomes"]
    assert len(rows) == 4
    assert counts.startswith("4 records: ")


def groups_of(cluster: Cluster) -> set[str]:
    """Return the ids of all groups."""
    return {group.group_id for group in cluster.admin.list_consumer_groups().result().valid}


def test_nothing_in_kafka_is_changed(own: Cluster) -> None:
    """No group, no offset, no topic."""
    send(own, fresh(4))
    groups = groups_of(own)
    topics = set(own.admin.list_topics(timeout=10).topics)
    tried(own, "--topic", own.pc)
    events("guess", own.pc, **own.variables)
    assert groups_of(own) == groups
    assert set(own.admin.list_topics(timeout=10).topics) == topics


def test_topic_that_does_not_exist_is_one_line_and_is_not_made(own: Cluster) -> None:
    """All that are missing are named."""
    config = own.folder / "heartwheel.toml"
    config.write_text(reference_table("nowhere-1"))
    one_line(events("try", **own.variables), 2, "no topic nowhere-1 on 127.0.0.1")
    one_line(events("guess", "nowhere-2", **own.variables), 2, "nowhere-2")
    near = own.pc.replace("-pc", "_pc")
    one_line(events("guess", near, **own.variables), 2, f"did you mean {own.pc}?")
    assert not {"nowhere-1", "nowhere-2"} & set(own.admin.list_topics(timeout=10).topics)


def test_empty_topic_exits_with_1(own: Cluster) -> None:
    """Nothing was shown to work."""
    done = events("try", "--topic", own.pc, **own.variables)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [f"{own.pc}, read by its table", "no record"]
    one_line(events("guess", own.pc, **own.variables), 1, own.pc, "no record")


def test_garbage_exits_with_1_and_the_likeliest_cause(own: Cluster) -> None:
    """Whatever the bytes are."""
    for number in range(30):
        own.send_raw(b"\0\0\0\0\7" + json.dumps({"a": number}).encode(), "p1")
    own.flush()
    done = events("try", "--topic", own.pc, **own.variables)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == [
        "20 records: 20 rejected",
        'LIKELY CAUSE the values are JSON framed for a schema registry; in it format = "json_sr"',
    ]


def test_large_record_is_shown_without_its_value(own: Cluster) -> None:
    """It is rejected for its size."""
    own.send_raw(json.dumps({"eventId": "x" * 900_000}).encode(), "p1")
    own.flush()
    done = events("try", "--topic", own.pc, **own.variables)
    assert "too_large: 900,0" in done.stdout
    assert len(done.stdout) < 1_000


def test_records_before_many_offsets_without_one_are_found(own: Cluster) -> None:
    """Aborted records and markers of transactions have offsets; the search goes further back."""
    send(own, fresh(10))
    producer = Producer(
        {"bootstrap.servers": own.address, "transactional.id": own.pc, "linger.ms": 0}
    )
    producer.init_transactions(30)
    for _ in range(3):
        producer.begin_transaction()
        for number in range(200):
            producer.produce(own.pc, b"aborted", str(number), partition=number % 2)
        producer.flush()
        producer.abort_transaction(30)
    found = tried(own, "--topic", own.pc, "--last", "8")
    assert [one["record"] for one in found] == [f"{n % 2}/{n // 2}" for n in range(2, 10)]


def test_open_transaction_hides_what_is_behind_it(own: Cluster) -> None:
    """As from a run; the answer comes at once all the same."""
    send(own, fresh(4))
    producer = Producer({"bootstrap.servers": own.address, "transactional.id": own.pc})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(50):
        producer.produce(own.pc, b"open", str(number), partition=number % 2)
    producer.flush()
    try:
        found = tried(own, "--topic", own.pc)
    finally:
        producer.abort_transaction(30)
    assert [one["record"] for one in found] == ["0/0", "1/0", "0/1", "1/1"]


def test_topic_that_is_written_to_without_a_pause_is_answered(own: Cluster) -> None:
    """Its end is the one at the beginning of the command."""
    load = own.start("load", "--seconds", "0", "--rate", "2000", "--bad", "0")
    try:
        own.wait("records", lambda: len(own.read(own.console)) > 20)
        found = tried(own, "--topic", own.console)
    finally:
        load.kill()
        load.wait()
    assert len(found) == 20


def test_proposed_table_is_pasted_and_tried(own: Cluster) -> None:
    """A topic that is in no settings, from its records to events."""
    send(own, fresh(32))
    done = events("guess", own.pc, **own.variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'device = "hostPcId"' in done.stdout
    config = own.folder / "heartwheel.toml"
    config.write_text(done.stdout)
    del own.variables["HEARTWHEEL_INPUT_TOPICS"]
    assert {one["becomes"] for one in tried(own)} == {"start", "end"}


@pytest.fixture(scope="module")
def secure(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """Start a Kafka with ACLs."""
    assert kafka_libs.exists()
    kafka = SecureBroker(tmp_path_factory.mktemp("secure-events"))
    kafka.start()
    yield kafka
    kafka.stop()


def test_topic_without_a_right_is_one_line(secure: SecureBroker, tmp_path: Path) -> None:
    """Kafka hides it from those who may not see it, and tells those who may."""
    closed = Cluster(secure.address, tmp_path, "closed")
    try:
        variables = closed.variables | secure.scram_variables()
        for arguments in (("try",), ("guess", closed.pc)):
            one_line(events(*arguments, **variables), 2, closed.pc, "this user may not see it")
        secure.allow_to_describe(closed.pc)
        closed.send("Start", "p1", "s1")
        closed.flush()
        one_line(events("guess", closed.pc, **variables), 1, closed.pc, "docs/security.md")
    finally:
        closed.end()
