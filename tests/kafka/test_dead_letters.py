"""Dead letters on a real Kafka: listed, shown, and sent again, each once."""

import json
import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka import Producer

from dataflows.settings_sources import environment, load_settings
from heartwheel.kafka.dead_letters import DeadLetterError, DeadLetterFilter, DeadLetterReader
from heartwheel.kafka.requeue import BATCH_DEAD_LETTERS, Requeue
from tests.support.broker import ROOT
from tests.support.cluster import Cluster, Record
from tests.support.command import command, one_line

ESCAPE = b'{"type":"\\u001b[31mred"}'
BYTES = bytes(range(256))
HEADERS = [("traceparent", b"00-1"), ("raw", b"\xff")]
BAD = {"p-bytes": BYTES, "p-escape": ESCAPE, "c-none": None, "c-json": b"hello"}


@pytest.fixture
def rejected(cluster: Cluster) -> Cluster:
    """Return a cluster whose stopped run has rejected BAD."""
    for key, value in BAD.items():
        cluster.send_raw(value, key, headers=HEADERS)
    cluster.flush()
    run_until(cluster, len(BAD))
    return cluster


def run_until(cluster: Cluster, letters: int) -> None:
    """Run the dataflow until there are so many dead letters, then stop it."""
    flow = cluster.start()
    cluster.wait("the letters", lambda: len(own(cluster)) >= letters)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(30) == 0, cluster.errors(flow)
    assert len(own(cluster)) == letters


def own(cluster: Cluster) -> list[Record]:
    """Return the letters, without the marks of what was sent again."""
    return [r for r in cluster.read(cluster.letters) if "heartwheel.reason" in r.headers]


def sent_again(cluster: Cluster) -> list[Record]:
    """Return what has been sent to the input topics again."""
    records = cluster.read(cluster.console) + cluster.read(cluster.pc)
    return [record for record in records if "heartwheel.requeues" in record.headers]


def listed(cluster: Cluster, *arguments: str) -> dict[str, dict[str, object]]:
    """Return what is listed, by key."""
    done = command("dead-letters", "list", "--json", *arguments, **cluster.variables)
    assert done.returncode == 0, done
    return {letter["key"]: letter for letter in map(json.loads, done.stdout.splitlines())}


def test_letters_are_listed_by_reason_topic_and_time(rejected: Cluster) -> None:
    """Each choice alone; the table counts them."""
    assert listed(rejected).keys() == BAD.keys()
    assert listed(rejected, "--reason", "empty").keys() == {"c-none"}
    assert listed(rejected, "--topic", rejected.pc).keys() == {"p-bytes", "p-escape"}
    assert listed(rejected, "--since", "1h", "--until", "1h") == {}
    assert listed(rejected, "--since", "2020-01-01T00:00:00Z").keys() == BAD.keys()
    assert len(listed(rejected, "--limit", "1")) == 1
    table = command("dead-letters", "list", **rejected.variables).stdout
    assert "4 dead letters, 4 shown" in table
    assert "1 waiting  empty" in table


