"""The HTTP server with lanes of its own: health, look-ups, who may ask, and what is measured."""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import quote

import pytest
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client import Histogram as ClientHistogram

from dataflows.cluster import Cluster
from dataflows.http.devices import Devices
from dataflows.http.health import Health
from dataflows.http.history import WINDOW_S, History, quantile
from dataflows.http.server import bind, serve
from dataflows.items import DeadLetter
from dataflows.metrics import LANES
from dataflows.settings import Settings, environment, load_settings
from dataflows.stop import STOP
from dataflows.vitals import RECENT_LETTERS, Vitals
from session_logic.clock import Report
from session_logic.errors import ConfigError
from session_logic.events import Fact
from session_logic.journal import JournalState
from session_logic.keys import group_of, lane_of
from session_logic.lane import STATE_VERSION, Lane, LaneState
from tests.broker import ROOT, free_port

T = 1_700_000_000_000
SETTINGS = Settings(lanes=2, heartbeat_ms=1_000, max_session_ms=10_000)
HOSTILE = "a/../b\n<img src=x onerror=alert(1)>\"'&%2f\u2028\U0001f3ae"
TOKEN = "correct-horse"  # noqa: S105


class FixedClock(Struct):
    """A clock that stands still where it is put."""

    now: int = T

    def now_ms(self) -> int:
        return self.now


@pytest.fixture(autouse=True)
def lanes() -> Iterator[list[Lane]]:
    """Return the lanes of a process, which have heard that all input is read."""
    made = [Lane(number, 2, SETTINGS.rules()) for number in range(2)]
    for lane in made:
        lane.hear(Report("t/0", 1, None))
    LANES.running.clear()
    LANES.running.update({lane.lane: lane for lane in made})
    yield made
    LANES.running.clear()


def start(lanes: list[Lane], device: str, session: str = "s") -> Lane:
    """Start a session at T in its lane."""
    lane = lanes[lane_of(group_of(device), 2)]
    lane.apply([Fact(True, device, session, "pc", T)], T)
    return lane


class Client:
    """A server on a port of its own, and what it answers."""

    def __init__(self, token: str = "") -> None:
        self.settings = load_settings(
            {
                "HEARTWHEEL_LANES": "2",
                "HEARTWHEEL_HEARTBEAT_MS": "1000",
                "HEARTWHEEL_HTTP_PORT": str(free_port()),
                **({"HEARTWHEEL_HTTP_TOKEN": token} if token else {}),
            }
        )
        self.vitals, self.clock = Vitals(), FixedClock()
        listener = bind(self.settings)
        assert listener is not None
        self.server = serve(listener, self.settings, Cluster(), self.vitals, self.clock)

    def get(self, path: str, **headers: str) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self.settings.http_port, timeout=10)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.body = response.read()
        connection.close()
        return response

    def json(self, path: str) -> object:
        return json.loads(self.get(path).body)


@pytest.fixture
def client() -> Iterator[Client]:
    """Return a server without a token."""
    made = Client()
    yield made
    made.server.should_exit = True


@pytest.fixture
def guarded() -> Iterator[Client]:
    """Return a server with a token."""
    made = Client(TOKEN)
    yield made
    made.server.should_exit = True


def health(vitals: Vitals, clock: FixedClock) -> Health:
    """Return what judges a process that has both lanes."""
    return Health(SETTINGS, Cluster(), vitals, clock)


@pytest.mark.parametrize(("beside_ms", "alive"), [(-1, True), (0, True), (1, False)])
def test_loop_that_has_not_turned_for_longer_than_the_limit_is_dead(
    beside_ms: int, *, alive: bool
) -> None:
    """At the limit it is still alive; and before the first turn, when the process starts."""
    vitals, clock = Vitals(), FixedClock()
    assert health(vitals, clock).stalled() is None
    vitals.turn(T)
    clock.now = T + SETTINGS.live_limit_ms + beside_ms
    assert (health(vitals, clock).stalled() is None) is alive


def test_one_stalled_worker_thread_is_found_beside_one_that_turns() -> None:
    """Each thread of a process has to turn."""
    vitals, clock = Vitals(), FixedClock(T + SETTINGS.live_limit_ms + 1)
    vitals.turn(clock.now)
    assert health(vitals, clock).stalled() is None
    vitals.turned_ms[-1] = T
    assert "has not turned for 10.0 s" in (health(vitals, clock).stalled() or "")


def test_wait_for_kafka_is_alive_and_not_ready() -> None:
    """A restart would not bring the broker back; it has a limit of its own."""
    vitals, clock = Vitals(), FixedClock(T + 100_000)
    vitals.turn(T)
    vitals.waits_for_kafka = lambda: True
    assert health(vitals, clock).stalled() is None
    assert "Kafka" in (health(vitals, clock).unready() or "")


