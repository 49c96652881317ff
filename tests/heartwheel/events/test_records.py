"""Records that are read from a file of JSON lines."""

import io
import sys
from pathlib import Path

import pytest

from heartwheel.events import records
from heartwheel.events.records import SeenRecord, read_lines
from session_logic.errors import ConfigError


def lines(folder: Path, content: bytes, last: int = 20) -> list[SeenRecord]:
    """Return the records of a file with this content."""
    path = folder / "events.jsonl"
    path.write_bytes(content)
    return read_lines(str(path), last)


def test_each_line_is_a_record_named_by_its_number(tmp_path: Path) -> None:
    """Empty lines, other line ends and a byte order mark of the file are no part of any."""
    found = lines(tmp_path, b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"b":2}')
    assert [(one.name, one.value, one.key, one.time_ms) for one in found] == [
        ("line 1", b'{"a":1}', None, None),
        ("line 4", b'{"b":2}', None, None),
    ]


def test_last_lines_are_the_newest(tmp_path: Path) -> None:
    """As of a topic."""
    found = lines(tmp_path, b"".join(b'{"a":%d}\n' % n for n in range(100)), last=2)
    assert [one.name for one in found] == ["line 99", "line 100"]


def test_line_that_is_no_json_is_a_record_as_well(tmp_path: Path) -> None:
    """It is shown as what it would become."""
    assert [one.value for one in lines(tmp_path, b'{"a":1}\nno json\n')] == [b'{"a":1}', b"no json"]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program writes there."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a":1}\n')))
    (found,) = read_lines("-", 20)
    assert found.value == b'{"a":1}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: write one record in each line"),
        (b"\n \n", "is empty"),
        (b'{\n  "a": 1\n}\n', "`jq -c . FILE`"),
        (b'[{"a": 1}, {"a": 2}]', "`jq -c '.[]' FILE`"),
        (b"time,device\n1,2\n", "no line that is a JSON object"),
        ('{"a":"ü"}\n'.encode("latin-1"), "line 1: this is not UTF-8"),
        (b'{"a":1}\n\xff\n', "line 2: this is not UTF-8"),
        ('{"a":1}\n'.encode("utf-16"), "looks like UTF-16"),
        (b"\x1f\x8b\x08\x00\xff", "line 1: this is not UTF-8"),
        (b"[" * 10_000, "no line that is a JSON object"),
    ],
)
def test_file_without_json_lines_is_one_line_that_names_it(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match=r"events\.jsonl") as caught:
        lines(tmp_path, content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_without_line_ends_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of any size."""
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1_000)
    with pytest.raises(ConfigError, match="line 2: over "):
        lines(tmp_path, b"{}\n" + b"x" * 2_000)


@pytest.mark.parametrize("name", ["missing.jsonl", ""])
def test_file_that_cannot_be_opened_is_one_line(tmp_path: Path, name: str) -> None:
    """One that is not there, or is a folder."""
    with pytest.raises(ConfigError, match="cannot be read: "):
        read_lines(str(tmp_path / name), 20)
