"""A run on a real Kafka as HTTP shows it: probes, look-ups in a cluster, the terminal view."""

import json
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

from dataflows.settings_sources import environment
from tests.support.broker import ROOT, Broker
from tests.support.cluster import Cluster
from tests.support.endpoint import STOP_S, TOKEN, get, start
from tests.support.ports import free_port

DEVICES = 40


def top(port: int, *, token: str = "") -> tuple[int, str, str]:
    """Return exit code, output and errors of one look in the terminal."""
    command = [sys.executable, "-m", "heartwheel.cli", "top", "--once"]
    variables = {"HEARTWHEEL_HTTP_PORT": str(port), "COLUMNS": "120"}
    if token:
        variables["HEARTWHEEL_HTTP_TOKEN"] = token
    done = subprocess.run(
        command,
        env=environment() | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_run_is_watched_from_start_to_stop_and_stops_in_spite_of_clients(cluster: Cluster) -> None:
    """Ready once restored and read to the end; a stop waits for no connection."""
    cluster.send("Start", "c1", "s1")
    cluster.send_raw(b"\x1b[31m not json", "c2")
    cluster.flush()
    flow, port = start(cluster, HEARTWHEEL_HTTP_TOKEN=TOKEN)
    cluster.wait("readiness", lambda: get(port, "/readyz")[0] == 200)
    assert get(port, "/livez") == (200, "ok\n")
    cluster.wait("the session", lambda: get(port, "/devices/c1", TOKEN)[0] == 200)
    found = get(port, "/devices/c1", TOKEN)[1]
    assert (found["session_id"], found["platform"]) == ("s1", "console")
    assert found["started_ms"] < found["next_heartbeat_ms"]
    assert get(port, "/devices/c1")[0] == 401
    cluster.wait("a point", lambda: get(port, "/status.json", TOKEN)[1]["history"]["time_ms"])

    code, shown, errors = top(port, token=TOKEN)
    assert (code, errors) == (0, "")
    assert "ready" in shown
    assert "not_json" in shown
    assert "\x1b" not in shown
    code, shown, errors = top(port, token="wrong")  # noqa: S106
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert "401" in errors

    idle = socket.create_connection(("127.0.0.1", port))
    half = socket.create_connection(("127.0.0.1", port))
    half.sendall(b"GET /livez HTTP/1.1\r\nHost:")
    begin = time.monotonic()
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(timeout=STOP_S) == 0, cluster.errors(flow)
    assert time.monotonic() - begin < STOP_S
    idle.close()
    half.close()
    assert get(port, "/livez") == (0, None)
    code, shown, errors = top(port, token=TOKEN)
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert "does not answer" in errors


def lane_states(port: int) -> set[str]:
    """Return the states in which the status page of a process has the lanes."""
    return {lane["state"] for lane in get(port, "/status.json")[1]["lanes"]}


def test_any_process_of_a_cluster_answers_for_all_of_it(cluster: Cluster) -> None:
    """A look-up and a listing, before and after a restart; one that stands still is named."""
    addresses, ports = ([free_port() for _ in range(2)] for _ in range(2))
    mesh = ";".join(f"127.0.0.1:{port}" for port in addresses)
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    devices = {f"{'cp'[n % 2]}{n}": f"s{n}" for n in range(DEVICES)}
    for device, session in devices.items():
        cluster.send("Start", device, session)
    cluster.flush()
    for _run in range(2):
        processes = [
            cluster.start(
                *("run", "-i", str(n), "-a", mesh),
                HEARTWHEEL_HTTP_PORT=str(ports[n]),
                HEARTWHEEL_HTTP_ADDRESSES=places,
            )
            for n in range(2)
        ]
        for port in ports:
            cluster.wait("readiness", lambda port=port: get(port, "/readyz")[0] == 200)
            for device, session in devices.items():
                path = f"/devices/{device}"
                cluster.wait(path, lambda at=port, path=path: get(at, path)[0] == 200)
                assert get(port, path)[1]["session_id"] == session
            assert get(port, "/devices/nobody")[0] == 404
            assert listed(port) == devices
            assert listed(port, "?platform=console") == {
                device: session for device, session in devices.items() if device[0] == "c"
            }
        # Readiness allows for some lag, which may grow for a moment before it goes.
        cluster.wait("live lanes", lambda port=ports[0]: lane_states(port) == {"live", "elsewhere"})
        processes[0].send_signal(signal.SIGTERM)
        for process in processes:
            assert process.wait(timeout=STOP_S) == 0, cluster.errors(process)


def test_process_that_stands_still_is_named_by_the_other_one(cluster: Cluster) -> None:
    """Nobody waits for it for long, and its sessions are not left out in silence."""
    addresses, ports = ([free_port() for _ in range(2)] for _ in range(2))
    mesh = ";".join(f"127.0.0.1:{port}" for port in addresses)
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    processes = [
        cluster.start(
            *("run", "-i", str(n), "-a", mesh),
            HEARTWHEEL_HTTP_PORT=str(ports[n]),
            HEARTWHEEL_HTTP_ADDRESSES=places,
        )
        for n in range(2)
    ]
    for port in ports:
        cluster.wait("readiness", lambda port=port: get(port, "/readyz")[0] == 200)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        answers = [
            get(ports[0], path) for path in ("/sessions", *map("/devices/d{}".format, range(8)))
        ]
    finally:
        processes[1].send_signal(signal.SIGCONT)
    errors = [answer["error"] for status, answer in answers if status == 502]
    assert answers[0][0] == 502
    assert len(errors) > 1
    assert {status for status, _ in answers} == {404, 502}
    for error in errors:
        assert error.startswith(f"process 1 (127.0.0.1:{addresses[1]}) does not answer")


def listed(port: int, query: str = "") -> dict[str, str]:
    """Return the session of each device that is listed."""
    with urlopen(f"http://127.0.0.1:{port}/sessions{query}", timeout=10) as answer:
        sessions = [json.loads(line) for line in answer]
    return {session["device_id"]: session["session_id"] for session in sessions}


def test_process_that_waits_for_a_paused_kafka_is_alive_and_not_ready(
    own_kafka: Broker, own_cluster: Cluster
) -> None:
    """A dead letter holds the snapshot until it is acknowledged: no reason to kill the process."""
    cluster = own_cluster
    flow, port = start(
        cluster, HEARTWHEEL_LIVENESS_TIMEOUT_MS="500", HEARTWHEEL_READY_LAG_MS="60000"
    )
    cluster.wait("readiness", lambda: get(port, "/readyz")[0] == 200)
    for n in range(50):
        cluster.send_raw(b"not json", f"c{n}")
    cluster.flush()
    own_kafka.pause()
    for n in range(20):
        cluster.send_raw(b"not json", f"p{n}")
    time.sleep(3)
    answers = {get(port, "/livez") for _ in range(10)}
    own_kafka.resume()
    assert answers == {(200, "ok\n")}
    cluster.wait("readiness", lambda: get(port, "/readyz")[0] == 200)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(timeout=STOP_S) == 0, cluster.errors(flow)
