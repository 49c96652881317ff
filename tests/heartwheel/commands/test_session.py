"""`heartwheel session` and `heartwheel top` against a server, and what they say without one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflows.run_state import RunState
from session_logic.events import Fact
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from tests.support.answering import answering
from tests.support.clocks import FixedClock, T
from tests.support.command import Inside, one_line
from tests.support.ports import free_port
from tests.support.serving import HOSTILE, SETTINGS, TOKEN, Client, restoring, start


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Inside:
    """Return the command."""
    return Inside(capsys)


@pytest.fixture
def run() -> RunState:
    """Return the state of a run with two lanes."""
    made = RunState(FixedClock())
    for number in range(2):
        made.lanes[number] = Lane(number, 2, SETTINGS.rules())
    return made


@pytest.fixture
def client(run: RunState) -> Iterator[Client]:
    """Return a server with a token."""
    made = Client(run, TOKEN)
    yield made
    made.server.should_exit = True


def variables(client: Client, **others: str) -> dict[str, str]:
    port = str(client.settings.http_port)
    return {"HEARTWHEEL_HTTP_PORT": port, "HEARTWHEEL_HTTP_TOKEN": TOKEN, **others}


STRANGERS = (
    b"HTTP/1.1 200 OK\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\n\r\n{}",
    b"HTTP/1.1 404 Not Found\r\n\r\nno",
    b'HTTP/1.1 500 E\r\n\r\n{"error":1}',
    b"HTTP/1.1 200 OK\r\n\r\n<html>no</html>",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"device_id":',
    b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
    b"SSH-2.0\r\n",
)


def test_session_is_shown_to_a_person_and_to_a_program(
    command: Inside, client: Client, run: RunState
) -> None:
    """Times in words, and the answer of the process as it is."""
    lane = start(run, "d")
    lane.apply([Fact(True, "d", "later", "pc", T + 1, carried=b'"account":"x"')], T + 1)
    done = command("session", "show", "d", **variables(client))
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:] if "  " in line)
    assert done.returncode == 0, done
    assert rows["session"].strip() == "later"
    assert rows["started"].strip() == "2023-11-14 22:13:20.001Z"
    assert rows["context"].strip() == '{"account": "x"}'
    done = command("session", "show", "d", "--json", **variables(client))
    answer = client.get("/devices/d", Authorization=f"Bearer {TOKEN}")
    assert done.stdout.encode() == answer.body + b"\n"


@pytest.mark.parametrize("device", [HOSTILE, ".", "..", "a/../b", "%2e", "?x=1#y"])
def test_session_of_a_device_with_any_id_is_found_and_steers_no_terminal(
    command: Inside, client: Client, run: RunState, device: str
) -> None:
    """It is encoded for the way, and its control characters for the screen."""
    lane = run.lanes[lane_of(key_group_of(device), 2)]
    lane.apply([Fact(True, device, "\x1b[31ms", "pc", T)], T)
    done = command("session", "show", device, **variables(client))
    assert done.returncode == 0, done
    assert "\\x1b[31ms" in done.stdout
    assert "\x1b" not in done.stdout


def test_device_without_a_session_and_lane_without_an_answer_are_one_line(
    command: Inside, client: Client, run: RunState
) -> None:
    """They are told apart: nobody may take what is not known yet for idle."""
    one_line(command("session", "show", "d", **variables(client)), 1, "no session is active", "d")
    run.lanes[lane_of(key_group_of("d"), 2)] = restoring(lane_of(key_group_of("d"), 2))
    for what in ("show", "end"):
        done = command("session", what, "d", **variables(client))
        one_line(done, 1, "answers 503", "is being restored")


@pytest.mark.parametrize("device", ["", "d" * 129, "\udcff", "ü" * 100_000])
def test_id_that_no_device_can_have_is_one_line(
    command: Inside, client: Client, device: str
) -> None:
    """Nothing is asked: the way there could not carry some of them."""
    for what in ("show", "end"):
        done = command("session", what, device, **variables(client))
        one_line(done, 2, "no device has such an id: give 1 to 128 characters in UTF-8")


@pytest.mark.parametrize("words", [("session", "show", "d"), ("session", "end", "d"), ("top",)])
def test_process_that_does_not_answer_as_ours_is_one_line(
    command: Inside, words: tuple[str, ...], client: Client
) -> None:
    """Nothing there, somebody else, the wrong token, no URL."""
    nobody = f"http://127.0.0.1:{free_port()}"
    one_line(command(*words, "--url", nobody), 1, nobody, "does not answer", "give --url")
    for answer in STRANGERS:
        with answering(answer) as port:
            url = f"http://127.0.0.1:{port}"
            one_line(command(*words, "--url", url), 1, url, "answers, but not as Heartwheel")
    with answering(b'HTTP/1.1 421 E\r\n\r\n{"error":"ask \\u001b by IP address"}') as port:
        url = f"http://127.0.0.1:{port}"
        one_line(command(*words, "--url", url), 1, "answers 421: ask \\x1b by IP address")
    wrong = variables(client, HEARTWHEEL_HTTP_TOKEN="wrong")  # noqa: S106
    one_line(command(*words, **wrong), 1, "answers 401", "HEARTWHEEL_HTTP_TOKEN")
    for url in ("ftp://x", "127.0.0.1:80", "http://[::1", "http://127.0.0.1:99999", "http://x:y"):
        one_line(command(*words, "--url", url), 1, "no URL of a process")
    one_line(command(*words), 2, "HEARTWHEEL_HTTP_PORT is 0")


TABLES = """
input_topics = {}
[inputs.plain]
platform = "pc"
type = "kind"
start = "on"
end = "off"
device = "id"
session = "session"
[inputs.other]
platform = {field = "os"}
type = "kind"
start = "on"
end = ["off", "gone"]
device = "data.id"
time = "header:at"
time_unit = "ms"
[inputs.packed]
platform = "packed"
format = "avro"
type = "kind"
start = "on"
end = "off"
device = "id"
"""


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("plain", '{"kind":"off","id":"d","session":"s"}'),
        ("other", '{"kind":"off","data":{"id":"d"},"os":"pc"}'),
    ],
)
def test_end_is_written_as_the_table_of_its_topic_says(
    command: Inside, client: Client, run: RunState, tmp_path: Path, topic: str, value: str
) -> None:
    """With its key and headers, and nothing is sent without a word."""
    start(run, "d")
    config = tmp_path / "heartwheel.toml"
    config.write_text('registry_url = "http://127.0.0.1:1"\n' + TABLES)
    words = ("session", "end", "d", "--config", str(config))
    one_line(command(*words, **variables(client)), 2, "pc are in plain, other", "--topic")
    done = command(*words, "--topic", topic, "--dry-run", **variables(client))
    assert done.returncode == 0, done
    shown = done.stdout.splitlines()
    assert shown[0].startswith("session s, started 2023-11-14 22:13:20.000Z")
    assert shown[1:3] == [f"its end, to {topic} with the key d:", value]
    assert shown[-1] == "nothing was sent"
    assert any(line.startswith("header at: ") for line in shown) is (topic == "other")
    done = command(*words, "--topic", topic, **variables(client))
    assert (done.returncode, "nobody can be asked" in done.stderr) == (2, True)
    one_line(
        command(*words, "--topic", "packed", **variables(client)),
        2,
        "--topic packed has no sessions of platform pc",
        "plain, other",
    )


def test_end_that_cannot_be_written_says_who_can_send_it(
    command: Inside, client: Client, run: RunState, tmp_path: Path
) -> None:
    """Avro has no inverse here; a platform that no topic has is of another run."""
    lane = run.lanes[lane_of(key_group_of("d"), 2)]
    lane.apply([Fact(True, "d", "s", "packed", T)], T)
    config = tmp_path / "heartwheel.toml"
    without = TABLES.replace('{field = "os"}', '"os"')
    config.write_text('registry_url = "http://127.0.0.1:1"\n' + without)
    done = command("session", "end", "d", "--config", str(config), **variables(client))
    one_line(done, 2, "inputs.packed has the format avro", "let the sender of its events end")
    done = command("session", "end", "d", **variables(client))
    one_line(done, 2, "platform packed are in no input topic", "take those of the run")


def test_topic_that_knows_no_end_cannot_have_one_sent(
    command: Inside, client: Client, run: RunState, tmp_path: Path
) -> None:
    """Where each record is a ping, only silence ends a session."""
    start(run, "d")
    config = tmp_path / "heartwheel.toml"
    table = '[inputs.pings]\nplatform = "pc"\ndevice = "id"\nopen_on_ping = true\n'
    config.write_text(f"input_topics = {{}}\nidle_timeout_ms = 9000\n{table}")
    done = command("session", "end", "d", "--config", str(config), **variables(client))
    one_line(done, 2, "inputs.pings has no end", "let the sender of its events end")


def test_end_in_our_own_format_has_any_id(command: Inside, client: Client, run: RunState) -> None:
    """As JSON has it, so that it is read back."""
    lane = run.lanes[lane_of(key_group_of(HOSTILE), 2)]
    lane.apply([Fact(True, HOSTILE, 's"\\', "pc", T)], T)
    done = command("session", "end", HOSTILE, "--dry-run", **variables(client))
    assert done.returncode == 0, done
    end = json.loads(done.stdout.splitlines()[2].replace("\\u2028", "\u2028"))
    assert end == {"type": "GameEnd", "device_id": HOSTILE, "session_id": 's"\\'}
