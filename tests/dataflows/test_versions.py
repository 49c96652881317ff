"""Stored state of every version: the old ones load, an unknown newer one is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import UNSET

from dataflows.formats import (
    APART_VERSION,
    DEAD_LETTER_VERSION,
    ROW_VERSION,
    SOURCE_VERSION,
    read_dead_letters,
    read_outbox,
    read_position,
    read_row,
)
from heartwheel.store.contents import Contents
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.summary import summarize
from session_logic.errors import SnapshotError
from session_logic.events import SessionEnd
from session_logic.restoring import CARRYING_VERSION, LISTENING_VERSION, read_lane_state
from tests.support.fixture_stores import FOLDER, POLLS
from tests.support.flow import SETTINGS, history, run, sent
from tests.support.stores import active

STATES, ROWS = (sorted(FOLDER.glob(f"{kind}-*.sqlite3")) for kind in ("state", "rows"))


def test_every_version_has_a_fixture() -> None:
    """A new version of a lane's state, or of rows, comes with a store that has it."""
    assert [part.stem for part in STATES] == [f"state-{n}" for n in range(1, LISTENING_VERSION + 1)]
    assert [part.stem for part in ROWS] == [f"rows-{n}" for n in range(2, ROW_VERSION + 1)]


@pytest.mark.parametrize("part", [*STATES, *ROWS], ids=lambda part: part.stem)
def test_store_of_a_version_has_its_sessions_and_goes_on(part: Path, tmp_path: Path) -> None:
    """A run resumes from it, and what it ends are the sessions that were stored."""
    shutil.copy(part, tmp_path / "part-0.sqlite3")
    want = json.loads(part.with_suffix(".json").read_text())
    with Recovery(tmp_path) as recovery:
        summary = summarize(Contents(recovery, SETTINGS.rules()))
    state, rows = (
        (LISTENING_VERSION, int(part.stem[-1])) if part in ROWS else (int(part.stem[-1]), 1)
    )
    assert (summary.state_versions, summary.row_versions) == ([state], [rows])
    assert active(tmp_path) == want
    out: list[object] = []
    run(history(POLLS + 20), tmp_path, out)
    first_end: dict[str, SessionEnd] = {}
    for event in sent(out):
        if isinstance(event, SessionEnd) and event.device_id in want:
            first_end.setdefault(event.device_id, event)
    ended = {device: event.session_id for device, event in first_end.items()}
    assert ended == {device: want[device] for device in first_end} != {}
    carries = summary.state_versions >= [CARRYING_VERSION]
    assert any(event.context is not UNSET for event in first_end.values()) is carries
    assert active(tmp_path) != want


NEWER: dict[str, Callable[[], object]] = {
    "lane": lambda: read_lane_state([LISTENING_VERSION + 1, 4, 0, 0, [0, {}]]),
    "source": lambda: read_position("t/0", (SOURCE_VERSION + 1, 0, "", "", 0)),
    "row": lambda: read_row("base-000", (ROW_VERSION + 1, "base", 0, 0, 0, b"\x90")),
    "sink": lambda: read_outbox(0, (APART_VERSION + 1, 0, [], [], 0, {})),
    "dead letters": lambda: read_dead_letters((DEAD_LETTER_VERSION + 1, {})),
}


@pytest.mark.parametrize("name", NEWER)
def test_newer_version_is_refused(name: str) -> None:
    """An older program does not guess at what a newer one has stored."""
    with pytest.raises(SnapshotError, match="is newer than this program knows"):
        NEWER[name]()
