"""What a recovery directory holds in the terms of Heartwheel: lanes, rows and their faults."""

from collections import Counter
from collections.abc import Iterable, Iterator

from dataflows.formats import read_row
from dataflows.messages import DEAD_LETTER_KEY, lane_key
from dataflows.shard import Shard
from dataflows.text import whole_number
from heartwheel.store.identity import Identity, read_identity
from heartwheel.store.part_file import Entry
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.sinks import read_sink
from heartwheel.store.sources import read_source
from session_logic.codec import decode_entry, decode_sessions
from session_logic.errors import RESTORE_COPY, HeartwheelError, SnapshotError
from session_logic.journal import BaseRow, Row, lane_of_row
from session_logic.keys import KEY_GROUPS, LaneKeys, Route, key_group_of, lane_may_have, lane_of
from session_logic.lane import Lane
from session_logic.restoring import LaneState, check_state, read_lane_state
from session_logic.rules import Rules

FLOW = "heartwheel"
STEPS = ("source", "restored", "sessions", "sink", "store")


class Contents:
    """The lanes of an open recovery directory, each restored from it as by a run."""

    def __init__(self, recovery: Recovery, rules: Rules) -> None:
        """Read the states of the lanes.

        Each lane is restored by its own rules; where a store of an earlier version does not have
        them, by these.

        Raises SnapshotError if it is a store of another dataflow.
        """
        self.recovery = recovery
        self._rules = rules
        self._entries = recovery.entries()
        for entry in self._entries.values():
            if entry.step not in {f"{FLOW}.{step}" for step in STEPS}:
                msg = f"{entry.where} is of another dataflow; give the directory of Heartwheel"
                raise SnapshotError(msg)
        self.layout = (read_identity(recovery) or Identity("")).layout
        states, self.state_faults = lane_states(self.step("sessions"))
        self.states = {state.lane: state for state in states}

    def step(self, name: str) -> list[Entry]:
        """Return the entries of a step, by key."""
        return sorted(
            (entry for entry in self._entries.values() if entry.step == f"{FLOW}.{name}"),
            key=lambda entry: entry.key,
        )

    def waiting(self) -> int:
        """Count the records of lanes that Kafka has not acknowledged as far as the store knows.

        Dead letters are not among them: they are stored only when one comes, so they may be there
        still when Kafka has long had them. The next start finds those by their names.
        """
        return sum(
            read_sink(entry).waiting for entry in self.step("sink") if entry.key != DEAD_LETTER_KEY
        )

    @property
    def lanes(self) -> int:
        """The number of lanes; 0 if nothing has been stored yet."""
        return next((state.lanes for state in self.states.values()), 0)

    @property
    def own_lanes(self) -> range:
        """The numbers of the lanes that the store must have."""
        return self.layout.shard.of(self.lanes)

    def rows(self, lane: int) -> list[Entry]:
        """Return the entries of the rows of a lane."""
        return [entry for entry in self.step("store") if self.lane_of(entry) == lane]

    def lane_of(self, entry: Entry) -> int:
        """Return the lane of a row by its name, or -1."""
        try:
            return lane_of_row(entry.key, self.lanes)
        except (ValueError, ZeroDivisionError):
            return -1

    def row(self, entry: Entry) -> Row:
        """Return the row of an entry; raises SnapshotError if it is not in its place."""
        try:
            row = read_row(entry.key, entry.value())
            _check_row(row, entry.key, self.lanes, self.layout.route)
        except HeartwheelError:
            raise
        except Exception as error:  # noqa: BLE001  # garbage raises anything
            raise SnapshotError(f"{type(error).__name__}: {error}") from None
        return row

    def rules_of(self, lane: int) -> Rules:
        """Return the rules by which a lane went."""
        return self.states[lane].rules_or(self._rules)

    def restore(self, lane: int) -> tuple[Lane, list[str]]:
        """Return a lane restored from the store, and what is wrong with its rows."""
        restored = Lane(lane, self.lanes, self.rules_of(lane), self.states[lane])
        faults = []
        for entry in self.rows(lane):
            try:
                restored.restore(self.row(entry), restored.watermark_ms)
            except HeartwheelError as error:
                faults.append(f"{entry.where}: {error}")
            except Exception as error:  # noqa: BLE001  # garbage raises anything
                faults.append(f"{entry.where}: {type(error).__name__}: {error}")
        faults += [
            f"{self.recovery.folder}: lane {lane}: {name} missing"
            for name in restored.missing_rows()
        ]
        return restored, faults

    def faults(self) -> Iterator[str]:
        """Yield a line for everything that is wrong, in files, states and rows."""
        yield from self.recovery.faults()
        yield from self.state_faults
        yield from strangers(self._entries.values(), self.layout.shard)
        for lane in self.own_lanes:
            if lane in self.states:
                yield from self.restore(lane)[1]
            else:
                yield f"{self.recovery.folder}: lane {lane}: its state is missing"
        for entry in self.step("store"):
            if self.lane_of(entry) not in self.states:
                yield f"{entry.where}: the state of its lane is missing"
        for entry in [*self.step("source"), *self.step("sink")]:
            try:
                if entry.step.endswith("sink"):
                    read_sink(entry)
                else:
                    read_source(entry)
            except HeartwheelError as error:
                yield f"{entry.where}: {error}"


