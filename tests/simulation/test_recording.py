"""What simulated histories have sent is recorded, replayed and compared without a difference."""

import itertools
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dataflows.messages import RecordId
from heartwheel.recording.comparison import Comparison
from heartwheel.recording.progress import read_progress
from heartwheel.recording.replay import replay, replay_settings
from session_logic.codec import decode_input
from session_logic.events import Rejected
from tests.simulation.facts import Facts
from tests.simulation.flow import DEVICES, Simulation, simulate
from tests.simulation.recording import record_history
from tests.support.fake_kafka import Where


def differing(simulation: Simulation, path: Path) -> set[str]:
    """Return the devices of which the replay of a history differs from what was sent."""
    recording = record_history(simulation, path)
    progress = read_progress(recording)
    comparison = Comparison(recording, progress, 50)
    until_ms = progress.written_ms + 50
    replay(recording, replay_settings(recording, {}), comparison.take, until_ms)
    return {difference.name for difference in comparison.finish()}


LOSSES = ("input expired", "output cut", "letters lost", "strays")


class Events:
    """Which devices have events in several partitions, and which had one that came very late."""

    def __init__(self, simulation: Simulation) -> None:
        settings, log = simulation.world.settings, simulation.world.log
        kept_ms = settings.deduplication_window_ms + settings.heartbeat_ms
        pasts = simulation.world.history.pasts
        places = defaultdict[str, set[Where]](set)
        self.late: set[str] = set()
        for topic in settings.input_topics:
            for partition, records in enumerate(log.topics[topic]):
                for offset, record in enumerate(records):
                    event = decode_input(record.value)
                    if record.hidden or isinstance(event, Rejected):
                        continue
                    places[event.device_id].add((topic, partition))
                    given = [p.given_ms(RecordId(topic, partition, offset)) for p in pasts]
                    # By then an end of its time is forgotten.
                    if any(ms is not None and ms - record.time_ms >= kept_ms for ms in given):
                        self.late.add(event.device_id)
        self.scattered = {device for device, where in places.items() if len(where) > 1}


def late_differences(simulation: Simulation, seed: int, path: Path) -> tuple[Events, set[str]]:
    """Return the events of a history, and the devices that differ; all of them were late."""
    events = Events(simulation)
    found = differing(simulation, path) - events.scattered
    assert found <= events.late, f"seed={seed}: {found}"
    return events, found


def is_comparable(simulation: Simulation) -> bool:
    """Say whether a history that is over can be compared with its replay.

    A recording is of one set of settings, and of what the input itself has. What the topics have
    lost, or got from somebody else, is a difference.
    """
    counts = simulation.counts
    changes = counts["runs with other rules"] or counts["changes of the heartbeat topic"]
    return not (
        changes or simulation.world.facts != Facts() or any(counts[loss] for loss in LOSSES)
    )


@pytest.mark.parametrize(
    ("first", "count"), [(0, 15), pytest.param(15, 150, marks=pytest.mark.slow)]
)
def test_replay_of_a_random_history_differs_in_what_is_documented_only(
    first: int, count: int, tmp_path: Path
) -> None:
    """That is in devices of several partitions, and in few of those whose events came very late."""
    devices, late = 0, 0
    for seed in range(first, first + count):
        simulation = simulate(seed)
        if not is_comparable(simulation):
            continue
        events, found = late_differences(simulation, seed, tmp_path / "r")
        devices += len(set(DEVICES) - events.scattered)
        late += len(found)
    assert devices > count
    assert late <= max(1, devices / 50)


@pytest.mark.parametrize("count", [5, pytest.param(15, marks=pytest.mark.slow)])
def test_replay_of_a_history_with_topics_apart_differs_as_little(
    count: int, tmp_path: Path
) -> None:
    """Heartbeats that had a topic of their own are between the other records again."""
    seen: Counter[str] = Counter()
    for seed in itertools.count():
        if seen["heartbeat_topic"] == count:
            break
        if not Simulation(seed).world.settings.heartbeat_topic:
            continue
        simulation = simulate(seed)
        if not is_comparable(simulation):
            continue
        late_differences(simulation, seed, tmp_path / "r")
        settings = simulation.world.settings
        topics = ("heartbeat_topic", "summary_topic", "table_topic")
        seen.update(topic for topic in topics if getattr(settings, topic))
    assert seen["summary_topic"] > 0
    assert seen["table_topic"] > 0
