"""Recording a real Kafka, replaying what a killed run did, and playing it to a broker again."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from dataflows.settings_sources import environment
from heartwheel.recording.format import RecordingError
from heartwheel.recording.reader import Recording
from session_logic.events import SessionEnd
from tests.support.broker import ROOT, create_topics
from tests.support.cluster import Cluster
from tests.support.events import kinds
from tests.support.recordings import lines_of
from tests.support.traffic import Traffic

DEVICES = 300
LANES = 4
# Of devices that have an event a second at random: none of them says nothing for so long, and only
# those that never say a word again go silent.
IDLE_MS = 16_000
QUIET = 20
# How far a run under load may be behind with its input.
BEHIND_MS = 5_000
# How long a killed run is away: heartbeats become due meanwhile.
OUTAGE_S = 1
ALL = {"HEARTWHEEL_CATCH_UP": "all", "HEARTWHEEL_HEARTBEAT_MS": "500"}


def heartwheel(
    cluster: Cluster, *arguments: str, code: int = 0, settings: dict[str, str] = ALL
) -> str:
    """Run a command to its end; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "heartwheel.cli", *arguments],
        env=environment() | cluster.variables | settings,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def stop(cluster: Cluster, process: subprocess.Popen[str], sign: signal.Signals) -> None:
    """Stop or kill a process."""
    process.send_signal(sign)
    assert process.wait(30) == (-sign if sign == signal.SIGKILL else 0), cluster.errors(process)


def wait_for_more(cluster: Cluster, records: int) -> None:
    """Wait until so many more records are in the output topic."""
    before = cluster.records_out()
    cluster.wait("more output", lambda: cluster.records_out() >= before + records)


def wait_for_lock(cluster: Cluster, recorder: subprocess.Popen[str]) -> None:
    """Wait until a recorder has its file for itself, which is when it begins to read."""
    locks = Path("/proc/locks")
    cluster.wait("the recorder's lock", lambda: f" {recorder.pid} " in locks.read_text())


def check_recorded(cluster: Cluster, recording: Recording, apart: Sequence[str] = ()) -> None:
    """Check that a recording has every record of every topic once, byte for byte."""
    for topic in (cluster.console, cluster.pc, cluster.output, cluster.letters, *apart):
        recorded = [
            (
                line.partition, line.offset, line.timestamp_ms, line.key_bytes(),
                line.value_bytes(), dict(line.header_bytes()),
            )
            for line in lines_of(recording) if line.topic == topic
        ]  # fmt: skip
        there = cluster.read(topic)
        assert recorded == [
            (r.partition, r.offset, r.time_ms, r.key, r.value, r.headers) for r in there
        ]


