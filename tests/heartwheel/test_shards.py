"""All shards are asked for their status, by `heartwheel top` and for the page of any of them."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from dataflows.run_state import RunState
from heartwheel import shards
from heartwheel.http import all_shards
from heartwheel.shards import Shards
from session_logic.events import Fact
from session_logic.lane import Lane
from tests.support.answering import answering
from tests.support.clocks import FixedClock, T
from tests.support.ports import free_port
from tests.support.serving import SETTINGS, TOKEN, Client
from tests.support.waiting import wait_for


def shard(number: int, places: list[str]) -> Client:
    """Return a shard with a lane and a session."""
    run = RunState(FixedClock())
    run.lanes[number] = Lane(number, len(places), SETTINGS.rules())
    run.lanes[number].apply([Fact(True, f"d{number}", "s", "pc", T)], T)
    return Client(
        run,
        TOKEN,
        HEARTWHEEL_LANES=str(len(places)),
        HEARTWHEEL_ROUTE="partition",
        HEARTWHEEL_SHARD=f"{number}/{len(places)}",
        HEARTWHEEL_HTTP_PORT=places[number].rpartition(":")[2],
        HEARTWHEEL_HTTP_ADDRESSES=",".join(places),
    )


@pytest.fixture
def two() -> Iterator[list[Client]]:
    """Return two of three shards; the third is down."""
    places = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    made = [shard(number, places) for number in range(2)]
    yield made
    for client in made:
        client.server.should_exit = True


def asked(client: Client) -> list[dict[str, Any]]:
    """Return what a shard says of all."""
    found: list[dict[str, Any]] = []

    def known() -> bool:
        answer = client.get("/shards.json", Authorization=f"Bearer {TOKEN}")
        assert answer.status == 200
        found[:] = json.loads(answer.body)["shards"]
        return bool(found)

    wait_for(known)
    return found


def test_every_shard_tells_of_all_and_one_that_is_down_is_without_numbers(
    two: list[Client],
) -> None:
    """In their order, whoever is asked, and as `top` has it."""
    for client in two:
        found = asked(client)
        assert [one["shard"] for one in found] == [0, 1, 2]
        assert [one["answers"] for one in found] == [True, True, False]
        assert "without a time" in found[0]["reason"]
        assert (found[2]["active"], found[2]["lag_s"]) == (None, None)
    assert [one.answers for one in Shards(two[0].settings).ask()] == [True, True, False]
    wrong = replace(two[0].settings, http_token="wrong")  # noqa: S106
    assert not any(one.answers for one in Shards(wrong).ask())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\n\r\n{"history":{}}',
        b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n",
        b"SSH-2.0\r\n",
    ],
)
def test_what_answers_as_no_shard_is_a_shard_that_does_not_answer(answer: bytes) -> None:
    """A proxy, a version without these numbers, another program; the own status is known."""
    with answering(answer) as other:
        client = shard(0, [f"127.0.0.1:{free_port()}", f"127.0.0.1:{other}"])
        assert [one["answers"] for one in asked(client)] == [True, False]
        client.server.should_exit = True


def test_shard_at_the_address_of_another_is_not_taken_for_it(two: list[Client]) -> None:
    """Its numbers would be counted twice."""
    _, second, third = two[0].settings.http_places
    crossed = replace(two[0].settings, http_addresses=f"{second},{second},{third}")
    assert [one.answers for one in Shards(crossed).ask()] == [False, True, False]


@pytest.mark.parametrize("count", [2, 4])
def test_shard_of_another_number_of_shards_is_not_taken_for_one_of_these(
    two: list[Client], count: int
) -> None:
    """It has other partitions, or is of another run."""
    own = replace(two[0].settings, shard=f"0/{count}", lanes=4)
    assert not any(one.answers for one in Shards(own).ask())


def test_shard_that_stands_still_holds_up_nobody_and_is_not_asked_again_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was found before is answered, and others are answered all the while."""
    monkeypatch.setattr(shards, "ASK_S", 0.5)
    monkeypatch.setattr(all_shards, "ASK_EVERY_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        client = shard(0, [f"127.0.0.1:{free_port()}", place])
        assert [one["answers"] for one in asked(client)] == [True, False]
        begin_s = time.monotonic()
        for _ in range(10):
            assert len(asked(client)) == 2
            assert client.get("/livez").status == 200
        assert time.monotonic() - begin_s < shards.ASK_S, "they were answered while one was asked"
        connection, _ = silent.accept()
        silent.settimeout(2 * shards.ASK_S)
        with connection, pytest.raises(TimeoutError):
            silent.accept()
        client.server.should_exit = True


def test_shards_are_asked_once_for_all_who_look_and_again_once_that_is_old(
    two: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of its own for each operator costs the shards nothing."""
    monkeypatch.setattr(all_shards, "ASK_EVERY_S", 60.0)
    assert asked(two[0])[1]["answers"]
    two[1].server.should_exit = two[1].server.force_exit = True
    wait_for(lambda: not any(one.answers for one in Shards(two[0].settings).ask()[1:]))
    assert asked(two[0])[1]["answers"]
    monkeypatch.setattr(all_shards, "ASK_EVERY_S", 0.0)
    wait_for(lambda: not asked(two[0])[1]["answers"])


def test_run_that_is_no_shard_or_is_told_of_no_others_asks_nobody(client: Client) -> None:
    """The page has no table then."""
    assert client.json("/shards.json") == {"shards": []}
    assert Shards(client.settings).ask() == []
