"""A real Prometheus server on loopback, and questions to it."""

import json
import shutil
import subprocess
import time
from http.client import HTTPConnection
from math import isnan
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.missing import PROMETHEUS, require
from tests.support.ports import free_port

START_TIMEOUT_S = 30
BEARER = "of-the-scrapes"
Series = list[tuple[dict[str, str], float]]


def tool(name: str) -> str:
    """Return the path of a program of the Debian package prometheus."""
    require(PROMETHEUS)
    return str(shutil.which(name))


class Prometheus:
    """A server that scrapes jobs, one port each, every second, and evaluates rules."""

    def __init__(self, folder: Path, jobs: dict[str, int], rules: str) -> None:
        """Start it and wait until it answers."""
        folder.mkdir()
        settings = {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "authorization": {"credentials": BEARER},
                    "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
                }
                for job, port in jobs.items()
            ],
        }
        (folder / "rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
        self._port = free_port()
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            assert self._process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path: str, **query: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", f"{path}?{urlencode(query)}")
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _data(self, path: str, **query: str) -> Any:
        status, body = self._get(f"/api/v1/{path}", **query)
        assert status == 200, (query, body)
        return json.loads(body)["data"]

    def query(self, expr: str) -> Series:
        """Return what an expression gives now: labels and value of each series, but for NaN."""
        found = [
            (one["metric"], float(one["value"][1]))
            for one in self._data("query", query=expr)["result"]
        ]
        return [(labels, value) for labels, value in found if not isnan(value)]

    def course(self, expr: str, seconds: float) -> list[Any]:
        """Return what an expression has given in the last seconds: metric and values of each."""
        now_s = time.time()
        begin, end = str(now_s - seconds), str(now_s)
        found = self._data("query_range", query=expr, start=begin, end=end, step="1")
        result: list[Any] = found["result"]
        return result

    def firing(self, job: str = "heartwheel") -> set[str]:
        """Name the alerts that fire now for a job."""
        return {
            alert["labels"]["alertname"]
            for alert in self._data("alerts")["alerts"]
            if alert["state"] == "firing" and alert["labels"]["job"] == job
        }

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()