def test_letter_is_shown_whole_and_without_orders_to_the_terminal(rejected: Cluster) -> None:
    """The value byte for byte for a file, escaped for a person."""
    letters = {key: str(letter["letter"]) for key, letter in listed(rejected).items()}
    arguments = [sys.executable, "-m", "heartwheel.cli", "dead-letters", "show", "--value"]
    raw = subprocess.run(
        [*arguments, letters["p-bytes"]],
        env=environment() | rejected.variables,
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert raw.stdout == BYTES
    shown = command("dead-letters", "show", letters["p-escape"], **rejected.variables)
    assert ESCAPE.decode() in shown.stdout
    assert "\\x1b[31mred" in shown.stdout  # from the detail
    assert "\x1b" not in shown.stdout
    one_line(command("dead-letters", "show", "0/99", **rejected.variables), 2, "letter 0/99")
    one_line(command("dead-letters", "show", "x", **rejected.variables), 2, "such as 0/17")


def test_choice_that_names_nothing_is_one_line(rejected: Cluster) -> None:
    """A typo is no empty list: the line has the names that there are."""
    variables = rejected.variables
    for arguments, words in {
        ("list", "--reason", "nonsense"): ("no such reason nonsense; one of empty, not_json",),
        ("list", "--topic", "nc-foo"): ("no such topic nc-foo; one of", rejected.pc),
        ("requeue", "--yes", "--topic", "nc-foo"): ("no such topic nc-foo",),
        ("requeue", "--yes", "0/99"): ("no dead letter 0/99",),
        ("requeue", "--yes", f"0/{2**63}"): ("write it as `list` names it",),
    }.items():
        one_line(command("dead-letters", *arguments, **variables), 2, *words)
    assert sent_again(rejected) == []


def test_letters_are_sent_again_byte_for_byte_and_once(rejected: Cluster) -> None:
    """To where they came from, counted; a second time only on demand, and back from the run too."""
    variables = rejected.variables
    requeue = ("dead-letters", "requeue")
    dry = command(*requeue, "--dry-run", **variables)
    assert "4 dead letters would be sent again" in dry.stdout
    one_line(command(*requeue, **variables), 2, "--yes or --dry-run")
    assert sent_again(rejected) == []

    assert "4 dead letters sent again" in command(*requeue, "--yes", **variables).stdout
    first = sent_again(rejected)
    assert {r.key.decode(): r.value for r in first if r.key} == BAD
    assert {r.headers["heartwheel.requeues"] for r in first} == {b"1"}
    assert {(r.headers["traceparent"], r.headers["raw"]) for r in first} == {(b"00-1", b"\xff")}
    places = {(r.key, r.partition) for r in first}
    originals = rejected.read(rejected.console) + rejected.read(rejected.pc)
    assert places == {(r.key, r.partition) for r in originals if r not in first}

    none = command(*requeue, "--yes", **variables).stdout
    assert "4 skipped: requeued before" in none
    assert none.endswith("0 dead letters to send again\n")
    assert len(sent_again(rejected)) == 4
    again = command(*requeue, "--yes", "--again", "--reason", "empty", **variables)
    assert "1 dead letter sent again" in again.stdout
    assert sorted(r.headers["heartwheel.requeues"] for r in sent_again(rejected)) == [
        b"1", b"1", b"1", b"1", b"2",
    ]  # fmt: skip

    run_until(rejected, 4 + 5)
    waiting = [n for n in listed(rejected).values() if n["state"] == "waiting"]
    assert {len(n["headers"]) for n in waiting} == {len(HEADERS)}
    assert {n["key"]: n["requeues"] for n in waiting} == {k: 1 + (k == "c-none") for k in BAD}
    assert "5 dead letters sent again" in command(*requeue, "--yes", **variables).stdout
    assert sent_again(rejected)[-1].headers["heartwheel.requeues"] in (b"2", b"3")


@pytest.mark.slow
def test_killed_requeue_sends_nothing_twice_and_nothing_is_lost(cluster: Cluster) -> None:
    """Killed at any moment, then the same command again: each letter has been sent once."""
    count = 12 * BATCH_DEAD_LETTERS
    # Not of long ago: Kafka would delete what is older than the topic keeps.
    now_ms = int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": cluster.address})
    for offset in range(count):
        headers = {
            "heartwheel.topic": cluster.pc,
            "heartwheel.partition": "1",
            "heartwheel.offset": str(offset),
            "heartwheel.timestamp": str(now_ms),
            "heartwheel.reason": "not_json",
        }
        producer.produce(cluster.letters, b"v%d" % offset, b"p", headers=headers)
    assert producer.flush(30) == 0
    kills = 0
    for pause_s in (0.0, 0.01, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-m", "heartwheel.cli", "dead-letters", "requeue", "--yes"],
            env=environment() | cluster.variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if " of " in line:
                break
        time.sleep(pause_s)
        kills += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
    assert kills, "none was killed while it sent"
    done = command("dead-letters", "requeue", "--yes", **cluster.variables)
    assert done.returncode == 0, done
    # A reader sees a transaction a moment after the sender has ended it.
    cluster.wait("all of them", lambda: len(sent_again(cluster)) >= count)
    assert sorted(int((r.value or b"v")[1:]) for r in sent_again(cluster)) == list(range(count))


def test_second_requeue_at_a_time_keeps_the_first_out(rejected: Cluster) -> None:
    """The later one sends; the one before has sent nothing, and says so."""
    settings = load_settings(rejected.variables)
    first = Requeue(settings)
    letters = list(DeadLetterReader(settings).read(DeadLetterFilter()))
    assert (
        "4 dead letters sent again"
        in command("dead-letters", "requeue", "--yes", **rejected.variables).stdout
    )
    with pytest.raises(DeadLetterError, match=r"0 dead letters of .* another `dead-letters"):
        first.send(letters, lambda _sent: None)
    assert len(sent_again(rejected)) == 4


def test_letter_of_another_program_or_of_a_lost_topic_is_not_sent(rejected: Cluster) -> None:
    """The one is listed as foreign, the other is one line."""
    producer = Producer({"bootstrap.servers": rejected.address})
    producer.produce(rejected.letters, b"?", b"foreign")
    assert producer.flush(30) == 0
    assert listed(rejected)["foreign"]["state"] == "foreign"
    gone = rejected.variables | {"HEARTWHEEL_INPUT_TOPICS": f"{rejected.pc}=pc"}
    done = command("dead-letters", "requeue", "--yes", **gone)
    one_line(done, 2, rejected.console, "HEARTWHEEL_INPUT_TOPICS")
    assert sent_again(rejected) == []


def test_input_beyond_every_limit_is_a_dead_letter_and_stops_nothing(cluster: Cluster) -> None:
    """Large, packed small, deep and long: letters that fit, and the run goes on."""
    cluster.start()
    producer = Producer(
        {
            "bootstrap.servers": cluster.address,
            "compression.type": "zstd",
            "message.max.bytes": 100_000_000,
        }
    )
    deep = b'{"type":"GameStart","device_id":"d","session_id":"s","x":' + b"[" * 30_000
    values = {
        b"large": b"x" * 900_000,
        b"packed": b"0" * 30_000_000,
        b"deep": deep,
        b"k" * 70_000: b"{}",
        b"long type": b'{"type":"' + b"y" * 60_000 + b'"}',
        b"long id": b'{"type":"GameEnd","device_id":"' + b"x" * 129 + b'","session_id":"s"}',
    }
    for key, value in values.items():
        producer.produce(cluster.pc, value, key, 0)
        assert producer.flush(30) == 0  # each in a batch of its own
    cluster.send("Start", "c1", "good")
    cluster.flush()
    cluster.wait("the letters", lambda: len(own(cluster)) == len(values))
    cluster.wait("the good one", lambda: "good" in cluster.sessions())
    found = [(r.headers["heartwheel.reason"].decode(), r.key, r.value) for r in own(cluster)]
    assert found == [
        ("too_large", None, None),
        ("too_large", None, None),
        ("not_json", b"deep", deep),
        ("too_large", None, None),
        ("not_an_event", b"long type", values[b"long type"]),
        ("not_an_event", b"long id", values[b"long id"]),
    ]
    assert max(len(r.headers["heartwheel.detail"]) for r in own(cluster)) <= 200
    done = command("dead-letters", "requeue", "--yes", "--reason", "too_large", **cluster.variables)
    assert done.returncode == 1
    assert done.stdout == (
        "      3 skipped: their value was not kept, so they cannot be sent again\n"
        "0 dead letters to send again\n"
    )


@pytest.mark.parametrize("stored", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_letter_that_is_in_the_future_no_longer_stays_a_letter(
    cluster: Cluster, *, stored: bool
) -> None:
    """Killed before the snapshot, the run decodes the record again, by a later clock."""
    cluster.variables["HEARTWHEEL_MAX_CLOCK_SKEW_MS"] = "1000"
    if stored:
        cluster.send_raw(b"?", "c")
        cluster.flush()
        run_until(cluster, 1)
    killed = cluster.start(HEARTWHEEL_SNAPSHOT_MS="60000" if stored else "2000")
    cluster.wait("a run", lambda: "running" in cluster.errors(killed))
    ahead_ms = int(time.time() * 1000) + 8_000
    cluster.send("Start", "c1", "ahead", ahead_ms)
    cluster.flush()
    cluster.wait("the letter", lambda: len(own(cluster)) == 1 + stored)
    killed.kill()
    killed.wait()
    cluster.wait("its time", lambda: time.time() * 1000 > ahead_ms)
    flow = cluster.start()
    cluster.send("Start", "c1", "later", ahead_ms + 1)
    cluster.flush()
    cluster.wait("a session", lambda: "later" in cluster.sessions())
    assert cluster.sessions().keys() == {"later"}
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(30) == 0, cluster.errors(flow)
    reasons = [record.headers["heartwheel.reason"] for record in own(cluster)[stored:]]
    assert reasons == [b"in_the_future"]
