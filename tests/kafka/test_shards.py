"""Shards on a real Kafka: together they write what one run would, and none knows of another."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflows.settings_sources import environment, load_settings
from session_logic.keys import key_group_of
from tests.support.broker import Broker
from tests.support.cluster import Cluster
from tests.support.endpoint import get
from tests.support.ports import free_port
from tests.support.shards import run_shards, run_stores, shard
from tests.support.silences import longest_silence
from tests.support.topic import outputs
from tests.support.traffic import ALL, Traffic, catch_up, check, stop, wait_for_more

PARTITIONS = 8
DEVICES = 2_000
FEW = 400  # where a killed shard is waited for


@pytest.fixture
def cluster(broker: Broker, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics that Java clients write to: their hash of a device is another than ours."""
    own = Cluster(
        broker.address,
        tmp_path,
        f"shards-{tmp_path.name[-12:]}",
        lanes=PARTITIONS,
        input_partitions=PARTITIONS,
        partitioner="murmur2",
    )
    own.variables["HEARTWHEEL_ROUTE"] = "partition"
    yield own
    own.end()


def refusal(cluster: Cluster, flow: subprocess.Popen[str], code: int = 2) -> str:
    """Return the line with which a start was refused."""
    assert flow.wait(60) == code, cluster.errors(flow)
    said = cluster.errors(flow)
    assert "Traceback" not in said
    return said.splitlines()[-1]


