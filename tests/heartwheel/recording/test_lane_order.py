"""The heartbeats of a topic of their own come back to their places between the other records."""

import random
from collections import defaultdict

import pytest

from heartwheel.recording.lane_order import AHEAD, in_lane_order
from heartwheel.recording.recorded import Named, Recorded
from session_logic.codec import encode_output
from session_logic.events import Heartbeat, Kind, OutputEvent, SessionActive, SessionEnd

BEAT_MS = 1_000


def lane(choice: random.Random, devices: int, length: int) -> list[OutputEvent]:
    """Return what one topic would have of a lane, in its order; some sessions never beat."""
    records: list[OutputEvent] = []
    active: dict[str, tuple[SessionActive, int]] = {}
    for number in range(length):
        device = f"d{choice.randrange(devices)}"
        if device not in active:
            start = SessionActive(device, f"s{number}", "pc", number, number)
            active[device] = start, 0
            records.append(start)
            continue
        start, sequence = active[device]
        names = device, start.session_id, "pc", start.started_ms
        if choice.random() < 0.7:
            sequence += 1
            active[device] = start, sequence
            records.append(Heartbeat(*names, start.started_ms + sequence * BEAT_MS, sequence))
        else:
            duration_ms = sequence * BEAT_MS
            end_ms = start.started_ms + duration_ms
            records.append(SessionEnd(*names, end_ms, "ended", duration_ms))
            del active[device]
    return records


def named(events: list[OutputEvent], *, beats: bool) -> list[Named]:
    """Return the records of one of two topics."""
    kind: Kind | None = "heartbeats" if beats else None
    return [
        (event.device_id, Recorded(encode_output(event), 0, offset, 0, kind))
        for offset, event in enumerate(e for e in events if isinstance(e, Heartbeat) == beats)
    ]


def by_device(items: list[Named]) -> dict[str, list[object]]:
    """Return the records of each device, in order."""
    found = defaultdict[str, list[object]](list)
    for device, record in items:
        found[device].append(record.item)
    return dict(found)


def of_one_topic(events: list[OutputEvent]) -> dict[str, list[object]]:
    """Return the records of each device as one topic would have them."""
    found = defaultdict[str, list[object]](list)
    for event in events:
        found[event.device_id].append(encode_output(event))
    return dict(found)


@pytest.mark.parametrize("seed", range(30))
def test_records_of_each_device_are_in_the_order_of_one_topic(seed: int) -> None:
    """Whatever sessions there are: many or few, with heartbeats or without."""
    choice = random.Random(seed)
    events = lane(choice, choice.choice([1, 3, 100]), choice.choice([10, 2_000]))
    output, beats = named(events, beats=False), named(events, beats=True)
    found = list(in_lane_order(iter(output), iter(beats), 0))
    assert by_device(found) == of_one_topic(events)


def test_lost_start_does_not_move_the_heartbeats_of_other_sessions() -> None:
    """Its own heartbeats wait for its end; those of others prove what these cannot."""
    events = lane(random.Random(1), 50, 3_000)
    lost = [e for e in events if isinstance(e, SessionActive)][100 : 100 + AHEAD - 1]
    output = [one for one in named(events, beats=False)
              if one[1].item not in [encode_output(start) for start in lost]]  # fmt: skip
    found = by_device(list(in_lane_order(iter(output), iter(named(events, beats=True)), 0)))
    gone = {encode_output(start) for start in lost}
    for device, records in of_one_topic(events).items():
        assert found[device] == [record for record in records if record not in gone]


def test_session_that_began_before_the_recording_needs_no_start() -> None:
    """Its heartbeats do not wait, however many of such sessions there are."""
    names = [(f"d{n}", f"s{n}", "pc", n) for n in range(3 * AHEAD)]
    beats = [Heartbeat(*name, name[3] + BEAT_MS, 1) for name in names]
    ends = [SessionEnd(*name, name[3] + BEAT_MS, "ended", BEAT_MS) for name in names]
    output = named([*ends], beats=False)
    found = list(in_lane_order(iter(output), iter(named([*beats], beats=True)), 10_000))
    assert all(isinstance(records[0], bytes) and b"Heartbeat" in records[0]
               for records in by_device(found).values())  # fmt: skip
    assert len(found) == 6 * AHEAD


def test_records_of_another_program_are_kept() -> None:
    """They are compared, and are differences then."""
    stray = ("d", Recorded(b"hello", 0, 0, 0))
    assert list(in_lane_order(iter([stray]), iter([stray]), 0)) == [stray, stray]


def test_heartbeats_of_a_device_in_the_wrong_order_stay_in_it() -> None:
    """The next session's heartbeat came before one of this session: that is a fault to be found."""
    a, b = ("d", "a", "pc", 0), ("d", "b", "pc", 5_000)
    output = named(
        [
            SessionActive(*a, 0),
            SessionEnd(*a, BEAT_MS, "ended", BEAT_MS),
            SessionActive(*b, 5_000),
            SessionEnd(*b, 5_000 + BEAT_MS, "ended", BEAT_MS),
        ],
        beats=False,
    )
    beats = named([Heartbeat(*b, 5_000 + BEAT_MS, 1), Heartbeat(*a, BEAT_MS, 1)], beats=True)
    found = list(in_lane_order(iter(output), iter(beats), 0))
    assert [one for one in found if one in beats] == beats
