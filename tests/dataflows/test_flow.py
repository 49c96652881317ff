"""The dataflow under Bytewax, with a testing source and sink."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from dataflows.errors import unwrap_error
from dataflows.messages import DeadLetter, PartitionBatch
from dataflows.run_state import RunState
from dataflows.sessions import build_flow
from dataflows.settings import Settings
from session_logic import journal
from session_logic.clock import PartitionProgress
from session_logic.keys import key_group_of, lane_of
from session_logic.output import OutputBatch
from tests.support.events import decoded
from tests.support.flow import LANES, SETTINGS, T, history, message, run, sent
from tests.support.waiting import wait_for


class _Endless(StatefulSourcePartition[PartitionBatch, None]):
    """Starts a session and then says nothing more, until the run is stopped."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._batches = history(1)

    def next_batch(self) -> list[PartitionBatch]:
        if self._state.stop.is_set() and not self._batches:
            raise StopIteration
        batches, self._batches = self._batches, []
        return batches

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + timedelta(milliseconds=5)

    def snapshot(self) -> None:
        return None


class EndlessSource(FixedPartitionedSource[PartitionBatch, None]):
    """Input that ends when its run is stopped, as that from Kafka does."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def list_parts(self) -> list[str]:
        return ["t/0"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Endless:
        return _Endless(self._state)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a recovery directory with one partition."""
    init_db_dir(tmp_path, 1)
    return tmp_path


def test_lanes_get_their_devices_and_rejected_input_goes_apart(folder: Path) -> None:
    """A record's key is its lane; a dead letter keeps its bytes."""
    bad = (0, T, b"k", b"\x00\xff")
    polls = [
        PartitionBatch(
            "t", 3, "pc", [bad, *(message(n + 1, "Start", f"d{n}", "s") for n in range(20))], None
        )
    ]
    out: list[Any] = []
    run(polls, folder, out)
    letters = [item for _, item in out if isinstance(item, DeadLetter)]
    assert [(x.topic, x.partition, x.message, x.reason) for x in letters] == [
        ("t", 3, bad, "not_json")
    ]
    for key, item in out:
        if isinstance(item, OutputBatch):
            for event in decoded(item):
                assert key == f"lane-{lane_of(key_group_of(event.device_id), LANES):03}"


def test_backlog_in_one_poll_gives_no_heartbeat_after_an_end(folder: Path) -> None:
    """What a poll says of the time holds after its messages.

    It is a new lane that catches up: of the heartbeats of then only the newest is sent.
    """
    some = [message(0, "Start", "d", "s1"), message(3, "End", "d", "s1")]
    last = message(60, "Start", "d", "s2")
    out: list[Any] = []
    run(
        [PartitionBatch("t", 0, "pc", [*some, last], PartitionProgress("t/0", 1, last[1]))],
        folder,
        out,
    )
    first = [e for e in sent(out) if e.session_id == "s1"]
    assert [e.time_ms - T for e in first] == [0, 3_000, 3_000]


def test_stored_keys_stay_few_whatever_the_number_of_devices(folder: Path) -> None:
    """Bytewax walks all stored keys at every epoch: there are at most 5,000."""

    def polls() -> Iterator[PartitionBatch]:
        for part in range(20):
            yield PartitionBatch(
                "t",
                0,
                "pc",
                [message(part * 1000 + n, "Start", f"d{part}-{n}", "s") for n in range(1000)],
                None,
            )

    run(list(polls()), folder, [])
    with sqlite3.connect(folder / "part-0.sqlite3") as store:
        (count,) = store.execute(
            "SELECT COUNT(DISTINCT step_id || state_key) FROM snaps"
        ).fetchone()
    assert 10 < count < 5_000
    assert len(journal.row_names()) < 1_000


def test_other_number_of_lanes_is_refused_with_what_to_do(folder: Path) -> None:
    """What fixes stored state is checked at start."""
    run(history(10), folder, [])
    flow = build_flow(TestingSource([]), TestingSink([]), Settings(lanes=2))
    with pytest.raises(Exception) as error:  # noqa: PT011  # Bytewax wraps it
        run_main(
            flow,
            epoch_interval=timedelta(0),
            recovery_config=RecoveryConfig(folder, backup_interval=timedelta(0)),
        )
    known = str(unwrap_error(error.value))
    assert "HEARTWHEEL_LANES is 2, but the recovery store was made for 4" in known


@pytest.mark.parametrize("like", ["base-%", "journal-%"])
def test_lost_row_is_named_in_the_error(
    like: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is gone stops the flow with its name, never loses a session in silence."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 150)
    run(history(40), folder, [])
    with sqlite3.connect(folder / "part-0.sqlite3") as store:
        store.execute(
            "DELETE FROM snaps WHERE step_id LIKE '%store%' AND state_key LIKE ?", (like,)
        )
    store.close()
    settings = Settings(lanes=LANES, restore_timeout_ms=200)
    live = PartitionBatch("t", 0, "pc", [], PartitionProgress("t/0", 1, None))
    waits = [live, *(TestingSource.PAUSE(timedelta(milliseconds=100)) for _ in range(20))]
    flow = build_flow(TestingSource([*history(40), *waits]), TestingSink([]), settings)
    with pytest.raises(Exception) as error:  # noqa: PT011  # Bytewax wraps it
        run_main(
            flow,
            epoch_interval=timedelta(milliseconds=20),
            recovery_config=RecoveryConfig(folder, backup_interval=timedelta(0)),
        )
    known = str(unwrap_error(error.value))
    assert "missing" in known
    assert like[:4] in known


def test_two_runs_in_one_process_share_neither_stop_nor_lanes() -> None:
    """When one is stopped, the other goes on."""
    states = [RunState(), RunState()]
    outs: list[list[Any]] = [[], []]
    threads = []
    for state, out in zip(states, outs, strict=True):
        flow = build_flow(EndlessSource(state), TestingSink(out), SETTINGS, state)
        threads.append(Thread(target=run_main, args=(flow,), daemon=True))
        threads[-1].start()
        wait_for(lambda state=state: bool(state.lanes))
    states[0].stop.set()
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert [state.stop.is_set() for state in states] == [True, False]
    turned_ms = max(states[1].turned_ms.values())
    wait_for(lambda: max(states[1].turned_ms.values()) > turned_ms)
    (first, second) = (list(state.running_lanes()) for state in states)
    assert [lane.lane for lane in first] == [lane.lane for lane in second]
    assert first[0] is not second[0]
    states[1].stop.set()
    threads[1].join(30)
    assert [len(sent(out)) for out in outs] == [1, 1]