def partition_of(entry: Entry) -> int:
    """Return the partition that a value is of, which its key ends with."""
    number = _partition(entry)
    if number is None:
        raise SnapshotError(f"{entry.where}: it is of no partition; see `heartwheel store check`")
    return number


def _partition(entry: Entry) -> int | None:
    sign = "/" if entry.step.endswith(".source") else "-"
    name, _, number = entry.key.rpartition(sign)
    return whole_number(number) if name else None


def strangers(entries: Iterable[Entry], shard: Shard) -> Iterator[str]:
    """Yield a line for each value that no run of a shard can have stored: of another's partition.

    Parts of the stores of several shards are in one directory then.
    """
    steps = {f"{FLOW}.{step}" for step in ("source", "sessions", "sink")}
    for entry in entries:
        if entry.step in steps and entry.key != DEAD_LETTER_KEY:
            number = _partition(entry)
            if number is not None and not shard.has(number):
                yield f"{entry.where}: it is of another shard than {shard}; {RESTORE_COPY}"


def lane_states(entries: list[Entry]) -> tuple[list[LaneState], list[str]]:
    """Return the states of the lanes that can be read, and what is wrong with the others."""
    states: list[LaneState] = []
    faults: list[str] = []
    for entry in entries:
        try:
            state = read_lane_state(entry.value())
            lanes = states[0].lanes if states else state.lanes
            if (
                entry.key != lane_key(state.lane)
                or state.lanes != lanes
                or not 0 <= state.lane < lanes <= KEY_GROUPS
            ):
                msg = f"it is the state of lane {state.lane} of {state.lanes}"
                raise SnapshotError(msg)
            check_state(state, lanes)
        except HeartwheelError as error:
            faults.append(f"{entry.where}: {error}")
        else:
            states.append(state)
    return states, faults


def _check_row(row: Row, name: str, lanes: int, route: Route) -> None:
    """Raise SnapshotError if a row, or a device in it, is in the wrong place."""
    if row.row != name or row.lane != lane_of_row(name, lanes):
        raise SnapshotError(f"it holds row {row.row} of lane {row.lane}")
    if isinstance(row, BaseRow):
        devices = [(session.device_id, session.ended_ms) for session in decode_sessions(row.blob)]
        for device_id, _ in devices:
            group = LaneKeys(row.lane, lanes).group_of(device_id)
            if group != row.group:
                raise SnapshotError(f"device {device_id} is of group {group}")
            _check_device(device_id, row.lane, lanes, route)
        active = Counter(device_id for device_id, ended_ms in devices if not ended_ms)
        for device_id, count in active.items():
            if count > 1:
                raise SnapshotError(f"device {device_id} has {count} active sessions")
        return
    for chunk in map(decode_entry, row.entries):
        for fact in chunk.facts:
            _check_device(fact.device_id, row.lane, lanes, route)


def _check_device(device_id: str, lane: int, lanes: int, route: Route) -> None:
    if not lane_may_have(device_id, lane, lanes, route):
        other = lane_of(key_group_of(device_id), lanes)
        raise SnapshotError(f"device {device_id} is of lane {other}")
