"""Who a store is: an id of its own, the output topic that it writes to, and notes about it.

They are in tables beside those of Bytewax, in the first part of the store. So they are in every
copy of it as well, and a copy is the same store at an earlier time. A store that does not have all
lanes, or devices by their partitions, has a third table that says so, and a version that programs
which know nothing of that refuse. One that was made by `heartwheel store reshard` has a fourth: the
stores that it comes from, which have written its output so far. A fifth has a row from when a run
takes the output topic until it has stopped cleanly: what is stored is all that was sent, or not.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from msgspec import Struct, convert
from msgspec.structs import replace

from dataflows.errors import make_room
from dataflows.shard import Shard, read_shard
from heartwheel.store.part_file import Part
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import RESTORE_COPY, SnapshotError, check_version
from session_logic.keys import Route

VERSION = 1
LAYOUT_VERSION = 2
RESHARDED_VERSION = 3
MADE_BY = "made by `heartwheel store reshard` of"
TABLES = (
    "CREATE TABLE IF NOT EXISTS heartwheel_identity (version INTEGER, id TEXT, output_topic TEXT)",
    "CREATE TABLE IF NOT EXISTS heartwheel_notes (noted_ms INTEGER, note TEXT)",
    "CREATE TABLE IF NOT EXISTS heartwheel_layout (route TEXT, shard TEXT)",
    "CREATE TABLE IF NOT EXISTS heartwheel_ancestors (id TEXT, generation INTEGER)",
    "CREATE TABLE IF NOT EXISTS heartwheel_running (since_ms INTEGER)",
)


class Layout(Struct, frozen=True):
    """Which devices a store has: by what they come to their lanes, and which lanes it has."""

    route: Route = "hash"
    shard: Shard = Shard()

    def __str__(self) -> str:
        """Return it in words."""
        lanes = "all lanes" if self.shard.shards == 1 else f"the lanes of shard {self.shard}"
        return f"route {self.route}, {lanes}"


class Identity(Struct, frozen=True):
    """A store by its id; output_topic is "" until the store has been run with one.

    ancestors has the stores that it was made of, and those that these were made of, each with its
    generation: how many reshardings there were before it.
    """

    id: str
    output_topic: str = ""
    layout: Layout = Layout()
    ancestors: dict[str, int] = {}

    @property
    def generation(self) -> int:
        """How many reshardings there were before this store."""
        return max(self.ancestors.values(), default=-1) + 1


class Note(Struct, frozen=True):
    """What was done to a store by hand, and when."""

    noted_ms: int
    note: str


def read_identity(recovery: Recovery) -> Identity | None:
    """Return who a store is, None for one of an earlier version.

    Raises SnapshotError if it cannot be read.
    """
    rows = _rows(recovery.parts[0], "SELECT version, id, output_topic FROM heartwheel_identity")
    if not rows:
        return None
    version, name, output_topic = rows[0]
    check_version("recovery store, identity", version, RESHARDED_VERSION)
    layout, ancestors, part = Layout(), {}, recovery.parts[0]
    if version >= LAYOUT_VERSION:
        layout = _layout(_rows(part, "SELECT route, shard FROM heartwheel_layout"))
    if version >= RESHARDED_VERSION:
        ancestors = dict(_rows(part, "SELECT id, generation FROM heartwheel_ancestors"))
    return Identity(name, output_topic, layout, ancestors)


def _layout(rows: list[Any]) -> Layout:
    try:
        ((route, shard),) = rows
        return Layout(convert(route, Route), read_shard(str(shard)))
    except ValueError:  # msgspec's is one
        msg = f"recovery store: the devices that it has cannot be read; {RESTORE_COPY}"
        raise SnapshotError(msg) from None


def read_notes(recovery: Recovery) -> list[Note]:
    """Return the notes, the oldest first."""
    rows = _rows(recovery.parts[0], "SELECT noted_ms, note FROM heartwheel_notes")
    return [Note(*row) for row in rows]


def made_ms(recovery: Recovery) -> int:
    """Return when a store was made of others; 0 if it was not."""
    notes = read_notes(recovery)
    return notes[0].noted_ms if notes and notes[0].note.startswith(MADE_BY) else 0


def may_have_sent_more(recovery: Recovery) -> bool:
    """Say whether a run has begun with a store, or with that which it is a copy of, and not ended.

    Earlier versions of the program leave nothing that tells.
    """
    query = "SELECT since_ms FROM heartwheel_running"
    return bool(_rows(recovery.parts[0], query, "heartwheel_running"))


def _rows(part: Part, query: str, table: str = "heartwheel_identity") -> list[Any]:
    known = part.rows("SELECT 1 FROM sqlite_master WHERE name = ?", table)
    return part.rows(query) if known else []


def identify(folder: Path) -> Identity:
    """Return who the store in a directory is; one that has no identity gets one.

    Raises SnapshotError if it cannot be read or written.
    """
    with Recovery(folder) as recovery:
        identity, part = read_identity(recovery), recovery.parts[0].path
    if identity is None:
        identity = Identity(uuid4().hex)
        _write(part, "INSERT INTO heartwheel_identity VALUES (?, ?, '')", VERSION, identity.id)
    return identity


def bind(folder: Path, identity: Identity, output_topic: str, layout: Layout) -> Identity:
    """Keep in the store which output topic it writes to, and how; return the identity with it."""
    part = _first(folder)
    if identity.layout != layout:
        _write(part, "DELETE FROM heartwheel_layout")
        _write(part, "INSERT INTO heartwheel_layout VALUES (?, ?)", layout.route, str(layout.shard))
        _write(part, "UPDATE heartwheel_identity SET version = MAX(version, ?)", LAYOUT_VERSION)
    if identity.output_topic != output_topic:
        _write(part, "UPDATE heartwheel_identity SET output_topic = ?", output_topic)
    return replace(identity, output_topic=output_topic, layout=layout)


def note_begin(folder: Path) -> None:
    """Note that a run may send what a store does not have; raises SnapshotError."""
    now_ms, none_there = int(time.time() * 1000), "NOT EXISTS (SELECT 1 FROM heartwheel_running)"
    _write(_first(folder), f"INSERT INTO heartwheel_running SELECT ? WHERE {none_there}", now_ms)


def note_clean_stop(folder: Path) -> None:
    """Note that a store has all that was sent; raises SnapshotError."""
    _write(_first(folder), "DELETE FROM heartwheel_running")


def _first(folder: Path) -> Path:
    with Recovery(folder) as recovery:
        return recovery.parts[0].path


def identify_resharded(folder: Path, identity: Identity, note: str) -> None:
    """Give a store that was just made of others its identity, and a note of what it is made.

    Raises sqlite3.Error if it cannot be written.
    """
    part = _first(folder)
    now_ms, version = int(time.time() * 1000), RESHARDED_VERSION
    note = f"{MADE_BY} {note}"
    layout, values = identity.layout, (identity.id, identity.output_topic)
    with closing(sqlite3.connect(part)) as db, db:
        _execute(db, "INSERT INTO heartwheel_identity VALUES (?, ?, ?)", version, *values)
        _execute(db, "INSERT INTO heartwheel_layout VALUES (?, ?)", layout.route, str(layout.shard))
        for ancestor, generation in identity.ancestors.items():
            _execute(db, "INSERT INTO heartwheel_ancestors VALUES (?, ?)", ancestor, generation)
        _execute(db, "INSERT INTO heartwheel_notes VALUES (?, ?)", now_ms, note)


def note_down(recovery: Recovery, note: str) -> None:
    """Note what was done to a store; it must be open alone, and is to be committed."""
    now_ms = int(time.time() * 1000)
    db = recovery.parts[0].db
    _execute(db, "INSERT INTO heartwheel_notes VALUES (?, ?)", now_ms, note)


def unbind(recovery: Recovery) -> None:
    """Let a store have another output topic; it must be open alone, and is to be committed."""
    _execute(recovery.parts[0].db, "UPDATE heartwheel_identity SET output_topic = ''")


def _execute(db: sqlite3.Connection, statement: str, *values: str | int) -> None:
    for table in TABLES:
        db.execute(table)
    db.execute(statement, values)


def _write(part: Path, statement: str, *values: str | int) -> None:
    try:
        with closing(sqlite3.connect(part)) as db, db:
            _execute(db, statement, *values)
    except sqlite3.Error as error:
        msg = f"{part} cannot be written ({error}); {make_room()}, or {RESTORE_COPY}"
        raise SnapshotError(msg) from None
