"""A process with an HTTP server, and what it answers."""

import http.client
import json
import subprocess
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tests.support.cluster import Cluster
from tests.support.ports import free_port

STOP_S = 20
TOKEN = "correct-horse"  # noqa: S105


def get(port: int, path: str, token: str = "") -> tuple[int, Any]:
    """Return status and body of an answer, or 0 if there is none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=5) as got:
            body, status = got.read(), got.status
    except HTTPError as error:
        body, status = error.read(), error.code
    except (URLError, http.client.HTTPException, OSError):
        return 0, None
    return status, json.loads(body) if body.startswith(b"{") else body.decode()


def start(cluster: Cluster, *arguments: str, **variables: str) -> tuple[subprocess.Popen[str], int]:
    """Start a process with a server; return it and its port."""
    port = free_port()
    return cluster.start(*arguments, HEARTWHEEL_HTTP_PORT=str(port), **variables), port
