"""What a run may differ in hides no fault: each change of recorded output at random is found."""

import random
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from heartwheel.recording.comparison import Comparison
from heartwheel.recording.format import Line
from heartwheel.recording.progress import read_progress
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import replay, replay_settings
from session_logic.codec import encode_output
from session_logic.events import EndReason, Heartbeat, OutputEvent, SessionEnd
from tests.support.recordings import NAMES, event_of, is_output, lines_of, path_of, rewrite

MUTATIONS = 10  # of each recording
# A recording that begins in the middle cannot say much of what began before it.
WHOLE = [name for name in NAMES if name != "settings"]
REASONS: tuple[EndReason, ...] = ("ended", "replaced", "timed_out")


def counts_of(recording: Recording) -> Counter[str]:
    """Return what the comparison of a recording with its replay counts."""
    progress = read_progress(recording)
    comparison = Comparison(recording, progress, 50)
    until_ms = progress.written_ms + 50
    replay(recording, replay_settings(recording, {}), comparison.take, until_ms)
    comparison.finish()
    return comparison.counts


class Mutation:
    """One change of one record of the output, at random."""

    def __init__(self, recording: Recording, lines: list[Line], choice: random.Random) -> None:
        self._lines, self._choice = lines, choice
        self._heartbeat_ms = recording.settings["heartbeat_ms"]
        self._outputs = [n for n, line in enumerate(lines) if is_output(recording, line)]
        self._at = choice.choice(self._outputs)
        self._event = event_of(lines[self._at])
        kinds = [self.lost, self.doubled, self.doubled_later, self.swapped, self.of_another]
        if isinstance(self._event, Heartbeat):
            kinds += [self.sequence, self.moved, self.off_beat]
        elif isinstance(self._event, SessionEnd):
            kinds += [self.reason, self.end_time, self.duration]
        self.made: list[Line] = lines
        while self.made == lines:
            kind = choice.choice(kinds)
            self.name, self.made = kind.__name__, kind()

    @property
    def of_newest(self) -> bool:
        """Whether it is of the newest heartbeat of a session that goes on."""
        session = self._event.device_id, self._event.session_id, self._event.started_ms
        events = {n: event_of(self._lines[n]) for n in self._outputs}
        later = [events[n] for n in self._later()]
        later += [event for event in events.values() if isinstance(event, SessionEnd)]
        return isinstance(self._event, Heartbeat) and session not in [
            (event.device_id, event.session_id, event.started_ms) for event in later
        ]

    def lost(self) -> list[Line]:
        return [*self._lines[: self._at], *self._lines[self._at + 1 :]]

    def doubled(self) -> list[Line]:
        return [*self._lines[: self._at + 1], *self._lines[self._at :]]

    def doubled_later(self) -> list[Line]:
        at = self._choice.choice(self._later() or [self._at]) + 1
        return [*self._lines[:at], self._lines[self._at], *self._lines[at:]]

    def swapped(self) -> list[Line]:
        key = self._lines[self._at].key
        other = next((n for n in self._later() if self._lines[n].key == key), self._at)
        made = list(self._lines)
        made[self._at], made[other] = made[other], made[self._at]
        return made

    def _later(self) -> list[int]:
        """Return where the later records of the lane are, in the same topic."""
        here = self._lines[self._at]
        return [
            n
            for n in self._outputs
            if n > self._at
            and (self._lines[n].topic, self._lines[n].partition) == (here.topic, here.partition)
        ]

    def of_another(self) -> list[Line]:
        """Let it be of another session."""
        event = self._event
        others: list[OutputEvent] = [
            replace(event, session_id=f"{event.session_id}x"),
            replace(event, platform=f"{event.platform}x"),
            replace(event, started_ms=event.started_ms - 1),
        ]
        return self._with(self._choice.choice(others))

    def sequence(self) -> list[Line]:
        event = self._event
        assert isinstance(event, Heartbeat)
        return self._with(replace(event, sequence=max(1, event.sequence + self._step())))

    def moved(self) -> list[Line]:
        """Let it be an earlier or a later heartbeat of its session."""
        event = self._event
        assert isinstance(event, Heartbeat)
        sequence = max(1, event.sequence + self._step())
        time_ms = event.started_ms + sequence * self._heartbeat_ms
        return self._with(replace(event, sequence=sequence, time_ms=time_ms))

    def off_beat(self) -> list[Line]:
        step_ms = self._choice.choice([-1, 1])
        return self._with(replace(self._event, time_ms=self._event.time_ms + step_ms))

    def reason(self) -> list[Line]:
        return self._with(replace(self._event, reason=self._choice.choice(REASONS)))  # type: ignore[call-arg]

    def end_time(self) -> list[Line]:
        event = self._event
        assert isinstance(event, SessionEnd)
        to_a_beat = self._heartbeat_ms - event.duration_ms % self._heartbeat_ms
        step_ms = self._choice.choice([1, to_a_beat, self._heartbeat_ms])
        duration_ms = event.duration_ms + step_ms
        return self._with(replace(event, time_ms=event.time_ms + step_ms, duration_ms=duration_ms))

    def duration(self) -> list[Line]:
        event = self._event
        assert isinstance(event, SessionEnd)
        return self._with(replace(event, duration_ms=event.duration_ms + 1))

    def _step(self) -> int:
        return self._choice.choice([-1, 1, 2])

    def _with(self, event: OutputEvent) -> list[Line]:
        made = list(self._lines)
        made[self._at] = replace(made[self._at], value=encode_output(event).decode())
        return made


def mutate(name: str, path: Path, count: int) -> tuple[int, list[tuple[str, str]]]:
    """Change a recording so many times; return how many were found, and the kinds of the rest."""
    recording = Recording(path_of(name))
    lines, choice = lines_of(recording), random.Random(name)
    whole, found, hidden = counts_of(recording), 0, []
    for _ in range(count):
        mutation = Mutation(recording, lines, choice)
        counts = counts_of(rewrite(recording, path, mutation.made))
        if counts["differences"]:
            found += 1
        else:
            counts.subtract(whole)
            because = ", ".join(kind for kind, n in counts.items() if n > 0)
            hidden.append((mutation.name, "ended" if mutation.of_newest else because))
    return found, hidden


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((name, MUTATIONS) for name in WHOLE),
        *(pytest.param(name, 20 * MUTATIONS, marks=pytest.mark.slow) for name in WHOLE),
    ],
)
def test_every_change_of_the_recorded_output_is_found(
    name: str, count: int, tmp_path: Path
) -> None:
    """But for a heartbeat less, which a run need not have sent.

    That is the newest of a session that goes on, without which the run has ended earlier; and
    beside an outage under `latest` one that was skipped or missed more.
    """
    found, hidden = mutate(name, tmp_path / "r", count)
    latest = Recording(path_of(name)).settings["catch_up"] == "latest"
    causes = ["ended", *(["skipped", "missed"] if latest else [])]
    assert set(hidden) <= {("lost", cause) for cause in causes}, hidden
    assert found + len(hidden) == count
    assert len(hidden) <= count // 10
