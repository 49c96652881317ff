"""Options of Kafka's clients, and what is said while no broker answers."""

import json
import socket
import time
from base64 import urlsafe_b64encode
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from dataflows.kafka import metadata
from dataflows.kafka.client import (
    consumer_options,
    make_consumer,
    make_producer,
    producer_options,
)
from dataflows.kafka.metadata import describe, partition_counts
from dataflows.settings import Settings
from session_logic.errors import ConfigError
from tests.support.fake_kafka import Consumer as FakeConsumer
from tests.support.fake_kafka import Log
from tests.support.waiting import wait_for


class Provider(BaseHTTPRequestHandler):
    """An identity provider whose tokens live for VALID_S."""

    asked_by: Counter[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.asked_by[self.headers["authorization"]] += 1
        now_s = int(time.time())
        parts = ({"alg": "none"}, {"sub": "heartwheel", "iat": now_s, "exp": now_s + VALID_S})
        coded = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
        token = b".".join([*coded, b"x"]).decode()
        answer = json.dumps({"access_token": token, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


VALID_S = 2


def test_tokens_are_renewed_on_clients_that_nobody_polls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lease's consumer and an idle producer are asked for nothing for days."""
    monkeypatch.setattr(Provider, "asked_by", Counter(), raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        clients = []
        for name, make, own in (
            ("consumer", make_consumer, {"group.id": "g"}),
            ("producer", make_producer, {}),
        ):
            options = {
                "bootstrap.servers": "127.0.0.1:1",
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanisms": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": name,
                "sasl.oauthbearer.client.secret": "secret",
                "sasl.oauthbearer.token.endpoint.url": f"http://127.0.0.1:{server.server_port}/",
            }
            clients.append(make(options | own))
        wait_for(lambda: sorted(min(n, 2) for n in Provider.asked_by.values()) == [2, 2])
        clients.clear()
        server.shutdown()
        thread.join()


USERS = Settings(
    bootstrap_servers="broker:9092",
    kafka={"a": "kafka", "b": "kafka", "c": "kafka", "bootstrap.servers": "kafka"},
    consumer={"a": "consumer", "b": "consumer"},
    producer={"a": "producer", "b": "producer"},
)
DEFAULTS = {"a": "default", "b": "default", "c": "default", "d": "default"}


def test_required_option_wins_then_the_users_tables_then_the_default() -> None:
    """The table of the kind of client wins over the one for all clients."""
    assert consumer_options(USERS, {"a": "required"}, DEFAULTS) == {
        "a": "required",
        "b": "consumer",
        "c": "kafka",
        "d": "default",
        "check.crcs": "true",
        "bootstrap.servers": "broker:9092",
    }
    assert producer_options(USERS, {}, DEFAULTS)["b"] == "producer"


def test_client_that_is_not_tuned_has_only_what_is_for_all_clients() -> None:
    """A table for reading a stream may harm a client that only keeps offsets."""
    options = consumer_options(USERS, {}, DEFAULTS, tuned=False)
    assert (options["a"], options["d"]) == ("kafka", "default")


def test_broker_that_is_away_is_announced_before_it_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The line has the address and the cause, and comes after the first attempt."""
    monkeypatch.setattr(metadata, "PATIENCE_S", (0.4, 0.5))
    said: list[str] = []
    monkeypatch.setattr(metadata, "announce", said.append)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and it does not listen
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        settings = Settings(bootstrap_servers=address)
        consumer = make_consumer(consumer_options(settings, {"group.id": "test"}))
        with pytest.raises(ConfigError, match=f"no answer from Kafka at {address} .*refused"):
            describe(consumer, settings)
        consumer.close()
    (line,) = said
    assert line.startswith(f"waiting for Kafka at {address}: ")
    assert "refused" in line


def test_counts_have_the_topics_that_exist_and_ask_for_none_by_name() -> None:
    """A producer that asks for a topic by its name creates it."""
    log = Log({"pc": 3, "out": 2, "foreign": 9})
    asked: list[str | None] = []

    class Asked(FakeConsumer):
        def list_topics(self, topic: str | None, timeout: float) -> object:
            asked.append(topic)
            return super().list_topics(topic, timeout)

    settings = Settings(input_topics={"pc": "pc"}, output_topic="out", dead_letter_topic="none")
    counts = partition_counts(Asked(log, lambda: 0), settings)
    assert counts == {"pc": 3, "out": 2}
    assert asked == [None]
