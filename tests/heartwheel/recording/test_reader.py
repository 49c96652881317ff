"""The file of a recording: cut, damaged or resumed anywhere, it is whole or says what is wrong."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from dataflows.settings import Settings
from heartwheel.recording import writer
from heartwheel.recording.format import FORMAT, TAIL, Header, Line, RecordingError
from heartwheel.recording.reader import Recording
from heartwheel.recording.writer import Writer
from heartwheel.text import text_or_bytes
from session_logic.errors import ConfigError
from tests.support.disk import fill, small_disk
from tests.support.recordings import BEGIN_MS, lines_of, path_of, preface, write

SETTINGS = Settings(heartbeat_ms=1_000)
BYTES = [None, b"", b"text", "é\n\0".encode(), bytes(range(256)), b"\xff"]


def some_lines(count: int) -> list[Line]:
    """Return records of two partitions."""
    return [
        Line("console-events", n % 2, n // 2, BEGIN_MS + n, key=f"c{n}", value="x" * (n % 7))
        for n in range(count)
    ]


def add(to: Writer, lines: list[Line]) -> None:
    """Add what the writer does not have yet, as the recorder does."""
    for line in lines:
        if line.offset > to.extents[f"{line.topic}/{line.partition}"].last:
            to.add(line)


def extents(recording: Recording) -> dict[str, tuple[int, int, int, str]]:
    """Return what the manifest tells of each partition."""
    partitions = recording.manifest.partitions.items()
    return {name: (some.records, some.first, some.last, some.sha256) for name, some in partitions}


@pytest.fixture
def _frames_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_BUFFER_BYTES", 300)


def test_any_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    """Key, value and headers that are missing, empty, text or no text."""

    def line(key: bytes | None, value: bytes | None) -> Line:
        key_text, key_base64 = text_or_bytes(key)
        value_text, value_base64 = text_or_bytes(value)
        return Line(
            "console-events",
            0,
            0,
            BEGIN_MS,
            timestamp_type="append",
            key=key_text,
            key_base64=key_base64,
            value=value_text,
            value_base64=value_base64,
            headers=[
                Header("name", value_text, value_base64),
                Header("name", key_text, key_base64),
            ],
        )

    lines = [line(key, value) for key in BYTES for value in BYTES]
    write(tmp_path / "r", preface(SETTINGS), lines, BEGIN_MS)
    back = lines_of(Recording(tmp_path / "r"))
    assert [(line.key_bytes(), line.value_bytes()) for line in back] == [
        (key, value) for key in BYTES for value in BYTES
    ]
    assert [line.header_bytes() for line in back] == [
        [("name", value), ("name", key)] for key in BYTES for value in BYTES
    ]
    assert {line.timestamp_type for line in back} == {"append"}


@pytest.mark.slow
@pytest.mark.usefixtures("_frames_of_few")
def test_recording_cut_anywhere_is_resumed_without_loss_or_double(tmp_path: Path) -> None:
    """Whatever a killed recorder has written, going on gives the same recording."""
    head, lines = preface(SETTINGS), some_lines(60)
    whole = write(tmp_path / "whole", head, lines, BEGIN_MS)
    data = whole.path.read_bytes()
    first = whole.manifest.chunks[0].at
    assert len(whole.manifest.chunks) > 10
    for size in (*range(first, len(data), 11), *range(len(data) - TAIL.size, len(data))):
        path = tmp_path / "cut"
        path.write_bytes(data[:size])
        with pytest.raises(RecordingError, match=f"{path} is not complete"):
            Recording(path)
        again = Writer(path, lambda: head, head.settings)
        add(again, lines)
        again.finish(BEGIN_MS)
        assert lines_of(Recording(path)) == lines_of(whole), size
        assert extents(Recording(path)) == extents(whole), size


@pytest.mark.usefixtures("_frames_of_few")
def test_damage_anywhere_is_one_error_that_names_the_file(tmp_path: Path) -> None:
    """A flipped bit is never read as if it were data."""
    whole = write(tmp_path / "whole", preface(SETTINGS), some_lines(30), BEGIN_MS)
    data, lines, manifest = whole.path.read_bytes(), lines_of(whole), whole.manifest
    path, errors = tmp_path / "damaged", []
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        try:
            recording = Recording(path)
            assert (recording.manifest, lines_of(recording)) == (manifest, lines), at
        except RecordingError as error:
            errors.append(str(error))
    assert len(errors) > len(data) * 0.3
    assert all(str(path) in error and "\n" not in error for error in errors)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x28\xb5\x2f\xfd", b"PAR1" * 100])
def test_other_file_is_refused_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    """What `record` has not made is neither read nor overwritten."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="is not a Heartwheel recording"):
        Recording(path)
    head = preface(SETTINGS)
    with pytest.raises(RecordingError, match="is not a Heartwheel recording"):
        Writer(path, lambda: head, head.settings)
    assert path.read_bytes() == content


