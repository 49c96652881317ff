"""Stores with a fault inside: a row that is lost, changed or of another kind."""

import os
import pickle
import random
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from heartwheel.store.contents import Contents
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.summary import summarize
from session_logic.codec import encode_sessions
from session_logic.errors import HeartwheelError
from session_logic.keys import key_group_of
from session_logic.restoring import LISTENING_VERSION
from session_logic.rules import Session
from tests.support.flow import SETTINGS
from tests.support.stores import Command, execute, sink


def change(store: Path, like: str, new: Callable[[Any], Any]) -> None:
    """Change every stored value whose key is like something."""
    for part in store.glob("*.sqlite3"):
        with closing(sqlite3.connect(part)) as db:
            rows = db.execute(
                "SELECT rowid, ser_change FROM snaps WHERE state_key LIKE ?", (like,)
            ).fetchall()
        for row, data in rows:
            value = new(pickle.loads(data))  # noqa: S301  # our own
            changed = value if isinstance(value, bytes) else pickle.dumps(value)
            execute(part, "UPDATE snaps SET ser_change = ? WHERE rowid = ?", changed, row)


def delete(like: str) -> Callable[[Path], None]:
    """Return what deletes every value whose key is like something."""

    def from_both(store: Path) -> None:
        for part in store.glob("*.sqlite3"):
            execute(part, "DELETE FROM snaps WHERE state_key LIKE ?", like)

    return from_both


def put(
    like: str, index: int, value: Any, before: Callable[[Any], Any] = lambda stored: stored
) -> Callable[[Path], None]:
    """Return what puts a value into the stored tuples whose key is like something.

    Before that they are made what before returns.
    """

    def into(stored: Any) -> Any:
        changed = [*before(stored)]
        changed[index] = value(changed[index]) if callable(value) else value
        return type(stored)(changed)

    return lambda store: change(store, like, into)


def put_in_old(like: str, index: int, value: Any) -> Callable[[Path], None]:
    """Return what puts a value into rows as version 1 stored them, which had no checksum."""
    return put(like, index, value, lambda row: (1, *row[1:-1]))


DEVICE = next(name for name in map("d{}".format, range(9_999)) if key_group_of(name) == 1)
TWO_ACTIVE = encode_sessions([Session(DEVICE, name, "pc", 1) for name in "st"])


OTHER_ROW = r"cannot be read \(it is not as it was stored\); restore an intact copy"


class Shell:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch harmed",)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lost base": (delete("base-002"), "lane 2: base-002 missing"),
    "lost journal": (delete("journal-066"), "lane 1: journal segment 1 missing"),
    "lost lane": (delete("lane-003"), "lane 3: its state is missing"),
    "lost lanes": (delete("lane-%"), "the state of its lane is missing"),
    "newer lane": (put("lane-001", 0, LISTENING_VERSION + 1), r"sessions lane-001 .* is newer"),
    "newer row": (put("base-001", 0, 3), r"store base-001 .* version 3 is newer"),
    "other lanes": (put("lane-001", 1, 8), r"lane-001 .* it is the state of lane 1 of 8"),
    "wrong lane": (put("lane-001", 2, 2), r"lane-001 .* it is the state of lane 2 of 4"),
    "row of another name": (put("base-001", 3, 5), f"base-001 .* {OTHER_ROW}"),
    "row of another lane": (put("base-001", 2, 2), f"base-001 .* {OTHER_ROW}"),
    "row of another segment": (put("journal-066", 4, 0), f"journal-066 .* {OTHER_ROW}"),
    "cut base": (put("base-002", 5, lambda blob: blob[:-1]), f"base-002 .* {OTHER_ROW}"),
    "cut entry": (
        put("journal-066", 5, lambda entries: (*entries[:-1], entries[-1][:-3])),
        f"journal-066 .* {OTHER_ROW}",
    ),
    "lost entry": (
        put("journal-066", 5, lambda entries: entries[1:]),
        f"journal-066 .* {OTHER_ROW}",
    ),
    "lost checksum": (
        lambda store: change(store, "base-001", lambda row: row[:-1]),
        "base-001 .* cannot be read",
    ),
    "old row of another name": (
        put_in_old("base-001", 3, 5),
        r"base-001 .* it holds row base-005 of lane 1",
    ),
    "old row of another lane": (
        put_in_old("base-001", 2, 2),
        r"base-001 .* it holds row base-001 of lane 2",
    ),
    "old cut base": (
        put_in_old("base-002", 5, lambda blob: blob[:-1]),
        "base-002 .* cannot be read",
    ),
    "old cut entry": (
        put_in_old("journal-066", 5, lambda entries: (*entries[:-1], entries[-1][:-3])),
        "journal-066 .* a journal entry cannot be read",
    ),
    "two active": (
        put_in_old("base-001", 5, lambda _: TWO_ACTIVE),
        "base-001 .* has 2 active sessions",
    ),
    "wrong group": (
        put_in_old("base-001", 5, lambda _: encode_sessions([Session("d0", "s", "pc", 1)])),
        "base-001 .* device d0 is of group",
    ),
    "no plain value": (lambda s: change(s, "base-001", lambda _: Shell()), "is no plain value"),
    "no pickle": (lambda store: change(store, "lane-002", lambda _: b"x"), "lane-002 .* cannot be"),
    "no row": (lambda store: change(store, "base-001", lambda _: None), "base-001 .* cannot be"),
    "newer sink": (sink("lane-001", 5, 7, [], []), "sink lane-001 .* version 5 is newer"),
    "newer letters": (sink("rejected", 4, {}, []), "sink rejected .* version 4 is newer"),
    "no sink": (sink("lane-001", 2), "sink lane-001 .* cannot be read"),
    "no letters": (sink("rejected", 2), "sink rejected .* cannot be read"),
    "no offset": (
        lambda store: change(store, "iterable", lambda _: "x"),
        "source iterable cannot be read",
    ),
    "newer source": (
        lambda store: change(store, "iterable", lambda _: (3, 1, "", "")),
        "source iterable: version 3 is newer",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_inside_a_store_is_a_line_with_file_and_row(
    name: str, store: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check finds it and nothing is run; inspect and migrate do not skip it."""
    monkeypatch.chdir(store.parent)
    do, text = FAULTS[name]
    do(store)
    code, output = command("store", "check", store)
    assert code == 1
    assert any(
        line.startswith(str(store)) and re.search(text, line) for line in output.splitlines()
    ), output
    assert "Traceback" not in output
    assert command("store", "migrate", store, store.parent / "new", "--lanes", 2)[0] != 0
    assert [p.name for p in store.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes_in_a_store_are_a_fault_or_none_but_no_crash(seed: int, store: Path) -> None:
    """Cut anywhere, or with a stretch of other bytes, a file never raises anything else."""
    chance = random.Random(seed)
    part = store / f"part-{chance.randrange(2)}.sqlite3"
    data = bytearray(part.read_bytes())
    at = chance.randrange(len(data))
    if seed % 3:
        data[at : at + 300] = chance.randbytes(len(data[at : at + 300]))
    else:
        del data[at:]
    part.write_bytes(data)
    try:
        with Recovery(store) as recovery:
            contents = Contents(recovery, SETTINGS.rules())
            faults = list(contents.faults())
            if not faults:
                summarize(contents)
    except HeartwheelError as error:
        faults = [str(error)]
    assert faults or seed % 3, "a cut file is always found"
    assert all(str(store) in fault for fault in faults)
