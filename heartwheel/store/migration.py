"""The migration of a store: its sessions moved to another number of lanes."""

from pathlib import Path

from msgspec import to_builtins

from dataflows.messages import DEAD_LETTER_KEY, lane_key
from dataflows.store import Inbox
from heartwheel.store.contents import Contents
from heartwheel.store.copying import new_folder
from heartwheel.store.identity import Layout, may_have_sent_more
from heartwheel.store.new_parts import make_parts
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.values import Kept, write_values
from session_logic.errors import ConfigError, SnapshotError
from session_logic.move import Move
from session_logic.rules import Rules


def migrate_store(source: Path, target: Path, lanes: int, rules: Rules) -> int:
    """Write the sessions of a stopped store to a new one with other lanes; return how many.

    The new store has the source offsets and the state of the dead letters, but nothing of the
    output topic, because it writes to another one. Raises StoreInUseError for a running store,
    ConfigError if it was not stopped cleanly or the target exists, SnapshotError if it is damaged
    or the new store is not as it must be.
    """
    killed = was_killed(source)
    with new_folder(target) as folder:
        with Recovery(source, alone=True) as store:
            contents = Contents(store, rules)
            if contents.layout != Layout():
                msg = (
                    f"{source} has {contents.layout}: its devices are where their input partitions "
                    "are, and another number of lanes needs other input topics; see docs/shards.md"
                )
                raise ConfigError(msg)
            check_movable(contents, killed=killed)
            move, inbox, count = Move(lanes), Inbox(), 0
            for number in sorted(contents.states):
                lane, _ = contents.restore(number)
                count += len(lane.table.wheel)
                for row in move.take(lane):
                    inbox.put(row)
            kept: list[Kept] = [
                ("sessions", lane_key(state.lane), to_builtins(state)) for state in move.states()
            ]
            for step in ("source", "sink"):
                kept += [
                    (step, entry.key, entry.value())
                    for entry in contents.step(step)
                    if step == "source" or entry.key == DEAD_LETTER_KEY
                ]
            parts = len(store.parts)
        make_parts(folder, parts)
        write_values(folder, kept, inbox)
        check_moved(folder, rules, count)
    return count


def was_killed(folder: Path) -> bool:
    """Say whether a run has left a log beside its store; ask before that is opened.

    That is all that tells of a kill where the program was of an earlier version.
    """
    return any(log.stat().st_size for log in folder.glob("*.sqlite3-wal"))


def check_movable(contents: Contents, *, killed: bool) -> None:
    """Raise an error unless a store tells all of its run: ConfigError, SnapshotError for damage."""
    folder = contents.recovery.folder
    if not contents.states:
        msg = f"{folder} holds no sessions yet; set HEARTWHEEL_LANES and start with a new directory"
        raise ConfigError(msg)
    if any(state.moved_watermarks for state in contents.states.values()):
        msg = (
            f"{folder} was migrated and has not been run since: migrate the store that it was made "
            "from, or run it first"
        )
        raise ConfigError(msg)
    fault = next(contents.faults(), None)
    if fault is not None:
        raise SnapshotError(f"{fault}; see `heartwheel store check`")
    restoring = any(state.waiting for state in contents.states.values())
    if killed or may_have_sent_more(contents.recovery):
        why = "was killed, or a copy made while one went on: what it sent last is not known"
    elif restoring or contents.waiting():
        why = "ended before all that it has was sent"
    else:
        return
    msg = (
        f"{folder} is of a run that {why}; start it again, stop it with SIGTERM once it is ready, "
        "then give the command again"
    )
    raise ConfigError(msg)


def check_moved(folder: Path, rules: Rules, count: int) -> None:
    """Raise SnapshotError unless the new store is intact and has all of the sessions."""
    with Recovery(folder) as store:
        contents = Contents(store, rules)
        fault = next(contents.faults(), None)
        if fault is None:
            found = sum(len(contents.restore(n)[0].table.wheel) for n in contents.states)
            if found == count:
                return
            fault = f"it has {found} sessions, not {count}"
    msg = f"the migrated store is wrong and was removed: {fault}; keep the old one and report this"
    raise SnapshotError(msg)