def program(cluster: Cluster, *arguments: str, **more: str) -> str:
    """Run a command to its end; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "heartwheel.cli", *arguments],
        env=environment() | cluster.variables | ALL | more,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def places(cluster: Cluster, *topics: str) -> dict[str, set[int]]:
    """Return in which partitions each device is."""
    found: dict[str, set[int]] = {}
    for topic in topics:
        for record in cluster.read(topic):
            found.setdefault((record.key or b"").decode(), set()).add(record.partition)
    return found


def test_one_of_four_shards_is_killed_and_the_others_go_on(cluster: Cluster) -> None:
    """Each record is there once, in the partition of its input; the others are not restarted."""
    flows = run_shards(cluster, 4)
    traffic = Traffic(cluster, DEVICES, rate=500)
    traffic.start_all()
    cluster.wait("all sessions", lambda: cluster.records_out() >= DEVICES, 60)
    with traffic:
        for _ in range(3):
            wait_for_more(cluster, DEVICES)
            flows[2].kill()
            flows[2].wait()
            wait_for_more(cluster, DEVICES // 4)
            flows[2] = shard(cluster, "2/4")
    through_ms = catch_up(cluster, traffic)
    stop(cluster, *flows)
    assert check(cluster, through_ms).sessions > DEVICES
    read, written = places(cluster, *cluster.inputs), places(cluster, cluster.output)
    assert written == {device: found for device, found in read.items() if device in written}
    recording = str(cluster.folder / "recording")
    said = program(cluster, "record", recording) + program(cluster, "replay", recording, "--check")
    assert "differences 0" in said
    hashed = sum(key_group_of(device) % PARTITIONS in found for device, found in written.items())
    assert hashed < len(written) / 2, "by their hash they would be in these partitions as well"


def test_rolling_restart_silences_no_device_for_longer_than_that_of_its_shard(
    cluster: Cluster,
) -> None:
    """All four under load, each once the one before it is ready; every record is there once."""
    ports = {f"{number}/4": free_port() for number in range(4)}

    def begin(name: str) -> subprocess.Popen[str]:
        return shard(cluster, name, HEARTWHEEL_HTTP_PORT=str(ports[name]))

    def are_ready() -> bool:
        return all(get(port, "/readyz")[0] == 200 for port in ports.values())

    flows = {name: begin(name) for name in ports}
    cluster.wait("all shards", are_ready, 60)
    traffic = Traffic(cluster, DEVICES // 4, rate=200)
    traffic.start_all()
    cluster.wait("all sessions", lambda: cluster.records_out() >= DEVICES // 4, 60)
    away_s = []
    with traffic:
        for name in reversed(ports):
            since_s = time.monotonic()
            stop(cluster, flows[name])
            flows[name] = begin(name)
            cluster.wait(f"shard {name}", are_ready, 60)
            away_s.append(time.monotonic() - since_s)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, *flows.values())
    check(cluster, through_ms)
    settings = load_settings(cluster.variables)
    allowed_ms = max(away_s) * 1000 + settings.heartbeat_ms + settings.ready_lag_ms
    assert longest_silence(outputs(cluster.address, cluster.output)).took_ms <= allowed_ms


def reshard(cluster: Cluster, old: list[Path], count: int) -> list[Path]:
    """Make the stores of so many shards; return them."""
    target = cluster.folder / f"resharded-{count}"
    said = program(
        cluster, "store", "reshard", *map(str, old), "--to", str(target), "--shards", str(count)
    )
    made = [target / str(number) for number in range(count)]
    assert all(f"{folder}: shard {n}/{count}, " in said for n, folder in enumerate(made))
    return made


def test_resharded_from_four_to_eight_to_three_under_load_loses_and_doubles_nothing(
    cluster: Cluster,
) -> None:
    """One of the four was killed; the stores of before are kept out from then on."""
    flows, stores = run_shards(cluster, 4), [cluster.folder / f"{n}-of-4" for n in range(4)]
    traffic = Traffic(cluster, FEW, rate=100)
    traffic.start_all()
    cluster.wait("all sessions", lambda: cluster.records_out() >= FEW, 60)
    first = stores
    with traffic:
        for count in (8, 3):
            wait_for_more(cluster, FEW)
            if count == 8:
                flows.pop().kill()
            stop(cluster, *flows)
            stores = reshard(cluster, stores, count)
            flows = run_stores(cluster, stores)
        wait_for_more(cluster, FEW)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, *flows)
    assert "is of before" in refusal(cluster, shard(cluster, "3/4", str(first[3])), 1)
    assert check(cluster, through_ms).sessions > FEW
    read, written = places(cluster, *cluster.inputs), places(cluster, cluster.output)
    assert written == {device: found for device, found in read.items() if device in written}


def test_device_is_found_in_its_shard_and_store_tools_know_which_lanes_it_has(
    cluster: Cluster,
) -> None:
    """One that is in another shard is not active here."""
    cluster.send_raw(
        b'{"type":"GameStart","device_id":"d","session_id":"s"}', "d", where=(cluster.pc, 5)
    )
    cluster.flush()
    ports = {"1/4": free_port(), "2/4": free_port()}
    places = {f"{n}/4": f"127.0.0.1:{ports.get(f'{n}/4', 1)}" for n in range(4)}
    cluster.variables["HEARTWHEEL_HTTP_ADDRESSES"] = ",".join(places.values())
    flows = [shard(cluster, name, HEARTWHEEL_HTTP_PORT=str(port)) for name, port in ports.items()]
    port = ports["1/4"]
    cluster.wait("the session", lambda: "s" in cluster.sessions())
    cluster.wait("it is ready", lambda: get(port, "/readyz")[0] == 200)
    status, found = get(port, "/devices/d")
    assert (status, found["lane"]) == (200, 5)
    shown = get(port, "/status.json")[1]
    assert (shown["shard"], [lane["lane"] for lane in shown["lanes"]]) == ("1/4", [1, 5])
    cluster.wait("the other", lambda: get(ports["2/4"], "/readyz")[0] == 200)
    status, found = get(ports["2/4"], "/devices/d")
    assert (status, found["session_id"], found["lane"]) == (200, "s", 5)
    shown = program(
        cluster, "top", "--once", HEARTWHEEL_SHARD="2/4", HEARTWHEEL_HTTP_PORT=str(ports["2/4"])
    )
    assert ("no answer" in shown, "ready" in shown) == (True, True)
    assert re.search(r"\n +1 +[01] .* ready *\n +2 +0 .* ready *\n +3 .* no answer", shown), shown

    def active() -> list[float | None]:
        """What each shard last sampled; None of one that does not answer."""
        return [one["active"] for one in get(port, "/shards.json")[1]["shards"]]

    cluster.wait("a sample of each", lambda: active() == [None, 1.0, 0.0, None])
    known = get(port, "/shards.json")[1]["shards"]
    assert [one["answers"] for one in known] == [False, True, True, False]
    status, error = get(ports["2/4"], "/devices/other")
    assert (status, "shard 0/4 does not answer" in error["error"]) == (502, True)
    stop(cluster, *flows)
    folder = str(cluster.folder / "1-of-4")
    for arguments, text in (
        (("store", "check", folder), "OK, 1 files and 2 lanes"),
        (("store", "inspect", folder), "route partition, the lanes of shard 1/4"),
        (("sessions", "export", folder), "d,5,s,pc,"),
    ):
        assert text in program(cluster, *arguments, HEARTWHEEL_SHARD="1/4")


def test_shards_that_do_not_fit_together_are_refused(cluster: Cluster) -> None:
    """Other numbers of shards, one store for two, one shard twice, another route."""
    flows = run_shards(cluster, 2)
    again = refusal(cluster, shard(cluster, "1/2", "another"), 1)
    assert "being written to by another run" in again
    assert "shard 1/2 of output topic" in refusal(cluster, shard(cluster, "3/4"), 1)
    stop(cluster, *flows)
    assert "route partition, the lanes of shard 0/2" in refusal(
        cluster, shard(cluster, "1/2", "0-of-2")
    )
    hashed = cluster.start(
        HEARTWHEEL_ROUTE="hash", HEARTWHEEL_RECOVERY_DIR=str(cluster.folder / "0-of-2")
    )
    assert "HEARTWHEEL_ROUTE and HEARTWHEEL_SHARD say route hash, all lanes" in refusal(
        cluster, hashed
    )
    stop(cluster, shard_that_runs(cluster, "0/2"))


def shard_that_runs(cluster: Cluster, name: str) -> subprocess.Popen[str]:
    """Start a shard, and wait until it runs."""
    flow = shard(cluster, name)
    cluster.wait("the shard", lambda: "running" in cluster.errors(flow), 60)
    return flow


def test_shard_that_was_killed_keeps_out_shards_of_another_number(cluster: Cluster) -> None:
    """What it has sent since its last snapshot, only its own store can tell."""
    flow = shard_that_runs(cluster, "1/2")
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert "or was not stopped cleanly" in refusal(cluster, shard(cluster, "1/4"), 1)
    stop(cluster, shard_that_runs(cluster, "1/2"))
    stop(cluster, shard_that_runs(cluster, "1/4"))


def test_input_topics_with_other_numbers_of_partitions_are_refused(cluster: Cluster) -> None:
    """A lane has the input partition of its number, in each topic."""
    said = refusal(
        cluster,
        cluster.start(
            HEARTWHEEL_INPUT_TOPICS=f"{cluster.letters}=pc", HEARTWHEEL_DEAD_LETTER_TOPIC=cluster.pc
        ),
    )
    assert f"input topic {cluster.letters} has 1 partitions and HEARTWHEEL_LANES is 8" in said


def test_partitions_that_are_added_are_named_and_a_start_goes_on_without_them(
    cluster: Cluster,
) -> None:
    """There is no lane for them yet; a new store would miss what is in them, and is refused."""
    flow = shard_that_runs(cluster, "1/2")
    cluster.add_partitions(2 * PARTITIONS)
    said = "partitions were added to an input topic, and there is no lane for them"
    cluster.wait("the warning", lambda: said in cluster.errors(flow), 60)
    stop(cluster, flow)
    stop(cluster, shard_that_runs(cluster, "1/2"))
    again = refusal(cluster, shard(cluster, "0/2"))
    assert "has 16 partitions and HEARTWHEEL_LANES is 8" in again
    assert "see docs/shards.md if partitions were added" in again
