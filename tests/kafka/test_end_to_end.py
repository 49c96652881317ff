"""The four scenarios on a real Kafka, from topic to topic, in every way of running."""

import signal
import time
from itertools import pairwise

import pytest

from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.scenarios import BAD, VARIABLES, check_scenarios


def test_four_scenarios_with_the_heartwheel_command(cluster: Cluster) -> None:
    """Started, beating, ended, timed out; stopped by SIGTERM with exit code 0."""
    flow = cluster.start(**VARIABLES)
    check_scenarios(cluster)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)


def test_four_scenarios_with_python_m_bytewax_run(cluster: Cluster) -> None:
    """The dataflow is an ordinary Bytewax dataflow, whole-second snapshots included."""
    recovery = cluster.folder / "recovery"
    recovery.mkdir()
    assert cluster.start(str(recovery), "1", command="bytewax.recovery").wait(30) == 0
    flow = cluster.start(
        "dataflows.sessions:flow", "-r", str(recovery), "-s", "1", "-b", "0",
        command="bytewax.run", **VARIABLES,
    )  # fmt: skip
    check_scenarios(cluster)
    flow.send_signal(signal.SIGINT)
    assert flow.wait(20) == 0, cluster.errors(flow)
    assert "Traceback" not in cluster.errors(flow)


@pytest.mark.parametrize(
    "command", ["heartwheel.cli", pytest.param("bytewax.run", marks=pytest.mark.slow)]
)
def test_four_scenarios_with_two_processes(cluster: Cluster, command: str) -> None:
    """Two processes give the same output as one."""
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    arguments = ("run",)
    if command == "bytewax.run":
        recovery = cluster.folder / "recovery"
        recovery.mkdir()
        assert cluster.start(str(recovery), "1", command="bytewax.recovery").wait(30) == 0
        arguments = ("dataflows.sessions:flow", "-r", str(recovery), "-s", "1", "-b", "0")
    flows = [
        cluster.start(
            *arguments, "-i", str(number), "-a", addresses,
            command=command, **VARIABLES,
        )
        for number in range(2)
    ]  # fmt: skip
    check_scenarios(cluster)
    if command == "heartwheel.cli":
        for flow in flows:
            flow.send_signal(signal.SIGTERM)
        assert [flow.wait(30) for flow in flows] == [0, 0]


def test_bad_input_goes_to_the_dead_letter_topic_byte_for_byte(cluster: Cluster) -> None:
    """Ten kinds of bad input stop nothing, and none is changed or lost."""
    cluster.start()
    for name, value in BAD.items():
        cluster.send_raw(value, f"p-{name}")
    cluster.send_raw(
        b'{"type":"GameStart","device_id":"p","session_id":"f"}',
        "p",
        int(time.time() * 1000) + 10**8,
    )
    cluster.send("Start", "p1", "good")
    cluster.flush()
    cluster.wait("dead letters", lambda: len(cluster.read(cluster.letters)) > len(BAD))
    cluster.wait("the good one", lambda: "good" in cluster.sessions())
    letters = cluster.read(cluster.letters)
    assert len(letters) == len(BAD) + 1
    source = {(r.partition, r.offset): r for r in cluster.read(cluster.pc)}
    for letter in letters:
        headers = {k: v.decode() for k, v in letter.headers.items()}
        position = int(headers["heartwheel.partition"]), int(headers["heartwheel.offset"])
        original = source[position]
        assert (letter.key, letter.value) == (original.key, original.value)
        assert headers["heartwheel.topic"] == cluster.pc
        assert int(headers["heartwheel.timestamp"]) == original.time_ms
        assert headers["heartwheel.reason"] in {
            "empty",
            "not_json",
            "not_an_event",
            "in_the_future",
        }


def test_silent_topics_still_beat(cluster: Cluster) -> None:
    """Heartbeats need no input: they go on after the last event."""
    cluster.start()
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("five heartbeats", lambda: len(cluster.sessions().get("s", [])) >= 6)
    stamps = [r.time_ms for r in cluster.read(cluster.output)]
    assert all(later - earlier < 1_500 for earlier, later in pairwise(stamps[1:]))


def test_full_producer_queue_waits_and_loses_nothing(cluster: Cluster) -> None:
    """A queue of 100 records holds up a burst of thousands, but drops none."""
    cluster.start(HEARTWHEEL_PRODUCER_QUEUE_BUFFERING_MAX_MESSAGES="100")
    for number in range(5_000):
        cluster.send("Start", f"c{number}", f"s{number}")
    cluster.flush()
    cluster.wait("all sessions", lambda: len(cluster.sessions()) == 5_000)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"HEARTWHEEL_INPUT_TOPICS": "nowhere=pc"}, "input topic nowhere does not exist"),
        ({"HEARTWHEEL_OUTPUT_TOPIC": "nowhere"}, "topic nowhere does not exist"),
        ({"HEARTWHEEL_LANES": "8"}, "has 4 partitions, not 8"),
        pytest.param(
            {"HEARTWHEEL_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
            "no answer from Kafka at 127.0.0.1:1",
            marks=pytest.mark.slow,  # it is asked for 15 s
        ),
        ({"HEARTWHEEL_LANES": "x"}, "HEARTWHEEL_LANES"),
        ({"HEARTWHEEL_KAFKA_NO_SUCH": "1"}, 'No such configuration property: "no.such"'),
    ],
)
def test_wrong_set_up_is_one_clear_line(
    cluster: Cluster, variables: dict[str, str], text: str
) -> None:
    """Nothing starts, the exit code is 2, and the last line says what to do."""
    flow = cluster.start(**variables)
    assert flow.wait(40) == 2
    *waits, line = cluster.errors(flow).splitlines()
    assert all("waiting for Kafka at" in wait for wait in waits)
    assert line.startswith("heartwheel: ")
    assert text in line
