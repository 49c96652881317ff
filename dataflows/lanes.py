"""The sessions step: a lane of session_logic as Bytewax's stateful logic."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any

from bytewax.operators import StatefulBatchLogic
from msgspec import to_builtins

from dataflows.errors import lanes_mismatch
from dataflows.logs import log
from dataflows.messages import HOLD_EPOCHS, LaneBatch
from dataflows.metrics import MERGE_DURATION
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.settling import Settling
from dataflows.tick import Tick
from session_logic.clock import Progress
from session_logic.errors import RESTORE_COPY, SnapshotError, StateMismatchError
from session_logic.events import Fact
from session_logic.journal import Row
from session_logic.lane import Lane, LaneOutput
from session_logic.output import OutputBatch
from session_logic.restoring import LaneState, read_lane_state

# A tick grows by its base for each of these that all lanes together fire in one.
BUSY_RECORDS = 160
# What a lane's turn takes, from the wheel to Kafka's acknowledgement: as much as these.
TURN_RECORDS = 24
# A turn so long after the one before shows that this thread stood still, and took in no row either.
STILL_MS = 1_000

Emitted = OutputBatch | Row
StoredLane = list[Any]


class LaneLogic(StatefulBatchLogic[LaneBatch | Row, Emitted, StoredLane]):
    """Feeds a lane with what arrives and with the time; emits records and rows to store."""

    def __init__(self, settings: Settings, run: RunState, stored: StoredLane | None) -> None:
        """Make the logic of a key; a new one learns from its first item which lane it is."""
        self._settings = settings
        self._run = run
        self._clock = run.clock
        state = None if stored is None else read_lane_state(stored)
        self._lane = None
        if state is not None:
            self._lane = self._make(state.lane, state)
        self._waits_since_ms = self._turned_ms = run.elapsed_ms()
        self._tick = Tick(
            settings.tick_ms,
            settings.target_latency_ms,
            busy_work=max(1, BUSY_RECORDS // len(settings.own_lanes)),
            turn_work=TURN_RECORDS,
        )
        self._wake_ms: int | None = run.clock.now_ms()
        self._complete = False
        self._settling = Settling(settings.delivery_timeout_ms)
        if state is not None:
            self._settling.begin(run.clock.now_ms())  # the run before has left records unconfirmed
        # For how many more epochs an empty batch keeps the sink awake: a new lane must store its
        # start offset first. Any other may have other topics than before, which its sink must store
        # before any lane sends.
        self._hold_epochs = HOLD_EPOCHS
        self._kept_awake = False  # in this epoch

    def _make(self, number: int, state: LaneState | None) -> Lane:
        try:
            lane = Lane(
                number,
                self._settings.lanes,
                self._settings.rules(),
                state,
                self._clock.now_ms(),
                platforms=self._run.platforms,
                wants_silent_ends=True,
            )
        except StateMismatchError as error:
            raise lanes_mismatch(error) from None
        self._run.lanes[number] = lane
        return lane

    def on_batch(self, values: list[LaneBatch | Row]) -> tuple[list[Emitted], bool]:
        """Take in rows, then facts, then progress: it lets time pass, beyond these facts."""
        now = self._clock.now_ms()
        self._run.note_alive()
        if self._lane is None:
            self._lane = self._make(values[0].lane, None)
        lane = self._lane
        rows, facts, progress = _split(values)
        emitted = self._keep_sink_awake()
        emitted += self._learn_silent_ends(lane, now)
        for row in rows:
            emitted += self._restore(lane, row, now)
        if facts:
            begin_s = perf_counter()
            output = lane.apply(facts, now)
            if len(output.rows) > 1:  # the journal's, and a base
                MERGE_DURATION.observe(perf_counter() - begin_s)
            emitted += self._emitted(output, now)
        for report in progress:
            lane.update(report)
        self._schedule(lane, now, 0)
        return emitted, False

    def _restore(self, lane: Lane, row: Row, now: int) -> list[Emitted]:
        """Give the lane a row of the store, and return what it then owes."""
        self._waits_since_ms = self._turned_ms = self._run.elapsed_ms()
        return self._restored(lane, partial(lane.restore, row, now), now)

    def _learn_silent_ends(self, lane: Lane, now: int) -> list[Emitted]:
        """Tell the lane which ends for silence are out, once the sink has read that."""
        ends_ms = self._run.silent_ends(lane.lane) if lane.wants_silent_ends else None
        if ends_ms is None:
            return []
        return self._restored(lane, partial(lane.learn_silent_ends, ends_ms, now), now)

    def _restored(self, lane: Lane, give: Callable[[], LaneOutput], now: int) -> list[Emitted]:
        """Give a lane something that it waits for, and return what it then owes."""
        restoring = lane.restoring
        output = give()
        if restoring and not lane.restoring:
            log.info("restored", lane=lane.lane, sessions=lane.table.active)
            if lane.set_back_ms:
                log.warning(
                    "heartbeats are out up to a time that is ahead of this machine's clock: "
                    "it is behind, or was ahead in an earlier run",
                    lane=lane.lane,
                    ahead_s=round(lane.set_back_ms / 1000, 1),
                )
        return self._emitted(output, now)

    def on_notify(self) -> tuple[list[Emitted], bool]:
        """Fire what is due; raises SnapshotError if a row has not come within the limit."""
        now = self._clock.now_ms()
        self._run.note_alive()
        assert self._lane is not None
        lane = self._lane
        emitted = self._learn_silent_ends(lane, now)
        if lane.restoring and self._waits_too_long() and lane.missing_rows():
            msg = (
                f"recovery store, lane {lane.lane}: {', '.join(lane.missing_rows())} missing; "
                f"{RESTORE_COPY}"
            )
            raise SnapshotError(msg)
        output = lane.advance(now)
        emitted += self._emitted(output, now)
        emitted = emitted or self._keep_sink_awake()
        if not self._complete and output.records.complete_up_to_ms is not None:
            self._complete = True
            emitted = emitted or [output.records]
        if not emitted and self._settling.take(now):
            emitted = [OutputBatch([], [])]
        self._schedule(lane, now, output.records.count())
        return emitted, False

    def _emitted(self, output: LaneOutput, now: int) -> list[Emitted]:
        """Return what a lane gives out, in one list."""
        if not output.records:
            return list(output.rows)
        if output.records.rests_on_state:
            self._hold_epochs = HOLD_EPOCHS
        self._settling.begin(now)
        return [output.records, *output.rows]

    def _waits_too_long(self) -> bool:
        """Say whether no row has come for longer than one may take.

        None comes while what an earlier run has left in the output is read, which may take long.
        """
        now_ms = self._run.elapsed_ms()
        still_ms, self._turned_ms = now_ms - self._turned_ms, now_ms
        if still_ms > STILL_MS or self._run.waits_for_kafka():
            self._waits_since_ms += still_ms
        return now_ms - self._waits_since_ms > self._settings.restore_timeout_ms

    def on_eof(self) -> tuple[list[Emitted], bool]:
        """Write to the sink once more, so that its last snapshot has every acknowledgement."""
        return [OutputBatch([], [])], False

    def _keep_sink_awake(self) -> list[Emitted]:
        """Return an empty batch, once in each of the epochs in which a new lane's sink holds."""
        if self._kept_awake or not self._hold_epochs:
            return []
        self._hold_epochs -= 1
        self._kept_awake = True
        return [OutputBatch([], [])]

    def _schedule(self, lane: Lane, now: int, fired: int) -> None:
        """Wake at the next tick if anything can become due, at once if something is left."""
        if fired:
            self._tick.note_work(now, fired)
        if lane.behind(now) and lane.table.wheel:
            self._wake_ms = now
        elif lane.table.wheel or lane.resuming or self._hold_epochs:
            self._wake_ms = self._tick.next_ms(now)
        else:
            self._wake_ms = self._settling.due_ms

    def notify_at(self) -> datetime | None:
        """Return when to be woken next."""
        return None if self._wake_ms is None else self._clock.at_ms(self._wake_ms)

    def snapshot(self) -> StoredLane:
        """Return the lane's own state as plain values; its sessions are in the store."""
        assert self._lane is not None
        self._kept_awake = False
        self._run.epochs.note_all_ended(self._clock.now_ms())
        stored: StoredLane = to_builtins(self._lane.state())
        return stored


def _split(
    values: list[LaneBatch | Row],
) -> tuple[list[Row], list[Fact], list[Progress]]:
    """Return the rows, the facts and the progress of a batch, each in its order."""
    rows: list[Row] = []
    facts: list[Fact] = []
    progress: list[Progress] = []
    for value in values:
        if not isinstance(value, LaneBatch):
            rows.append(value)
            continue
        facts += value.facts
        if value.progress is not None:
            progress.append(value.progress)
    return rows, facts, progress


def lane_builder(settings: Settings, run: RunState) -> Callable[[StoredLane | None], LaneLogic]:
    """Return the builder for Bytewax."""
    run.platforms.know(platform for platform in settings.platforms.values() if platform)
    return lambda stored: LaneLogic(settings, run, stored)


def is_records(item: tuple[str, Emitted]) -> bool:
    """Say whether an item is for the sink."""
    return isinstance(item[1], OutputBatch)


def by_row(item: tuple[str, Emitted]) -> tuple[str, Row]:
    """Key a row by its name."""
    row = item[1]
    assert not isinstance(row, OutputBatch)
    return row.row, row
