"""What is amiss in the topics for consumers is found, and what may be there is not."""

from pathlib import Path

import pytest
from msgspec.json import encode
from msgspec.structs import replace

from heartwheel.recording.comparison import Comparison
from heartwheel.recording.format import Line
from heartwheel.recording.progress import read_progress
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import replay, replay_settings
from session_logic.codec import decode_summary
from tests.support.recordings import lines_of, path_of, rewrite, write

APART = ["presence", "topics-apart"]
LAST_MS = 50


def differing(recording: Recording) -> set[str]:
    """Return the names of what differs between a recording and its replay."""
    progress = read_progress(recording)
    comparison = Comparison(recording, progress, LAST_MS)
    until_ms = progress.written_ms + LAST_MS
    replay(recording, replay_settings(recording, {}), comparison.take, until_ms)
    return {difference.title for difference in comparison.finish()}


def places(recording: Recording, lines: list[Line], setting: str) -> list[int]:
    """Return where the records of a topic are."""
    topic = recording.settings[setting]
    return [at for at, line in enumerate(lines) if line.topic == topic]


def changes_of(lines: list[Line], at: int) -> list[list[Line]]:
    """Return a summary lost, twice, twice later, of another device, or with another content."""
    line = lines[at]
    end = decode_summary((line.value or "").encode())
    others = [
        replace(line, key=f"{line.key}x"),
        *(
            replace(line, value=encode(other).decode())
            for other in (
                replace(end, ended_ms=end.ended_ms + 1),
                replace(end, duration_ms=end.duration_ms + 1),
                replace(end, reason="timed_out"),
                replace(end, session_id=f"{end.session_id}x"),
                replace(end, started_ms=end.started_ms - 1),
                replace(end, platform="x"),
            )
        ),
    ]
    return [
        [*lines[:at], *lines[at + 1 :]],
        [*lines[:at], line, *lines[at:]],
        [*lines, line],
        *([*lines[:at], other, *lines[at + 1 :]] for other in others),
    ]


@pytest.mark.parametrize("name", APART)
def test_every_change_of_a_recorded_summary_is_found(name: str, tmp_path: Path) -> None:
    """Lost, twice, of another device or with another content: its device is named."""
    recording = Recording(path_of(name))
    lines = lines_of(recording)
    found = 0
    for at in places(recording, lines, "summary_topic"):
        for made in changes_of(lines, at):
            names = differing(rewrite(recording, tmp_path / "r", made))
            assert f"summary of {lines[at].key}" in names or f"summary of {lines[at].key}x" in names
            found += 1
    assert found >= 27


@pytest.mark.parametrize("name", APART)
def test_wrong_newest_row_is_found_and_rows_that_come_again_are_not(
    name: str, tmp_path: Path
) -> None:
    """A lost start, a lost end and another session are; a crash repeats rows in their order."""
    recording = Recording(path_of(name))
    lines = lines_of(recording)
    rows = places(recording, lines, "table_topic")
    newest = {lines[at].key: at for at in rows}
    for key, at in newest.items():
        line = lines[at]
        value = None if line.value else '{"session_id":"x","platform":"pc","started_ms":0}'
        other = replace(line, value=value)
        made = [*lines[:at], other, *lines[at + 1 :]]
        assert differing(rewrite(recording, tmp_path / "r", made)) == {f"row of {key}"}
    again = [*lines, *(lines[at] for at in rows)]
    assert differing(rewrite(recording, tmp_path / "r", again)) == set()
    compacted = [line for at, line in enumerate(lines) if at not in rows or at in newest.values()]
    assert differing(rewrite(recording, tmp_path / "r", compacted)) == set()


@pytest.mark.parametrize("name", APART)
def test_lost_end_is_missed_by_its_summary_and_its_row_as_well(name: str, tmp_path: Path) -> None:
    """What consumers were told has nothing in the output that it follows from."""
    recording = Recording(path_of(name))
    lines = lines_of(recording)
    at = next(
        at
        for at in places(recording, lines, "output_topic")
        if lines[at].key == "c1" and '"SessionEnd"' in (lines[at].value or "")
    )
    names = differing(rewrite(recording, tmp_path / "r", [*lines[:at], *lines[at + 1 :]]))
    assert {"c1", "summary of c1"} <= names


@pytest.mark.parametrize("setting", ["output_topic", "heartbeat_topic", "summary_topic"])
def test_topic_with_more_partitions_than_lanes_is_compared_as_the_others(
    tmp_path: Path, setting: str
) -> None:
    """Those beyond the lanes are empty, and the other topics do not have them."""
    recording = Recording(path_of("topics-apart"))
    head = recording.manifest.preface
    more = {f"{recording.settings[setting]}/{number}": 0 for number in (4, 5)}
    assert not more.keys() & head.starts.keys()
    head = replace(head, starts=head.starts | more)
    lines = lines_of(recording)
    changed = write(tmp_path / "changed", head, lines, recording.manifest.complete_ms)
    assert more.keys() <= changed.manifest.partitions.keys()
    assert differing(changed) == set()
