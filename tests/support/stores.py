"""Recovery stores that a run has made, and the command that looks at them."""

import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import init_db_dir

from heartwheel.cli import main
from heartwheel.store.contents import Contents
from heartwheel.store.recovery_files import Recovery
from session_logic.keys import key_groups_of
from tests.support.broker import ROOT
from tests.support.flow import SETTINGS, history, run


def make(folder: Path, parts: int, polls: int) -> Path:
    """Make a store by a run that ends."""
    folder.mkdir()
    init_db_dir(folder, parts)
    run(history(polls), folder, [])
    return folder


class Command:
    """The heartwheel command, run in this process with settings of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture
        patch.setenv("HEARTWHEEL_HEARTBEAT_MS", "1000")
        patch.setenv("HEARTWHEEL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
        patch.setenv("HEARTWHEEL_HTTP_PORT", "0")
        patch.setenv("HEARTWHEEL_LOG_FORMAT", "text")

    def __call__(self, *arguments: object) -> tuple[int, str]:
        """Return exit code and output of a command line."""
        self._patch.setattr(sys, "argv", ["heartwheel", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = self._capture.readouterr()
        return int(end.value.code or 0), captured.out + captured.err

    def run(self, store: Path, lanes: int = 4) -> tuple[int, str]:
        """Start a run that would have no Kafka: a process of its own, as it takes over signals."""
        self._patch.setenv("HEARTWHEEL_RECOVERY_DIR", str(store))
        self._patch.setenv("HEARTWHEEL_LANES", str(lanes))
        done = subprocess.run(
            [sys.executable, "-m", "heartwheel.cli", "run"],
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def execute(part: Path, statement: str, *values: Any) -> None:
    """Change a part file."""
    with closing(sqlite3.connect(part)) as db, db:
        db.execute(statement, values)


def sink(key: str, *state: Any) -> Callable[[Path], None]:
    """Return what puts the state of a sink into a store."""
    statement = "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, 'heartwheel.sink', ?, 1, ?)"
    return lambda store: execute(store / "part-0.sqlite3", statement, key, pickle.dumps(state))


def active(store: Path) -> dict[str, str]:
    """Return the active session of each device in a store."""
    with Recovery(store) as recovery:
        contents = Contents(recovery, SETTINGS.rules())
        assert list(contents.faults()) == []
        lanes = [contents.restore(number)[0] for number in contents.states]
        return {
            session.device_id: session.session_id
            for lane in lanes
            for group in key_groups_of(lane.lane, lane.lanes)
            for session in lane.table.sessions(group)
            if not session.ended_ms
        }


def all_active(folders: list[Path]) -> dict[str, str]:
    """Return the active sessions of several stores."""
    return {device: session for one in folders for device, session in active(one).items()}
