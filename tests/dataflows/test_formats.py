"""What is stored of a row is that row or an error, whatever a disk makes of it."""

import pickle
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NoReturn

import pytest

from dataflows.formats import ROW_VERSION, read_row, to_stored
from session_logic.codec import encode_entry, encode_sessions
from session_logic.errors import SnapshotError
from session_logic.events import Fact, JournalEntry, Watermark
from session_logic.journal import BaseRow, JournalRow, Row
from session_logic.rules import Session

T = 1_700_000_000_000
FACTS = [Fact(True, f"d{number}", f"s{number}", "pc", T + number) for number in range(3)]
SESSIONS = [Session(fact.device_id, fact.session_id, "pc", fact.time_ms) for fact in FACTS]
ENTRIES = [encode_entry(JournalEntry(Watermark(T), [fact])) for fact in FACTS]
ROWS: list[Row] = [
    BaseRow(1, 5, 3, encode_sessions(SESSIONS)),
    JournalRow(1, 66, 4, tuple(ENTRIES)),
]


class Plain(pickle.Unpickler):
    """Loads plain values only: who knows what other bits would call."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(module_name, global_name)


def with_another_bit(data: bytes) -> Iterator[bytes]:
    """Yield the bytes once for each of their bits, with that one changed."""
    for place in range(len(data)):
        for bit in range(8):
            yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def loaded(data: bytes) -> Any:
    """Return the value in a pickle, or None if there is none."""
    try:
        return Plain(BytesIO(data)).load()
    except Exception:  # noqa: BLE001  # damaged pickles raise anything
        return None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row)
def test_row_of_which_a_bit_has_changed_is_refused(row: Row) -> None:
    """Nowhere in it does another row come of that, with other sessions."""
    refused = 0
    for data in with_another_bit(pickle.dumps(to_stored(row))):
        value = loaded(data)
        if value is None:
            continue
        try:
            assert read_row(row.row, value) == row  # it was a bit that says nothing
        except SnapshotError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row)
def test_row_in_the_place_of_another_is_refused(row: Row) -> None:
    """By its name, though all of it is intact."""
    assert read_row(row.row, to_stored(row)) == row
    with pytest.raises(SnapshotError, match="it is not as it was stored"):
        read_row("base-007", to_stored(row))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row)
def test_row_of_before_there_were_checksums_is_read(row: Row) -> None:
    """Rows are written anew one after the other, and until then they are of version 1."""
    _, *stored, _ = to_stored(row)
    assert ROW_VERSION == 2
    assert read_row(row.row, (1, *stored)) == row  # type: ignore[arg-type]  # a row's tuple
