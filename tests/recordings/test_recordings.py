"""What real runs made of real topics is made of them again: replay testing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from heartwheel.cli import app
from heartwheel.recording.format import Line
from heartwheel.recording.reader import Recording
from session_logic.codec import encode_output
from session_logic.events import Heartbeat, SessionActive, SessionEnd
from tests.support.recordings import NAMES, event_of, is_output, lines_of, path_of, rewrite

# What each recording must have for the check to mean something.
REASONS = {"start": "replaced", "end": "ended", "timeout": "timed_out", "outage-all": "ended"}


def check(path: Path, *options: str) -> Result:
    """Replay and compare, with as good as nothing excused at the end."""
    arguments = ["replay", str(path), "--check", "--last-ms", "50", *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def counts_of(result: Result) -> dict[str, int]:
    """Return the numbers of the summary."""
    words = result.stdout.splitlines()[-1].partition("): ")[2].partition(" on ")[0]
    return {kind: int(count) for kind, count in (part.split() for part in words.split(", "))}


@pytest.mark.parametrize("name", NAMES)
def test_recorded_run_is_replayed_to_the_same_output(name: str) -> None:
    """Nothing is different; only an outage that sends the newest heartbeats has left some out."""
    result = check(path_of(name))
    assert result.exit_code == 0, result.stdout
    counts = counts_of(result)
    recording = Recording(path_of(name))
    settings = recording.settings
    letters = recording.manifest.partitions[f"{settings['dead_letter_topic']}/0"].records
    outputs = sum(is_output(recording, line) for line in lines_of(recording))
    by_clock = name == "bad-input"  # one of its dead letters is from the future
    assert counts["equal"] + counts["raced"] == outputs + letters - by_clock > 15
    assert (counts["raced"] > 0) == (name == "order")
    assert (counts["skipped"] > 0) == (name in {"history", "order", "outage-latest"})
    assert counts["unreached"] <= 8


@pytest.mark.parametrize("name", REASONS)
def test_suite_has_the_scenario_it_names(name: str) -> None:
    """The suite would not notice if a scenario were missing from its recording."""
    recording = Recording(path_of(name))
    events = [event_of(line) for line in lines_of(recording) if is_output(recording, line)]
    assert REASONS[name] in {e.reason for e in events if isinstance(e, SessionEnd)}
    assert max(e.sequence for e in events if isinstance(e, Heartbeat)) >= 5


def test_suite_is_there() -> None:
    """Every scenario, each kind of outage, bad input and facts out of order are recorded."""
    outages = ["history", "outage-all", "outage-latest"]
    assert sorted(["bad-input", "end", "heartbeat", "order", *outages, "start", "timeout"]) == NAMES


def first(lines: list[Line], recording: Recording, kind: type, device: str) -> int:
    """Return the index of the first record of a kind of a device."""
    return next(
        n
        for n, line in enumerate(lines)
        if is_output(recording, line) and line.key == device and type(event_of(line)) is kind
    )


def changed(lines: list[Line], at: int) -> None:
    """Change one recorded record."""
    event = event_of(lines[at])
    other = encode_output(type(event)(**{f: getattr(event, f) for f in event.__struct_fields__}
                                      | {"platform": "pc"}))  # fmt: skip
    line = lines[at]
    lines[at] = Line(line.topic, line.partition, 0, line.timestamp_ms, key=line.key,
                     value=other.decode())  # fmt: skip


def dropped(lines: list[Line], at: int) -> None:
    """Leave one out."""
    del lines[at]


def doubled(lines: list[Line], at: int) -> None:
    """Have one twice."""
    lines.insert(at, lines[at])


def doubled_at_end(lines: list[Line], at: int) -> None:
    """Have one again after all others of its partition."""
    last = max(n for n, line in enumerate(lines) if line.partition == lines[at].partition
               and line.topic == lines[at].topic)  # fmt: skip
    lines.insert(last + 1, lines[at])


def swapped(lines: list[Line], at: int) -> None:
    """Swap one with the next of its device."""
    other = next(n for n in range(at + 1, len(lines)) if lines[n].key == lines[at].key)
    lines[at], lines[other] = lines[other], lines[at]


@pytest.mark.parametrize("kind", [SessionActive, Heartbeat, SessionEnd])
@pytest.mark.parametrize("name", ["end", "order", "outage-latest", "outage-all"])
@pytest.mark.parametrize("plant", [changed, dropped, doubled, doubled_at_end, swapped])
def test_planted_difference_is_found_and_shown(
    plant: object, name: str, kind: type, tmp_path: Path
) -> None:
    """One record is enough, of any kind and under either policy; its device is named.

    A heartbeat without the end that it was sent with is taken for one of the wheel's: then there
    was no outage, and what it left out has no excuse.
    """
    if (plant, kind) == (swapped, SessionEnd):
        kind = SessionActive  # nothing follows this end that it could be swapped with
    recording = Recording(path_of(name))
    lines = lines_of(recording)
    at = first(lines, recording, kind, "c1")
    plant(lines, at)  # type: ignore[operator]
    rewrite(recording, tmp_path / "planted", lines)
    result = check(tmp_path / "planted")
    assert result.exit_code == 1, result.stdout
    assert result.stdout.startswith("c1: ")
    counts = counts_of(result)
    assert counts["differences"] > 0
    if (plant, name, kind) != (dropped, "outage-latest", SessionEnd):
        assert counts["differences"] <= 2
        assert "on 1 devices" in result.stdout
    if plant is not swapped:
        assert kind.__name__ in result.stdout


def test_lost_and_changed_dead_letters_are_found(tmp_path: Path) -> None:
    """Dead letters are compared byte by byte, each by the place of its input."""
    recording = Recording(path_of("bad-input"))
    lines = lines_of(recording)
    letters = [n for n, line in enumerate(lines) if line.topic.endswith("letters")]
    line = lines[letters[3]]
    lines[letters[3]] = Line(line.topic, 0, 0, line.timestamp_ms, key=line.key, value="other",
                             headers=line.headers)  # fmt: skip
    del lines[letters[1]]
    rewrite(recording, tmp_path / "planted", lines)
    result = check(tmp_path / "planted")
    assert result.exit_code == 1
    assert counts_of(result)["differences"] == 2
    assert result.stdout.count("dead letter of bad-input-") == 2


def test_show_limits_the_devices_shown(tmp_path: Path) -> None:
    """The first ones are shown, all are counted."""
    recording = Recording(path_of("end"))
    kept = [line for line in lines_of(recording) if not is_output(recording, line)]
    some = [line for line in lines_of(recording) if is_output(recording, line)]
    rewrite(recording, tmp_path / "planted", [*kept, *some[-1:]])
    result = check(tmp_path / "planted", "--show", "2")
    assert result.exit_code == 1
    assert result.stdout.count(" differences\n") == 2
    assert counts_of(result)["differences"] > 20
