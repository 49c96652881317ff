"""The stores of all shards of one run, which is stopped: what others are made of.

What shards share out is the state of the dead letters. A new store looks for those that were
written since the earliest moment of the stores that it comes from.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec import Struct

from dataflows.formats import (
    DEAD_LETTER_VERSION,
    DeadLetterState,
    read_dead_letters,
    read_waiting_letters,
    to_stored_letter,
)
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.shard import Shard
from heartwheel.store.contents import Contents
from heartwheel.store.identity import Identity, read_identity
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError
from session_logic.rules import Rules


class OldShard(Struct, frozen=True):
    """A store to take lanes from."""

    contents: Contents
    identity: Identity

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.contents.recovery.folder

    @property
    def shard(self) -> Shard:
        """Which one of how many it is."""
        return self.identity.layout.shard

    @property
    def letters(self) -> tuple[Any, ...] | None:
        """What it knows of the dead letters; None if nothing."""
        found = [e.value() for e in self.contents.step("sink") if e.key == DEAD_LETTER_KEY]
        return found[0] if found else None


def open_shards(opened: ExitStack, sources: list[Path], rules: Rules) -> list[OldShard]:
    """Return the stores of all shards of a run, each open alone as long as opened is.

    Raises StoreInUseError for one of a running shard, ConfigError for stores that do not belong
    together, SnapshotError for one that is damaged.
    """
    seen: dict[Path, Path] = {}
    for one in sources:
        if (place := one.resolve()) in seen:
            raise ConfigError(f"{seen[place]} and {one} are the same store: give each once")
        seen[place] = one
    old = [_open(opened.enter_context(Recovery(one, alone=True)), rules) for one in sources]
    _check(old)
    return old


def _open(recovery: Recovery, rules: Rules) -> OldShard:
    identity = read_identity(recovery)
    if identity is None or not identity.output_topic:
        raise ConfigError(f"{recovery.folder} was never run: start it once, or use a new directory")
    return OldShard(Contents(recovery, rules), identity)


def _check(old: list[OldShard]) -> None:
    """Raise ConfigError unless the stores are those of all shards of one run."""
    by_number: dict[int, OldShard] = {}
    first = old[0]
    for one in old:
        for what, mine, its in (
            ("has route", one.identity.layout.route, first.identity.layout.route),
            ("is of", f"{one.shard.shards} shards", f"{first.shard.shards} shards"),
            ("writes to", one.identity.output_topic, first.identity.output_topic),
            ("has", f"{one.contents.lanes} lanes", f"{first.contents.lanes} lanes"),
            ("has", _topics(one), _topics(first)),
            ("is", _generation(one), _generation(first)),
        ):
            if mine != its:
                msg = (
                    f"{one.folder} {what} {mine}, {first.folder} {what} {its}: give the stores of "
                    "one run, each as it is when its shard has last run with the same settings"
                )
                raise ConfigError(msg)
        other = by_number.setdefault(one.shard.number, one)
        if other is not one:
            raise ConfigError(f"{other.folder} and {one.folder} are both of shard {one.shard}")
    missing = [n for n in range(first.shard.shards) if n not in by_number]
    if missing:
        msg = f"the store of shard {Shard(missing[0], first.shard.shards)} is missing: give all"
        raise ConfigError(msg)
    for one in old:
        fault = next(one.contents.faults(), None)
        if fault is not None:
            raise SnapshotError(f"{fault}; see `heartwheel store check`")


def _topics(old: OldShard) -> str:
    topics = {entry.key.rpartition("/")[0] for entry in old.contents.step("source")}
    return f"offsets of {', '.join(sorted(topics)) or 'no topic'}"


def _generation(old: OldShard) -> str:
    return f"of resharding {old.identity.generation}"


def letters_of(shard: Shard, old: list[OldShard]) -> DeadLetterState | None:
    """Return what a new shard must know of the dead letters of those that it takes over from.

    None if there were none to be sent.
    """
    known = [one.letters for one in old if one.letters is not None]
    if not known:
        return None
    ends = [found for found in map(read_dead_letters, known) if found]
    # Where one of them does not say where it ended, all of the partition is read.
    both = set[int].intersection(*map(set, ends)) if ends else set[int]()
    waiting = [
        to_stored_letter(letter)
        for state in known
        for letter in read_waiting_letters(state)
        if shard.has(letter.partition)
    ]
    earliest = {number: min(found[number] for found in ends) for number in sorted(both)}
    return DEAD_LETTER_VERSION, earliest, waiting
