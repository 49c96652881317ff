"""A replay gives what the slow model gives, however the recorded input is cut into batches."""

import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dataflows.decode import Decode
from dataflows.messages import DeadLetter, LaneBatch, PartitionBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from heartwheel.recording import replay as replays
from heartwheel.recording import writer
from heartwheel.recording.format import Line, RecordingError
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import replay, replay_settings
from session_logic.errors import ConfigError
from session_logic.events import OutputEvent, Watermark
from session_logic.output import OutputBatch
from session_logic.rules import LONGEST_MS
from tests.support.clocks import FixedClock
from tests.support.events import by_device, decoded
from tests.support.model import Model
from tests.support.recordings import BEGIN_MS, event_line, lines_of, path_of, preface, write

SETTINGS = Settings(
    heartbeat_ms=1_000, max_session_ms=20_000, deduplication_window_ms=3_000, catch_up="latest"
)


def history(seed: int, count: int = 400) -> list[Line]:
    """Return events of a few devices, some timestamped earlier than those before them."""
    rng, lines, time_ms = random.Random(seed), [], BEGIN_MS
    for _ in range(count):
        time_ms += rng.choice([0, 1, 7, 499, 500, 1_000, 1_001] + [30_000] * (rng.random() < 0.1))
        device = rng.choice("cp") + str(rng.randrange(6))
        late_ms = rng.choice([0, 0, 0, 1, 900, 5_000])
        kind, session = rng.choice(["Start", "End"]), f"s{rng.randrange(4)}"
        lines.append(event_line(device, kind, session, time_ms - late_ms))
    return lines


def replayed(recording: Recording, **changes: str) -> list[OutputEvent]:
    """Return what a replay gives."""
    events: list[OutputEvent] = []

    def take(item: OutputBatch | DeadLetter) -> None:
        assert isinstance(item, OutputBatch)
        events.extend(decoded(item))

    replay(recording, replay_settings(recording, changes), take)
    return events


def expected(recording: Recording, lines: list[Line], upto_ms: int) -> dict[str, list[Any]]:
    """Return what the model makes of the lines in their order, and of the time after them."""
    settings = replay_settings(recording, {})
    model, events = Model(settings.rules()), []
    decode = Decode(1, 10**13, RunState(FixedClock(upto_ms)))
    for line in lines:
        message = (0, line.timestamp_ms, line.key_bytes(), line.value_bytes(), True)
        platform = settings.input_topics[line.topic]
        for _, batch in decode([PartitionBatch(line.topic, 0, platform, [message], None)]):
            assert isinstance(batch, LaneBatch)
            events += [e for fact in batch.facts for e in model.apply(fact, Watermark(-1))]
    return by_device([*events, *model.advance(-1, upto_ms, newest_only=False)])