def test_missing_file_and_folder_are_one_clear_error(tmp_path: Path) -> None:
    """There is nothing to read, and nowhere to write."""
    head = preface(SETTINGS)
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        Recording(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"cannot be made \(No such file.*name another file"):
        Writer(tmp_path / "no" / "where", lambda: head, head.settings)


def test_recording_on_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    """Nothing of it would be a recording."""
    head = preface(SETTINGS)
    with small_disk(tmp_path / "disk", 1) as disk:
        fill(disk)
        with pytest.raises(ConfigError, match=r"cannot be made \(No space.*make room on its disk"):
            Writer(disk / "r", lambda: head, head.settings)
        assert [one.name for one in disk.iterdir()] == ["ballast"]


def test_complete_used_and_other_recordings_are_not_gone_on_with(tmp_path: Path) -> None:
    """A second recorder, a complete file, or other settings are refused."""
    head = preface(SETTINGS)
    first = Writer(tmp_path / "r", lambda: head, head.settings)
    with pytest.raises(ConfigError, match="another `heartwheel record` writes to"):
        Writer(tmp_path / "r", lambda: head, head.settings)
    first.flush()
    first.close()
    other = preface(Settings(heartbeat_ms=2_000))
    with pytest.raises(ConfigError, match="begun with another heartbeat_ms"):
        Writer(tmp_path / "r", lambda: other, other.settings)
    shutil.copy(path_of("end"), tmp_path / "complete")
    with pytest.raises(ConfigError, match="is already complete"):
        Writer(tmp_path / "complete", lambda: head, Recording(path_of("end")).settings)


def test_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """A later version says so, before anything else is read."""
    head = replace(preface(SETTINGS), heartwheel_recording=FORMAT + 1, version="9.9")
    with pytest.raises(RecordingError, match=r"use Heartwheel 9\.9 or later"):
        Writer(tmp_path / "r", lambda: head, head.settings)


@pytest.mark.parametrize("setting", ["heartbeat_topic", "summary_topic", "table_topic"])
def test_recording_with_a_topic_apart_has_a_format_of_its_own(setting: str, tmp_path: Path) -> None:
    """Earlier programs refuse it, and it knows the topic; any other recording is as it was."""
    settings = replace(SETTINGS, **{setting: "apart"})
    recording = write(tmp_path / "r", preface(settings), [], BEGIN_MS)
    assert recording.manifest.preface.heartwheel_recording == FORMAT == 4
    assert recording.settings[setting] == "apart"
    names = ("heartbeat_topic", "summary_topic", "table_topic")
    assert sum(recording.settings[name] == "" for name in names) == 2
    assert len(recording.partitions(["apart"])) == SETTINGS.lanes
    before = write(tmp_path / "r", preface(SETTINGS), [], BEGIN_MS)
    assert before.manifest.preface.heartwheel_recording == 1
    assert setting not in before.manifest.preface.settings
    assert before.settings[setting] == ""