def restoring(number: int) -> Lane:
    """Return a lane that waits for a row of the store."""
    state = LaneState(STATE_VERSION, 2, number, T, JournalState(0, {}))
    return Lane(number, 2, SETTINGS.rules(), state)


def test_restore_has_its_own_limit_and_is_not_ready(lanes: list[Lane]) -> None:
    """A start with a large store is not killed for it."""
    lanes[1] = LANES.running[1] = restoring(1)
    assert lanes[1].restoring
    vitals, clock = Vitals(), FixedClock(T + SETTINGS.restore_timeout_ms)
    vitals.turn(T)
    assert health(vitals, clock).stalled() is None
    assert health(vitals, clock).unready() == "lane 1 being restored"
    clock.now += 1
    assert health(vitals, clock).stalled() is not None


def test_lane_without_word_from_input_is_not_ready(lanes: list[Lane]) -> None:
    """A lane that is not there yet, then one of which a partition has not reported."""
    clock = FixedClock()
    del LANES.running[0]
    assert "lane 0 not begun" in (health(Vitals(), clock).unready() or "")
    lanes[0] = LANES.running[0] = Lane(0, 2, SETTINGS.rules())
    assert "not every input partition" in (health(Vitals(), clock).unready() or "")
    lanes[0].hear(Report("t/0", 1, None))
    assert health(Vitals(), clock).unready() is None


@pytest.mark.parametrize(("beside_ms", "ready"), [(-1, True), (0, True), (1, False)])
def test_lane_behind_by_more_than_the_limit_is_not_ready(
    lanes: list[Lane], beside_ms: int, *, ready: bool
) -> None:
    """Time of a lane that is behind is what its input has come to."""
    lanes[1].hear(Report("t/0", 1, T))
    reason = health(Vitals(), FixedClock(T + SETTINGS.ready_lag_ms + beside_ms)).unready()
    assert (reason is None) is ready
    assert ready or reason == "lane 1 up to 5.0 s behind the wall clock"


def test_stop_is_alive_and_not_ready(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being drained is not killed, and gets no more requests."""
    assert (client.get("/readyz").status, client.get("/readyz").body) == (200, b"ok\n")
    client.vitals.turn(T)
    client.clock.now = T + 60_000
    monkeypatch.setattr(STOP, "is_set", lambda: True)
    assert client.get("/livez").status == 200
    answer = client.get("/readyz")
    assert (answer.status, answer.body) == (503, b"the process is being stopped\n")


@pytest.mark.parametrize("device", ["d", "a/b", HOSTILE, "x" * 128, "\u00e4\u00f6", " ", "."])
def test_device_is_found_by_any_id_there_can_be(
    client: Client, lanes: list[Lane], device: str
) -> None:
    """Slashes, line breaks, markup: an id is any text of up to 128 characters."""
    path = f"/devices/{quote(device, safe='')}"
    answer = client.get(path)
    assert (answer.status, json.loads(answer.body)["active"]) == (404, False)
    lane = start(lanes, device, session=HOSTILE)
    lane.advance(T + 1_500)
    answer = client.get(path)
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {
            "device_id": device,
            "lane": lane.lane,
            "active": True,
            "session_id": HOSTILE,
            "platform": "pc",
            "started_ms": T,
            "next_heartbeat_ms": T + 2_000,
            "timeout_ms": T + 28_800_000,
            "as_of_ms": T,
        },
    )
    lane.apply([Fact(False, device, HOSTILE, "pc", T + 1_600)], T + 1_600)
    assert client.get(path).status == 404


def test_bytes_that_are_no_text_are_an_idle_device(client: Client) -> None:
    """Nothing that can be asked for is an error of the server."""
    for path in ("/devices/%ff%fe", "/devices/%00", "/devices/%ed%a0%80"):
        assert client.get(path).status == 404


def test_lane_that_is_restored_or_elsewhere_is_not_taken_for_idle() -> None:
    """503 until it is known, and the owner for a lane of another process."""
    cluster = Cluster(0, ("host0:9999", "host1:9999"))
    devices = Devices(SETTINGS, cluster, FixedClock())
    mine = next(lane for lane in range(2) if cluster.owner(lane) == 0)
    by_lane = {lane_of(group_of(f"d{n}"), 2): f"d{n}" for n in range(20)}
    waiting = LANES.running[mine] = restoring(mine)
    assert devices.look_up(by_lane[mine])[0] == 503
    assert waiting.restoring
    LANES.running.clear()
    assert devices.look_up(by_lane[mine])[0] == 503
    status, answer = devices.look_up(by_lane[1 - mine])
    assert (status, answer["active"]) == (421, None)
    assert answer["owner"] == {"process": 1, "address": "host1:9999"}


DATA = ("/", "/metrics", "/status.json", "/devices/d", "/nothing")


@pytest.mark.parametrize("path", DATA)
@pytest.mark.parametrize("given", ["", "Bearer wrong", f"bearer {TOKEN}", TOKEN, "Bearer \xff"])
def test_without_the_token_nothing_but_the_probes_answers(
    guarded: Client, path: str, given: str
) -> None:
    """401 with no data in it; the page asks for the token."""
    answer = guarded.get(path, **({"Authorization": given} if given else {}))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (b"<form" in answer.body) is (path == "/")
    assert [guarded.get(probe).status for probe in ("/livez", "/readyz")] == [200, 200]


def test_with_the_token_everything_answers(guarded: Client) -> None:
    """The same header for a browser's script and for Prometheus."""
    codes = {path: guarded.get(path, Authorization=f"Bearer {TOKEN}").status for path in DATA}
    assert codes == {
        "/": 200,
        "/metrics": 200,
        "/status.json": 200,
        "/devices/d": 404,
        "/nothing": 404,
    }


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("10.0.0.1:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("", 421),
    ],
)
def test_without_a_token_only_an_address_or_localhost_is_answered(
    client: Client, host: str, status: int
) -> None:
    """A foreign page cannot point its own name at this machine and read."""
    assert client.get("/status.json", Host=host).status == status
    assert client.get("/livez", Host=host).status == 200


