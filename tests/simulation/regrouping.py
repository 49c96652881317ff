"""The stores of all shards of a simulation, regrouped for another number of shards or partitions.

The shards are stopped. Lanes stay whole where only the number of shards changes. Where partitions
were added, to twice as many, sessions are moved to the lanes that the senders' partitioner, which
is that of librdkafka (`consistent`), sends their devices to from now on.
"""

from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING
from msgspec import to_builtins

from dataflows.formats import (
    DEAD_LETTER_VERSION,
    Position,
    read_dead_letters,
    read_row,
    read_waiting_letters,
    source_state,
    to_stored,
    to_stored_letter,
)
from dataflows.messages import DEAD_LETTER_KEY, lane_key
from dataflows.shard import Shard
from session_logic.journal import lane_of_row
from session_logic.lane import Lane
from session_logic.move import Move
from session_logic.restoring import read_lane_state
from session_logic.rules import Rules
from tests.simulation.engine import Database

Values = dict[tuple[str, str], Any]
STEPS = ("source", "sessions", "sink", "store")


def stored_in(databases: Iterable[Database]) -> Values:
    """Return what all shards have stored, by step and key, with their dead letters as one."""
    values: Values = {}
    letters: list[Any] = []
    for database in databases:
        for step in STEPS:
            for key, value in database.load(step).items():
                if key == DEAD_LETTER_KEY:
                    letters.append(value)
                else:
                    assert (step, key) not in values, f"two shards have {step} {key}"
                    values[step, key] = value
    if letters:
        values["sink", DEAD_LETTER_KEY] = _joined(letters)
    return values


def _joined(letters: list[Any]) -> Any:
    """Return the dead letters as known to all, from the earliest moment of any."""
    ends = [read_dead_letters(one) for one in letters]
    numbers = set[int].intersection(*map(set, ends))
    earliest = {number: min(found[number] for found in ends) for number in sorted(numbers)}
    waiting = [to_stored_letter(one) for state in letters for one in read_waiting_letters(state)]
    return DEAD_LETTER_VERSION, earliest, waiting


def shared_out(values: Values, shard: Shard, lanes: int) -> Database:
    """Return the store of a new shard: what is stored of its lanes, with their dead letters."""
    own = shard.of(lanes)
    kept = {
        (step, key): value
        for (step, key), value in values.items()
        if key == DEAD_LETTER_KEY or lane_of(step, key, lanes) in own
    }
    if letters := kept.get(("sink", DEAD_LETTER_KEY)):
        waiting = [letter for letter in letters[2] if letter[1] in own]
        kept["sink", DEAD_LETTER_KEY] = (*letters[:2], waiting)
    database = Database()
    database.front = 1
    database.replace(kept)
    return database


def lane_of(step: str, key: str, lanes: int) -> int:
    """Return the lane that a value is of."""
    if step == "store":
        return lane_of_row(key, lanes)
    return int(key.rpartition("/" if step == "source" else "-")[2])


def moved(values: Values, lanes: int, topics: Iterable[str], rules: Rules) -> Values:
    """Return the stored values for twice as many lanes, of which the new ones have no output."""
    kept = {name: value for name, value in values.items() if name[0] in ("source", "sink")}
    for topic in topics:  # what is added is to be read whole
        for number in range(lanes, 2 * lanes):
            kept["source", f"{topic}/{number}"] = source_state(Position(OFFSET_BEGINNING))
    move = Move(2 * lanes)
    for (step, _), stored in values.items():
        if step == "sessions":
            for row in move.take(_restored(read_lane_state(stored).lane, values, lanes, rules)):
                kept["store", row.row] = to_stored(row)
    for state in move.states():
        kept["sessions", lane_key(state.lane)] = [*to_builtins(state), []]
    return kept


def _restored(number: int, values: Values, lanes: int, rules: Rules) -> Lane:
    state = read_lane_state(values["sessions", lane_key(number)])
    lane = Lane(number, lanes, state.rules_or(rules), state)
    for (step, key), stored in values.items():
        if step == "store" and lane_of_row(key, lanes) == number:
            lane.restore(read_row(key, stored), state.watermark_ms)
    assert not lane.restoring
    return lane
