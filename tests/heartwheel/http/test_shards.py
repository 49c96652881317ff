"""Shards with a server each: any of them answers for all, as far as it knows where they are."""

import json
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from dataflows.run_state import RunState
from heartwheel.cluster import Cluster
from heartwheel.http.processes import Processes
from heartwheel.http.view import ProcessView
from session_logic.errors import ConfigError
from session_logic.events import Fact
from session_logic.lane import Lane
from tests.support.clocks import FixedClock, T
from tests.support.ports import free_port
from tests.support.serving import SETTINGS, Client, restoring
from tests.support.waiting import wait_for

SHARDS = 2


def split() -> float:
    """Return how many look-ups have found a device in two lanes."""
    return REGISTRY.get_sample_value("heartwheel_split_devices_total") or 0


def shard(number: int, ports: list[int], *, told: bool = True) -> Client:
    """Return a shard with a lane, in which a device is active that would not be there by hash."""
    run = RunState(FixedClock())
    lane = run.lanes[number] = Lane(number, SHARDS, SETTINGS.rules())
    lane.apply([Fact(True, f"d{number}", f"s{number}", "pc", T)], T)
    where = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Client(
        run,
        HEARTWHEEL_ROUTE="partition",
        HEARTWHEEL_SHARD=f"{number}/{SHARDS}",
        HEARTWHEEL_HTTP_PORT=str(ports[number]),
        HEARTWHEEL_HTTP_ADDRESSES=where if told else "",
    )


@pytest.fixture
def shards() -> Iterator[list[Client]]:
    """Return shards that know each other."""
    ports = [free_port() for _ in range(SHARDS)]
    made = [shard(number, ports) for number in range(SHARDS)]
    yield made
    for client in made:
        client.server.should_exit = True


def end(client: Client) -> None:
    """Let the server of a shard be gone."""
    client.server.should_exit = client.server.force_exit = True

    def is_gone() -> bool:
        try:
            client.get("/livez")
        except OSError:
            return True
        return False

    wait_for(is_gone)


def test_device_is_found_by_any_shard(shards: list[Client]) -> None:
    """Its id does not tell in which one it is."""
    for client in shards:
        for number in range(SHARDS):
            answer = client.get(f"/devices/d{number}")
            assert (answer.status, json.loads(answer.body)["lane"]) == (200, number)
        answer = client.get("/devices/idle")
        assert (answer.status, json.loads(answer.body)["lane"]) == (404, None)
        lines = client.get("/sessions").body.splitlines()
        assert sorted(json.loads(line)["device_id"] for line in lines) == ["d0", "d1"]


def test_device_in_two_shards_is_told_in_the_answer_counted_and_logged_once(
    shards: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    """The session that was started last is shown, whoever is asked."""
    counted = split()
    shards[0].run.lanes[0].apply([Fact(True, "d1", "earlier", "pc", T - 1)], T)
    for client in shards:
        found = json.loads(client.get("/devices/d1").body)
        assert (found["session_id"], found["lane"], found["also_in_lanes"]) == ("s1", 1, [0])
    assert split() - counted == len(shards)
    client = shards[1]
    for _ in range(3):
        assert "also_in_lanes" not in json.loads(client.get("/devices/d0").body)
        client.get("/devices/d1")
    assert split() - counted == len(shards) + 3
    warned = [one.msg for one in caplog.records if isinstance(one.msg, dict) and "lanes" in one.msg]
    assert [(one["device"], one["lanes"]) for one in warned] == [("d1", [0, 1])] * len(shards)


def test_device_in_two_lanes_of_a_shard_is_told_by_any_other(shards: list[Client]) -> None:
    """Who is asked in place of another says so as well."""
    counted = split()
    third = shards[1].run.lanes[3] = Lane(3, 2 * SHARDS, SETTINGS.rules())
    third.apply([Fact(True, "d1", "later", "pc", T + 1)], T)
    for client in shards:
        found = json.loads(client.get("/devices/d1").body)
        assert (found["session_id"], found["lane"], found["also_in_lanes"]) == ("later", 3, [1])
    assert split() - counted == len(shards)


def test_shard_that_is_down_is_named_and_never_left_out(shards: list[Client]) -> None:
    """What is active here is found all the same."""
    end(shards[1])
    assert shards[0].get("/devices/d0").status == 200
    for path in ("/devices/d1", "/devices/idle", "/sessions"):
        answer = shards[0].get(path)
        assert answer.status == 502
        assert "shard 1/2 does not answer at 127.0.0.1" in json.loads(answer.body)["error"]


def test_device_is_idle_only_if_every_shard_says_so(shards: list[Client]) -> None:
    """One that is restored may have it."""
    shards[1].run.lanes[1] = restoring(1)
    answer = shards[0].get("/devices/d1")
    assert (answer.status, json.loads(answer.body)["active"]) == (503, None)


def test_shard_that_is_not_told_of_others_answers_for_itself() -> None:
    """They are processes that know nothing of each other."""
    client = shard(0, [free_port(), free_port()], told=False)
    assert client.get("/devices/d0").status == 200
    assert client.get("/devices/d1").status == 404
    client.server.should_exit = True


def test_addresses_must_be_those_of_all_shards() -> None:
    """Or one would be asked for another."""
    client = shard(0, [free_port(), free_port()], told=False)
    client.server.should_exit = True
    settings = replace(client.settings, http_addresses="127.0.0.1:1")
    with pytest.raises(ConfigError, match="has 1 addresses, and there are 2 processes"):
        Processes(ProcessView(settings, Cluster(), client.run))
