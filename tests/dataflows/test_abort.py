"""The dataflow under Bytewax, aborted and resumed at every position of a history."""

import pickle
import random
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from dataflows.messages import PartitionBatch
from dataflows.sessions import build_flow
from dataflows.settings import Settings
from session_logic import journal
from session_logic.clock import PartitionProgress
from session_logic.codec import decode_sessions, encode_output
from session_logic.events import Fact, OutputEvent, Watermark
from session_logic.keys import key_group_of, lane_of
from session_logic.output import OutputBatch
from tests.support.events import by_device, decoded
from tests.support.model import Model

# Few groups to a lane, and devices in all groups of two lanes: the journal's ring comes round.
LANES = 64
DEVICES = list(
    {
        key_group_of(name): name
        for name in map("d{}".format, range(3_000))
        if lane_of(key_group_of(name), LANES) in (5, 6)
    }.values()
)
SETTINGS = Settings(lanes=LANES, heartbeat_ms=1_000, max_session_ms=6_500, catch_up="all")
T = 1_700_000_000_000
STEP_MS = 700
FACTS = 40
# From here on, a merge and a heartbeat lie before the abort.
CROSSED = 8


def history() -> list[Fact]:
    """Return starts, ends and repetitions, one moment after the other."""
    choose = random.Random(3)
    active: dict[str, str] = {}
    facts = []
    for number in range(FACTS):
        device = choose.choice(DEVICES)
        session = active.get(device, f"s{number}")
        is_start = device not in active or choose.random() < 0.4
        if is_start and choose.random() < 0.8:
            session = f"s{number}"
        active[device] = session
        if not is_start:
            del active[device]
        facts.append(Fact(is_start, device, session, "pc", T + number * STEP_MS))
    return facts


def polls() -> list[PartitionBatch]:
    """Return the history as polls of a partition that is behind, so that time is the log's."""
    made = []
    for offset, fact in enumerate(history()):
        kind = "GameStart" if fact.is_start else "GameEnd"
        value = (
            f'{{"type":"{kind}","device_id":"{fact.device_id}","session_id":"{fact.session_id}"}}'
        )
        message = (offset, fact.time_ms, fact.device_id.encode(), value.encode(), True)
        made.append(
            PartitionBatch("t", 0, "pc", [message], PartitionProgress("t/0", 1, fact.time_ms))
        )
    return made


def expected() -> dict[str, list[OutputEvent]]:
    """Return what the model makes of the history, up to its last moment."""
    model, facts = Model(SETTINGS.rules()), history()
    events = [event for fact in facts for event in model.apply(fact, Watermark(-1))]
    events += model.advance(-1, facts[-1].time_ms, newest_only=False)
    return by_device(events)


def run(items: list[Any], folder: Path) -> list[OutputEvent]:
    """Run the flow over the items once, with an epoch for each; return what is sent."""
    out: list[Any] = []
    flow = build_flow(TestingSource(items), TestingSink(out), SETTINGS)
    run_main(
        flow,
        epoch_interval=timedelta(0),
        recovery_config=RecoveryConfig(folder, backup_interval=timedelta(0)),
    )
    return [event for _, item in out if isinstance(item, OutputBatch) for event in decoded(item)]


def merged(folder: Path) -> int:
    """Return how many sessions are stored in bases."""
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as store:
        rows = store.execute("SELECT ser_change FROM snaps WHERE state_key LIKE 'base-%'")
        return sum(len(decode_sessions(pickle.loads(row)[5])) for (row,) in rows)  # noqa: S301


def once(events: list[OutputEvent]) -> list[OutputEvent]:
    """Drop what was sent again after the abort."""
    return list({encode_output(event): event for event in events}.values())


def test_history_has_every_kind_of_record() -> None:
    """The history that is aborted everywhere leaves no rule out."""
    events = [event for found in expected().values() for event in found]
    kinds = {(type(event).__name__, getattr(event, "reason", "")) for event in events}
    assert kinds == {
        ("SessionActive", ""),
        ("Heartbeat", ""),
        ("SessionEnd", "ended"),
        ("SessionEnd", "replaced"),
        ("SessionEnd", "timed_out"),
    }


@pytest.mark.parametrize(
    "position",
    [pytest.param(n, marks=[pytest.mark.slow] * (n % 3 > 0)) for n in range(FACTS + 1)],
)
def test_abort_anywhere_then_resume_sends_what_the_model_says(
    position: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs together send each record of the model, and no other, device by device in order."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)  # a segment, and so a merge, for every call
    init_db_dir(tmp_path, 1)
    items: list[Any] = polls()
    items.insert(position, TestingSource.ABORT())
    first = run(items, tmp_path)
    crossed = merged(tmp_path), sum(type(event).__name__ == "Heartbeat" for event in first)
    assert (position < CROSSED) or all(crossed), crossed
    got = by_device(once(first + run(items, tmp_path)))
    for device, want in expected().items():
        left = want[len(got[device]) :]
        assert got[device] + left == want
        # The run may end before the last turn of the wheel, but not before an earlier one.
        assert all(event.time_ms > T + (FACTS - 3) * STEP_MS for event in left)
    assert got.keys() == expected().keys()