@pytest.mark.parametrize("batch", [1, 7, 2_000])
@pytest.mark.parametrize("seed", range(4))
def test_replay_gives_what_the_model_gives(
    seed: int, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per device and in order, with frames of any size, until the moment of the recording."""
    monkeypatch.setattr(replays, "BATCH_MESSAGES", batch)
    monkeypatch.setattr(writer, "MAX_BUFFER_BYTES", 3_000)
    lines = history(seed)
    upto_ms = max(line.timestamp_ms for line in lines) + 7_500
    recording = write(tmp_path / "r", preface(SETTINGS), lines, upto_ms)
    assert by_device(replayed(recording)) == expected(recording, lines, upto_ms)


@pytest.mark.parametrize("partition", [0, 1])
def test_device_in_two_partitions_is_replayed_in_order_of_time(
    partition: int, tmp_path: Path
) -> None:
    """The end in the one is between two starts in the other, whichever is named first."""
    start, end, again = (
        replace(event_line("c1", kind, session, BEGIN_MS + after_ms), partition=where)
        for kind, session, after_ms, where in (
            ("Start", "s", 0, partition),
            ("End", "s", 10, 1 - partition),
            ("Start", "t", 20, partition),
        )
    )
    recording = write(tmp_path / "r", preface(SETTINGS), [start, again, end], BEGIN_MS + 500)
    assert [getattr(event, "reason", "begun") for event in replayed(recording)] == [
        "begun", "ended", "begun",
    ]  # fmt: skip


def test_empty_recording_gives_nothing(tmp_path: Path) -> None:
    """Topics without records are replayed to their end, too."""
    recording = write(tmp_path / "r", preface(SETTINGS), [], BEGIN_MS)
    assert replayed(recording) == []


def test_silent_time_after_the_last_event_beats_on(tmp_path: Path) -> None:
    """After the input the time goes on to the moment of the recording, and not further."""
    lines = [event_line("c1", "Start", "s", BEGIN_MS), event_line("p1", "Start", "s", BEGIN_MS + 1)]
    recording = write(tmp_path / "r", preface(SETTINGS), lines, BEGIN_MS + 5_000)
    events = replayed(recording)
    assert [e.time_ms - BEGIN_MS for e in events if e.device_id == "c1"] == [
        0, 1_000, 2_000, 3_000, 4_000, 5_000,
    ]  # fmt: skip
    assert len([e for e in events if e.device_id == "p1"]) == 5


def test_more_than_a_call_can_fire_is_fired_before_the_end(tmp_path: Path) -> None:
    """The replay waits for lanes that need several calls, 20,000 records each."""
    lines = [event_line(f"c{n}", "Start", "s", BEGIN_MS) for n in range(3_000)]
    settings = Settings(lanes=1, heartbeat_ms=1_000)
    recording = write(tmp_path / "r", preface(settings), lines, BEGIN_MS + 60_000)
    assert len(replayed(recording)) == 3_000 * 61


def test_settings_can_be_changed_and_are_checked(tmp_path: Path) -> None:
    """The settings of the recording count, unless another value is given by its name."""
    recording = write(
        tmp_path / "r",
        preface(SETTINGS),
        [event_line("c1", "Start", "s", BEGIN_MS)],
        BEGIN_MS + 10_000,
    )
    assert len(replayed(recording)) == 11
    assert len(replayed(recording, heartbeat_ms="5000")) == 3
    with pytest.raises(ConfigError, match="power of two"):
        replayed(recording, lanes="3")
    with pytest.raises(ConfigError, match="--set no_such is not a setting"):
        replayed(recording, no_such="3")
    with pytest.raises(ConfigError, match="heartbeat_topic: a replay has one output"):
        replayed(recording, heartbeat_topic="beats")


def test_what_the_run_rejected_as_in_the_future_stays_rejected() -> None:
    """A record from ahead of the clock that read it is no session, though its time has come."""
    recording = Recording(path_of("bad-input"))
    assert any('"future"' in (line.value or "") for line in lines_of(recording))
    sessions: set[str] = set()

    def take(item: OutputBatch | DeadLetter) -> None:
        if isinstance(item, OutputBatch):
            sessions.update(event.session_id for event in decoded(item))

    replay(recording, replay_settings(recording, {"max_clock_skew_ms": "86400000"}), take)
    assert "future" not in sessions
    assert len(sessions) > 3


def test_damage_found_while_replaying_is_the_recordings_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An error inside of the dataflow comes out as the one line that names the file."""
    path = tmp_path / "r"
    recording = write(path, preface(SETTINGS), history(0), BEGIN_MS)
    data = bytearray(path.read_bytes())
    data[recording.manifest.chunks[0].at + 50] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=f"recording {path} is damaged at byte"):
        replayed(recording)
    assert capfd.readouterr().err == ""


def test_output_that_cannot_be_taken_ends_the_replay_with_its_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No more is given out after it, and nothing is said of the steps that it came through."""
    lines = history(1)
    recording = write(tmp_path / "file", preface(SETTINGS), lines, lines[-1].timestamp_ms + 60_000)
    taken = 0

    def take(_item: OutputBatch | DeadLetter) -> None:
        nonlocal taken
        taken += 1
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replay(recording, replay_settings(recording, {}), take)
    assert taken == 1
    assert "panicked" not in capfd.readouterr().err


def test_longest_session_that_can_be_set_is_replayed_at_once(tmp_path: Path) -> None:
    """A new lane begins in 1970, and does not go to now moment by moment."""
    lines = [event_line("d1", "Start", "s1", BEGIN_MS)]
    recording = write(tmp_path / "file", preface(SETTINGS), lines, BEGIN_MS + 10_000)
    longest = {"heartbeat_ms": str(LONGEST_MS), "max_session_ms": str(LONGEST_MS)}
    [event] = replayed(recording, **longest)
    assert event.device_id == "d1"