def test_page_holds_everything_and_allows_nothing_else(client: Client) -> None:
    """The policy names the hashes of the style and script in it; no address is asked for."""
    answer = client.get("/")
    page, policy = answer.body.decode(), answer.headers["content-security-policy"]
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert len(text) > 1_000
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    for path in ("/metrics", "/status.json", "/livez", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == policy
        assert (headers["x-content-type-options"], headers["cache-control"]) == (
            "nosniff",
            "no-store",
        )


def test_status_has_the_last_dead_letters_newest_first_and_cut(client: Client) -> None:
    """Twenty of them, whatever is in them, with no more than is shown of a large one."""
    for offset in range(RECENT_LETTERS + 5):
        message = (offset, T, b"\xff<b>", b"\x00" * 1_000_000 if offset else None)
        client.vitals.dead_letters.append(DeadLetter("t", 3, message, "not_json", "x" * 10_000))
    letters = client.json("/status.json")["dead_letters"]
    assert [letter["offset"] for letter in letters] == list(range(RECENT_LETTERS + 4, 4, -1))
    assert letters[0]["key"] == "\\xff<b>"
    assert len(client.get("/status.json").body) < 200_000


@pytest.mark.parametrize("after", ["", "-1", "x", "9" * 5_000, "nan", "1e999", "\u0663"])
def test_garbage_in_a_query_is_no_error(client: Client, after: str) -> None:
    """The whole history, or none of it."""
    assert client.get(f"/status.json?after={quote(after)}").status == 200


def test_metrics_are_those_of_the_process(client: Client, lanes: list[Lane]) -> None:
    """In the format that is asked for."""
    start(lanes, "d")
    text = client.get("/metrics").body.decode()
    assert re.search(
        r'^heartwheel_active_sessions\{lane="\d",platform="pc"\} 1\.0$', text, re.MULTILINE
    )
    answer = client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_other_method_is_refused(client: Client) -> None:
    """Nothing can be changed over HTTP."""
    with socket.create_connection(("127.0.0.1", client.settings.http_port)) as connection:
        connection.sendall(b"DELETE /devices/d HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 405 ")


def history(change: Callable[[int, dict[str, object]], None], samples: int) -> History:
    """Return a history of metrics that change before each sample, a second apart."""
    registry = CollectorRegistry()
    metrics = {
        "events": Counter("heartwheel_events", "", ["type"], registry=registry),
        "active": Gauge("heartwheel_active_sessions", "", ["lane", "platform"], registry=registry),
        "latency": ClientHistogram(
            "heartwheel_event_latency_seconds", "", registry=registry, buckets=(0.01, 0.02, 1.0)
        ),
    }
    made = History(registry)
    for number in range(samples):
        change(number, metrics)
        made.sample(T + number * 1_000)
    return made


def test_history_has_rates_levels_and_percentiles_of_the_last_seconds() -> None:
    """A rate is of one second, a level is summed over lanes, a percentile forgets."""

    def change(number: int, metrics: dict[str, object]) -> None:
        metrics["events"].labels("GameStart").inc(number * 10)
        for lane in "01":
            metrics["active"].labels(lane, "pc").set(number)
        if number == 1:
            for _ in range(100):
                metrics["latency"].observe(0.015)

    made = history(change, WINDOW_S + 3)
    columns = made.columns(0)
    assert columns["time_ms"] == [T + n * 1_000 for n in range(1, WINDOW_S + 3)]
    assert columns["starts"] == [n * 10.0 for n in range(1, WINDOW_S + 3)]
    assert columns["ends"] == [0.0] * (WINDOW_S + 2)
    assert columns["active"] == [n * 2.0 for n in range(1, WINDOW_S + 3)]
    assert columns["event_p50_s"][0] == pytest.approx(0.015)
    assert columns["event_p99_s"][WINDOW_S - 1] == pytest.approx(0.0199)
    assert columns["event_p99_s"][WINDOW_S] is None
    assert made.columns(T + 6_000)["time_ms"] == [T + n * 1_000 for n in (7,)]


def test_counter_that_begins_anew_gives_no_negative_rate() -> None:
    """Lanes that are restored count from nothing."""
    made = history(lambda _n, metrics: metrics["events"].clear(), 1)
    made._readings[0][1]["heartwheel_events_total"]["GameEnd",] = 50.0
    made.sample(T + 1_000)
    assert made.columns(0)["ends"] == [0.0]


@pytest.mark.parametrize(
    ("cumulative", "share", "value"),
    [
        ([], 0.5, None),
        ([(0.01, 0), (float("inf"), 0)], 0.5, None),
        ([(0.01, 10), (float("inf"), 10)], 0.5, 0.005),
        ([(0.01, 0), (0.02, 10), (float("inf"), 10)], 0.5, 0.015),
        ([(0.01, 50), (0.02, 50), (0.05, 100), (float("inf"), 100)], 0.5, 0.01),
        ([(0.01, 50), (0.02, 50), (0.05, 100), (float("inf"), 100)], 0.99, 0.0494),
        ([(0.01, 0), (float("inf"), 5)], 0.5, 0.01),
    ],
)
def test_quantile_is_that_of_promql(
    cumulative: list[tuple[float, float]], share: float, value: float | None
) -> None:
    """Spread evenly in its bucket; the last bound for what is over it."""
    assert quantile(cumulative, share) == (None if value is None else pytest.approx(value))


def test_port_in_use_is_one_line_before_anything_starts(
    client: Client, tmp_path: os.PathLike[str]
) -> None:
    """Exit code 2, and no recovery directory made."""
    done = subprocess.run(
        [sys.executable, "-m", "dataflows.cli", "run"],
        env=environment()
        | {
            "HEARTWHEEL_HTTP_PORT": str(client.settings.http_port),
            "HEARTWHEEL_RECOVERY_DIR": f"{tmp_path}/recovery",
            "HEARTWHEEL_LOG_FORMAT": "text",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("heartwheel: HEARTWHEEL_HTTP_HOST and HEARTWHEEL_HTTP_PORT: ")
    assert "in use" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("host", ["host.invalid", "192.0.2.1", "2001:db8::1", "a b"])
def test_host_that_is_not_of_this_machine_is_one_line(host: str) -> None:
    """A name that nobody knows, and addresses of others."""
    settings = Settings(http_host=host, http_port=free_port(), http_token=TOKEN)
    with pytest.raises(ConfigError) as error:
        bind(settings)
    assert "\n" not in str(error.value)
    assert host in str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "myhost"])  # noqa: S104
def test_beyond_loopback_a_token_is_required(host: str, tmp_path: os.PathLike[str]) -> None:
    """Or no server; the token can come from a file, and is never shown."""
    variables = {"HEARTWHEEL_HTTP_HOST": host}
    with pytest.raises(ConfigError, match="HEARTWHEEL_HTTP_TOKEN"):
        load_settings(variables)
    assert load_settings(variables | {"HEARTWHEEL_HTTP_PORT": "0"}).http_port == 0
    secret = f"{tmp_path}/token"
    with open(secret, "w") as file:
        file.write(f"{TOKEN}\n")
    settings = load_settings(variables | {"HEARTWHEEL_HTTP_TOKEN_FILE": secret})
    assert settings.http_token == TOKEN
    assert TOKEN not in repr(settings)
    assert list(settings.masked().values()).count("***") == 1


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "\xe4", "\x00"])
def test_token_that_no_header_can_hold_is_one_line(token: str) -> None:
    """It is not shown in the error."""
    with pytest.raises(ConfigError, match="HEARTWHEEL_HTTP_TOKEN") as error:
        load_settings({"HEARTWHEEL_HTTP_TOKEN": token})
    assert token not in str(error.value)


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_port_that_is_none_is_one_line(port: str) -> None:
    """As any other setting."""
    with pytest.raises(ConfigError, match="HEARTWHEEL_HTTP_PORT"):
        load_settings({"HEARTWHEEL_HTTP_PORT": port})
