"""The client of a registry, against servers that answer well, wrongly and not at all."""

import json
import ssl
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme

from dataflows.avro import registry as module
from dataflows.avro.registry import Registry, RegistryAwayError, SchemaText, UnknownSchemaError
from dataflows.settings import Settings
from session_logic.errors import ConfigError
from tests.support.ports import free_port

TOKEN = "correct-horse"  # noqa: S105
UNKNOWN = (404, b'{"error_code":40403,"message":"Schema not found"}')


class Server(ThreadingHTTPServer):
    """Answers as it is told to, by path, and notes what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.location = ""
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://localhost:{self.server_address[1]}"

    def answer(self, path: str, **answer: Any) -> None:
        """Answer with this as JSON."""
        self.answers[path] = 200, json.dumps(answer).encode()


class Handler(BaseHTTPRequestHandler):
    """A request to that server."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        code, body = self.server.answers.get(self.path, UNKNOWN)
        self.send_response(code)
        if self.server.location:
            self.send_header("Location", self.server.location + self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server."""
    with Server() as made:
        Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.shutdown()


def registry(*urls: str, **more: str) -> Registry:
    """Return a registry at these addresses."""
    return Registry(
        Settings(registry_url=",".join(urls), **{f"registry_{k}": v for k, v in more.items()})
    )


def test_schema_comes_with_all_that_it_refers_to(server: Server) -> None:
    """Each before its users, and each once; names are escaped in addresses."""
    a = {"name": "A", "subject": "a/b", "version": 1}
    b = {"name": "B", "subject": "b", "version": 2}
    server.answer("/x/schemas/ids/7", schema="top", references=[b, a])
    server.answer("/x/subjects/b/versions/2", schema="bb", schemaType="AVRO", references=[a])
    server.answer("/x/subjects/a%2Fb/versions/1", schema="aa")
    found = registry(f"{server.url}/x/").schema(7)
    assert found == SchemaText("top", "AVRO", ["aa", "bb"])
    assert len(server.asked) == 3


def test_references_in_a_circle_are_no_schema(server: Server) -> None:
    """They would never end."""
    itself = {"name": "A", "subject": "a", "version": 1}
    server.answer("/schemas/ids/7", schema="top", references=[itself])
    server.answer("/subjects/a/versions/1", schema="aa", references=[itself])
    with pytest.raises(UnknownSchemaError, match="no end at a"):
        registry(server.url).schema(7)


def test_uuid_is_asked_for_as_such(server: Server) -> None:
    """It has an address of its own, and other kinds than Avro are told."""
    server.answer("/schemas/guids/6fb8", schema="text", schemaType="JSON")
    assert registry(server.url).schema("6fb8") == SchemaText("text", "JSON")


def test_schema_that_the_registry_does_not_have_is_unknown(server: Server) -> None:
    """A word of the registry's own says so, not any 404."""
    with pytest.raises(UnknownSchemaError):
        registry(server.url).schema(8)
    server.answers["/schemas/ids/8"] = 404, b'{"error_code":404,"message":"no such path"}'
    with pytest.raises(RegistryAwayError, match="correct HEARTWHEEL_REGISTRY_URL"):
        registry(server.url).schema(8)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((500, b"{}"), "answers 500"),
        ((503, b"<html>"), "answers 503"),
        ((401, b'{"error_code":40101}'), "correct HEARTWHEEL_REGISTRY_USERNAME"),
        ((403, b""), "_TOKEN"),
        ((404, b"<html>"), "correct HEARTWHEEL_REGISTRY_URL"),
        ((200, b"<html>"), "not answer as a registry does"),
        ((200, b'{"id":7}'), "not answer as a registry does"),
        ((200, b"\xff"), "not answer as a registry does"),
        ((200, b"[" * 100_000), "not answer as a registry does"),
    ],
)
def test_other_answer_leaves_the_question_open(
    server: Server, answer: tuple[int, bytes], problem: str
) -> None:
    """A record waits then, and is no dead letter."""
    server.answers["/schemas/ids/7"] = answer
    with pytest.raises(RegistryAwayError, match=problem):
        registry(server.url).schema(7)


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_name_that_no_host_can_have_is_a_registry_that_is_away(host: str) -> None:
    """Python has an error of its own for it, which would end the asking for good."""
    with pytest.raises(RegistryAwayError, match="does not answer"):
        registry(f"http://{host}").schema(7)


def test_registry_that_is_not_there_or_hangs_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next address is asked then."""
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryAwayError, match="does not answer"):
        registry(nobody).schema(7)
    with pytest.raises(RegistryAwayError, match="does not answer"):
        registry("http://no-such-host.invalid").schema(7)
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as silent:  # nobody serves
        hanging = f"http://127.0.0.1:{silent.server_address[1]}"
        with pytest.raises(RegistryAwayError, match="timed out"):
            registry(hanging).schema(7)
        server.answer("/schemas/ids/7", schema="text")
        assert registry(nobody, hanging, server.url).schema(7) == SchemaText("text")


def test_credentials_are_sent_and_not_passed_on(server: Server) -> None:
    """Basic or bearer; a redirection gets none of them."""
    server.answer("/schemas/ids/7", schema="text")
    registry(server.url, username="me", password="pass:word é").schema(7)  # noqa: S106
    basic = server.asked[-1][1] or ""
    assert b64decode(basic.removeprefix("Basic ")).decode() == "me:pass:word é"
    registry(server.url, token=TOKEN).schema(7)
    assert server.asked[-1][1] == "Bearer correct-horse"
    with Server() as other:
        Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        other.answers["/schemas/ids/7"] = 302, b""
        other.location = server.url
        assert registry(other.url, token=TOKEN).schema(7) == SchemaText("text")
        assert (other.asked[-1][1], server.asked[-1][1]) == ("Bearer correct-horse", None)
        other.shutdown()


def test_certificate_is_checked_against_the_authority(server: Server, tmp_path: Path) -> None:
    """The one that is given, else those of the system; a file that is none is told at once."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answer("/schemas/ids/7", schema="text")
    url = server.url.replace("http", "https")
    assert registry(url, ca=str(tmp_path / "ca.pem")).schema(7) == SchemaText("text")
    with pytest.raises(RegistryAwayError, match="certificate verify failed"):
        registry(url).schema(7)
    (tmp_path / "none.pem").write_text("none")
    for path in ("nowhere.pem", "none.pem"):
        with pytest.raises(ConfigError, match="HEARTWHEEL_REGISTRY_CA is"):
            registry(url, ca=str(tmp_path / path))