def test_killed_and_resumed_run_is_replayed_to_the_same_output(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Three kills under load, with ends and starts while it is down: nothing is different."""
    flow = cluster.start(**ALL)
    for number in range(DEVICES):
        cluster.send("Start", f"c{number}", f"s{number}")
    cluster.flush()
    cluster.wait("all sessions", lambda: len(cluster.sessions()) == DEVICES)
    for turn in range(3):
        wait_for_more(cluster, DEVICES)
        stop(cluster, flow, signal.SIGKILL)
        for number in range(turn, DEVICES, 10):
            cluster.send("End", f"c{number}", f"s{number}")
            cluster.send("Start", f"p{number}", f"new{number}")
        cluster.send_raw(b"bad", "p1")
        cluster.flush()
        time.sleep(OUTAGE_S)
        flow = cluster.start(**ALL)
        cluster.wait("what came meanwhile", lambda t=turn: f"new{t}" in cluster.sessions())
    wait_for_more(cluster, 2 * DEVICES)
    cluster.wait("the dead letters", lambda: len(cluster.read(cluster.letters)) == 3)
    stop(cluster, flow, signal.SIGTERM)
    path = tmp_path / "recording"
    said = heartwheel(cluster, "record", str(path))
    assert said.splitlines()[-1].startswith(f"{path}: ")
    check_recorded(cluster, Recording(path))
    assert sum(isinstance(e, SessionEnd) for e in cluster.events()) == DEVICES * 3 // 10
    said = heartwheel(cluster, "replay", str(path), "--check", "--last-ms", "300")
    assert "differences 0" in said
    assert "skipped 0" in said


@pytest.mark.timeout(300)
def test_topics_for_consumers_are_recorded_and_compared_through_kills(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Devices that start and end while a run is killed, or fall silent: each topic is as it should.

    The recording is made twice: once while the run goes on, and once after its end. Only the input
    of it can be played to a broker.
    """
    topics = [
        cluster.give_heartbeats_a_topic(),
        cluster.give_summaries_a_topic(),
        cluster.give_the_table_a_topic(),
    ]
    cluster.variables |= {
        "HEARTWHEEL_HEARTBEAT_MS": "500",
        "HEARTWHEEL_IDLE_TIMEOUT_MS": str(IDLE_MS),
        "HEARTWHEEL_CATCH_UP": "all",
    }
    flow = cluster.start()
    with Traffic(cluster, DEVICES, 300):
        for _ in range(3):
            wait_for_more(cluster, 3 * DEVICES)
            stop(cluster, flow, signal.SIGKILL)
            time.sleep(OUTAGE_S)
            flow = cluster.start()
        # All lanes must be back, which may take long on a slow machine.
        cluster.wait("lanes", lambda: cluster.errors(flow).count("restored") == LANES, 60)
        # A replay knows of no outage, as a start is that takes long; then all are heard of anew.
        for number in range(QUIET):
            cluster.send("Start", f"p-quiet-{number}", f"quiet-{number}")
        wait_for_more(cluster, 20 * DEVICES)
        live = tmp_path / "live"
        record(cluster, live)
    cluster.wait("silence", lambda: "went_silent" in reasons_of_ends(cluster))
    wait_for_more(cluster, DEVICES)
    stop(cluster, flow, signal.SIGTERM)
    path = tmp_path / "recording"
    said = record(cluster, path)
    for topic in topics:
        assert f"{topic}/0: " in said
    check_recorded(cluster, Recording(path), topics)
    assert reasons_of_ends(cluster) == {"ended", "replaced", "went_silent"}
    for file, last_ms in ((live, BEHIND_MS), (path, 300)):
        said = heartwheel(cluster, "replay", str(file), "--check", "--last-ms", str(last_ms))
        assert "differences 0" in said
        assert "skipped 0" in said
    given = len(cluster.read(cluster.console))
    play = ("replay", str(path), "--to-broker", cluster.address, "--speed", "0", "--append")
    heartwheel(cluster, *play)
    assert len(cluster.read(cluster.console)) == 2 * given


def reasons_of_ends(cluster: Cluster) -> set[str]:
    """Return why sessions have ended."""
    return {event.reason for event in cluster.events() if isinstance(event, SessionEnd)}


def record(cluster: Cluster, path: Path) -> str:
    """Record the topics of the cluster."""
    return heartwheel(cluster, "record", str(path))


def test_killed_recorder_goes_on_without_loss_or_double(cluster: Cluster, tmp_path: Path) -> None:
    """Killed again and again while a run beats; at last Ctrl-C completes the recording."""
    path = tmp_path / "recording"
    flow = cluster.start(**ALL)
    for turn in range(4):
        for number in range(DEVICES):
            cluster.send("Start", f"c{number}", f"s{turn}-{number}")
        cluster.flush()
        recorder = cluster.start("record", str(path), "--follow", **ALL)
        wait_for_lock(cluster, recorder)
        if turn < 3:
            time.sleep(turn / 5)  # before it reads, and while it does
            stop(cluster, recorder, signal.SIGKILL)
            if turn:
                with pytest.raises(RecordingError, match="is not complete"):
                    Recording(path)
    second = heartwheel(cluster, "record", str(path), code=2)
    assert f"another `heartwheel record` writes to {path}" in second
    stop(cluster, flow, signal.SIGTERM)
    stop(cluster, recorder, signal.SIGINT)
    check_recorded(cluster, Recording(path))
    assert "is already complete" in heartwheel(cluster, "record", str(path), code=2)
    heartwheel(cluster, "replay", str(path), "--check")


def test_recording_from_the_middle_excuses_what_began_before(
    cluster: Cluster, tmp_path: Path
) -> None:
    """From a time or an offset on; sessions that began earlier are counted separately."""
    flow = cluster.start(**ALL)
    cluster.send("Start", "c1", "before")
    cluster.flush()
    cluster.wait("the session", lambda: "before" in cluster.sessions())
    wait_for_more(cluster, 2)
    from_ms = int(time.time() * 1000)
    cluster.send("Start", "p1", "after")
    cluster.send("End", "c1", "before")
    cluster.flush()
    cluster.wait("its heartbeats", lambda: len(cluster.sessions().get("after", ())) > 4)
    stop(cluster, flow, signal.SIGTERM)
    path = tmp_path / "recording"
    heartwheel(cluster, "record", str(path), "--from", str(from_ms))
    lines = lines_of(Recording(path))
    assert 6 < len(lines) < 20
    assert min(line.timestamp_ms for line in lines) >= from_ms
    said = heartwheel(cluster, "replay", str(path), "--check")
    assert "differences 0" in said
    assert "earlier 0" not in said
    where = next(line for line in lines if line.topic == cluster.output)
    name = f"{where.topic}/{where.partition}"
    other = tmp_path / "other"
    heartwheel(cluster, "record", str(other), "--from-offset", f"{name}={where.offset}")
    assert Recording(other).manifest.preface.starts[name] == where.offset
    assert Recording(other).manifest.partitions[name].first == where.offset


def record_some(cluster: Cluster, path: Path) -> float:
    """Record a run with some sessions and dead letters; return how long the sending took."""
    flow = cluster.start(**ALL)
    begin_s = time.monotonic()
    for number in range(20):
        cluster.send("Start", f"c{number}", f"s{number}")
        cluster.send("Start", f"p{number}", f"s{number}")
        cluster.send_raw(b"\xff\x00", f"p{number}")
        cluster.flush()
        time.sleep(0.1)
    for number in range(0, 20, 2):
        cluster.send("End", f"c{number}", f"s{number}")
    cluster.flush()
    took_s = time.monotonic() - begin_s
    cluster.wait("the last end", lambda: "end ended" in kinds(cluster.sessions().get("s18", [])))
    cluster.wait("the dead letters", lambda: len(cluster.read(cluster.letters)) == 20)
    stop(cluster, flow, signal.SIGTERM)
    heartwheel(cluster, "record", str(path))
    return took_s


def make_topics_again(cluster: Cluster) -> None:
    """Let the topics be new and empty."""
    topics = {cluster.console: 2, cluster.pc: 2, cluster.output: 4, cluster.letters: 1}
    delete_topics(cluster, *topics)
    create_topics(cluster.admin, topics)


def delete_topics(cluster: Cluster, *topics: str) -> None:
    for future in cluster.admin.delete_topics(list(topics)).values():
        future.result()


def test_played_recording_is_run_to_the_same_output(cluster: Cluster, tmp_path: Path) -> None:
    """Keys, values, timestamps, headers and partitions come back; a real run makes the same."""
    path, again = tmp_path / "recording", tmp_path / "again"
    sending_s = record_some(cluster, path)
    make_topics_again(cluster)
    begin_s = time.monotonic()
    heartwheel(cluster, "replay", str(path), "--to-broker", cluster.address, "--speed", "2")
    assert time.monotonic() - begin_s > sending_s / 2
    cluster.variables["HEARTWHEEL_RECOVERY_DIR"] = str(tmp_path / "other-recovery")
    flow = cluster.start(**ALL)
    recorded = sum(line.topic == cluster.output for line in lines_of(Recording(path)))
    cluster.wait("the output of every lane", lambda: cluster.records_out() >= recorded)
    cluster.wait("the last end", lambda: "end ended" in kinds(cluster.sessions().get("s18", [])))
    # A run does not wait for them for long when it stops: those that wait come with the next start.
    cluster.wait("the dead letters", lambda: len(cluster.read(cluster.letters)) == 20)
    stop(cluster, flow, signal.SIGTERM)
    heartwheel(cluster, "record", str(again))
    inputs = [cluster.console, cluster.pc]
    assert [line for line in lines_of(Recording(again)) if line.topic in inputs] == [
        line for line in lines_of(Recording(path)) if line.topic in inputs
    ]
    for file in (path, again):
        assert "differences 0" in heartwheel(cluster, "replay", str(file), "--check")


@pytest.mark.slow
def test_recording_is_played_only_to_topics_that_are_fit_for_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Topics that hold records, are missing or would delete old ones are refused."""
    path = tmp_path / "recording"
    record_some(cluster, path)
    play = ("replay", str(path), "--to-broker", cluster.address)
    assert "is not empty" in heartwheel(cluster, *play, code=2)
    heartwheel(cluster, *play, "--speed", "0", "--append")
    assert len(cluster.read(cluster.pc)) == 80
    delete_topics(cluster, cluster.console, cluster.pc, cluster.output, cluster.letters)
    assert "has 0 partitions" in heartwheel(cluster, *play, code=2)
    create_topics(cluster.admin, {cluster.console: 2}, **{"retention.ms": "1000"})
    assert "retention.ms" in heartwheel(cluster, *play, code=2)


def test_wrong_options_are_one_clear_line(cluster: Cluster, tmp_path: Path) -> None:
    """Nothing is written for a wrong time, offset or topic."""
    path = str(tmp_path / "recording")
    for options, text in (
        (("--from", "yesterday"), "--from yesterday: write it as"),
        (("--from-offset", "x"), "--from-offset x: write it as"),
        (("--from-offset", f"{cluster.pc}/0={2**63}"), "=9223372036854775808: write it as"),
        (("--from-offset", "nowhere/0=1"), "there is no partition nowhere/0"),
        (("--from-offset", f"{cluster.pc}/0=9"), "cannot begin at offset 9: it has 0 to 0"),
    ):
        said = heartwheel(cluster, "record", path, *options, code=2)
        assert text in said
        assert "Traceback" not in said
    for missing in ("HEARTWHEEL_HEARTBEAT_TOPIC", "HEARTWHEEL_DEAD_LETTER_TOPIC"):
        wrong = {missing: "nowhere"}
        said = heartwheel(cluster, "record", path, code=2, settings=wrong)
        assert "topic nowhere does not exist" in said
    assert not Path(path).exists()
