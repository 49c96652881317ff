"""What is logged when something goes wrong that nobody has thought of."""

import json
import subprocess
import sys

from tests.support.broker import ROOT

PROGRAM = """
import logging, threading, warnings
from dataflows.logs import start_logs
from dataflows.settings import Settings
start_logs(Settings(log_format="json"), 3)

class Seen(logging.Handler):
    event = threading.Event()

    def emit(self, record):
        if record.name == "bytewax":
            self.event.set()

logging.getLogger().addHandler(Seen())  # after the one that writes
print("to standard output", flush=True)
assert Seen.event.wait(10)
warnings.warn("careful", stacklevel=1)
logging.getLogger("library").error("of %s", "a library")
thread = threading.Thread(target=lambda: [][7], name="other")
thread.start()
thread.join()
1 / 0
"""


def test_unexpected_errors_are_json_with_their_traceback() -> None:
    """In the main thread and in others; libraries and warnings are in the same form."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert done.stdout == ""
    assert {line["process"] for line in lines} == {3}
    by_logger = {line["logger"]: line for line in lines}
    assert by_logger["library"]["message"] == "of a library"
    assert "careful" in by_logger["py.warnings"]["message"]
    assert by_logger["bytewax"]["message"] == "to standard output"
    failures = [line for line in lines if line["level"] == "critical"]
    assert [line["message"] for line in failures] == ["unexpected error"] * 2
    assert "IndexError" in failures[0]["exception"]
    assert "ZeroDivisionError" in failures[1]["exception"]
