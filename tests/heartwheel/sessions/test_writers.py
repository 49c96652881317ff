"""Sessions as files, read back by others' readers."""

import csv
import io
import json
import sys
from typing import Any

import pyarrow.parquet
import pytest
from msgspec import Raw, to_builtins

from heartwheel.sessions import writers
from heartwheel.sessions.shown import ShownSession
from heartwheel.sessions.writers import COLUMNS, WRITERS, Format, ParquetWriter
from session_logic.errors import ConfigError
from tests.support.serving import HOSTILE

PLAIN = ShownSession(
    device_id="d", lane=1, session_id="s", platform="pc", started_ms=5, next_heartbeat_ms=35,
    timeout_ms=99, as_of_ms=7,
)  # fmt: skip
CELLS = {
    "device_id": HOSTILE, "lane": 0, "session_id": 'a "b",\r\n', "platform": "pc;\t",
    "started_ms": 5, "next_heartbeat_ms": None, "timeout_ms": 99, "last_seen_ms": 6,
    "silent_ms": 16, "as_of_ms": 7, "context": '{"account":"\\u00e4","x":1.50}',
}  # fmt: skip
HARD = ShownSession(**CELLS | {"context": Raw(CELLS["context"].encode())})


def written(form: Format, *pieces: list[ShownSession]) -> bytes:
    file = io.BytesIO()
    writer = WRITERS[form](file)
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    return file.getvalue()


def test_columns_are_what_is_shown_of_a_session() -> None:
    """But for that it is active, which all of them are."""
    assert tuple(CELLS) == COLUMNS


def test_csv_is_read_back_whatever_an_id_has() -> None:
    """Quotes, separators and line breaks included; what is not there is empty."""
    text = written("csv", [PLAIN], [HARD]).decode()
    plain, hard = csv.DictReader(io.StringIO(text, newline=""))
    assert hard == {name: "" if cell is None else str(cell) for name, cell in CELLS.items()}
    assert (plain["device_id"], plain["next_heartbeat_ms"]) == ("d", "35")
    assert {plain[name] for name in ("last_seen_ms", "silent_ms", "context")} == {""}
    assert written("csv").decode() == ",".join(COLUMNS) + "\n"


def test_json_lines_are_those_of_a_listing() -> None:
    """One object a line, with what is carried as it came."""
    lines = written("jsonl", [PLAIN], [HARD]).splitlines()
    assert [json.loads(line)["device_id"] for line in lines] == ["d", HOSTILE]
    assert lines[1].endswith(b'"context":{"account":"\\u00e4","x":1.50}}')
    assert json.loads(lines[0]) == to_builtins(PLAIN)
    assert written("jsonl") == b""


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
def test_parquet_is_read_back_by_arrow(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In row groups of a size that does not grow with the file."""
    monkeypatch.setattr(writers, "GROUP_ROWS", rows)
    data = written("parquet", [PLAIN, HARD, PLAIN], [HARD] * 4)
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    assert file.metadata.num_row_groups == -(-7 // rows)
    found: list[dict[str, Any]] = file.read().to_pylist()
    assert found[1:2] + found[3:] == [CELLS] * 5
    assert found[0]["context"] is found[0]["silent_ms"] is None
    assert {str(field.type) for field in file.schema_arrow} == {"string", "int64"}


def test_parquet_of_no_session_is_a_table_without_rows() -> None:
    """A reader finds the columns all the same."""
    table = pyarrow.parquet.read_table(io.BytesIO(written("parquet")))
    assert (table.num_rows, tuple(table.column_names)) == (0, COLUMNS)


def test_parquet_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where pyarrow is not there."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'heartwheel\[parquet\]'"):
        ParquetWriter(io.BytesIO())
