"""What real runs made of real topics is made of them again: replay testing."""

from collections import defaultdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from heartwheel.cli import app
from heartwheel.recording.format import Line
from heartwheel.recording.reader import Recording
from session_logic.codec import decode_input, encode_output
from session_logic.events import (
    GameEnd,
    GameStart,
    Heartbeat,
    OutputEvent,
    Rejected,
    SessionActive,
    SessionEnd,
)
from tests.support.recordings import (
    NAMES,
    event_of,
    is_output,
    lines_of,
    of_topic,
    path_of,
    rewrite,
)

# What each recording must have for the check to mean something.
REASONS = {
    "start": "replaced",
    "end": "ended",
    "timeout": "timed_out",
    "outage-all": "ended",
    "presence": "went_silent",
    "topics-apart": "ended",
}
# Those with an outage under `latest`, or with a start that came too late for its heartbeats.
SKIPPED = {
    "busy", "clock", "history", "order", "outage-latest", "partitions", "topics-apart",
}  # fmt: skip


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
    by_clock = name in {"bad-input", "clock"}  # one of its dead letters is from the future
    compared = counts["equal"] + counts["raced"] + counts["earlier"]
    summaries = len(of_topic(recording, "summary_topic"))
    rows = len({line.key for line in of_topic(recording, "table_topic")})  # the newest ones
    assert compared == outputs + letters - by_clock + summaries + rows > 15
    assert (counts["raced"] > 0) == (name in {"busy", "order"})
    assert (counts["skipped"] > 0) == (name in SKIPPED)
    assert (counts["earlier"] > 0) == (name == "settings")
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
    rules = ["start", "heartbeat", "end", "timeout", "order", "bad-input"]
    outages = ["history", "outage-all", "outage-latest"]
    world = ["partitions", "busy", "clock", "settings"]
    consumers = ["presence", "topics-apart"]
    assert sorted([*rules, *outages, *world, *consumers]) == NAMES


def output_of(recording: Recording, device: str) -> list[OutputEvent]:
    """Return the recorded output of a device, in order."""
    lines = [line for line in lines_of(recording) if is_output(recording, line)]
    return [event_of(line) for line in lines if line.key == device]


def input_of(recording: Recording, device: str) -> list[tuple[Line, GameStart | GameEnd]]:
    """Return the recorded events of a device, each partition in order."""
    topics = recording.settings["input_topics"]
    read = [(line, decode_input(line.value_bytes())) for line in lines_of(recording)
            if line.topic in topics]  # fmt: skip
    return [(line, event) for line, event in read
            if not isinstance(event, Rejected) and event.device_id == device]  # fmt: skip


def test_recorded_start_that_was_overtaken_began_no_session() -> None:
    """It is stamped before the start that was read before it, and is nowhere in the output."""
    recording = Recording(path_of("order"))
    (new, _), (old, late), *_ = input_of(recording, "c1")
    assert isinstance(late, GameStart)
    assert old.timestamp_ms < new.timestamp_ms
    assert late.session_id not in {event.session_id for event in output_of(recording, "c1")}


def test_recorded_end_that_came_before_its_start_ended_it() -> None:
    """The session has both timestamps."""
    recording = Recording(path_of("order"))
    (ended, end), (started, start), *_ = input_of(recording, "c2")
    assert (type(end), type(start)) == (GameEnd, GameStart)
    first, *_, last = output_of(recording, "c2")
    assert (first.time_ms, last.time_ms) == (started.timestamp_ms, ended.timestamp_ms)


def test_recorded_devices_were_in_several_partitions_and_each_session_ended() -> None:
    """Before the first start, in an outage and live: none is left for eight hours."""
    recording = Recording(path_of("partitions"))
    for number in range(6):
        events = output_of(recording, f"d{number}")
        assert len({(line.topic, line.partition)
                    for line, _ in input_of(recording, f"d{number}")}) == 2  # fmt: skip
        begun = {event.session_id for event in events if isinstance(event, SessionActive)}
        ended = {event.session_id for event in events if isinstance(event, SessionEnd)}
        assert begun == ended == {f"first{number}", f"second{number}", f"live{number}"}


def test_recorded_heartbeats_were_on_time_beside_a_busy_partition() -> None:
    """Its records were three seconds old on arrival, and it never paused."""
    recording = Recording(path_of("busy"))
    lines = [line for line in lines_of(recording) if line.key == "c-through"]
    late_ms = sorted(line.timestamp_ms - event_of(line).time_ms
                     for line in lines if is_output(recording, line))  # fmt: skip
    assert len(late_ms) > 15
    assert late_ms[len(late_ms) // 2] < 50
    topic = next(t for t, platform in recording.settings["input_topics"].items()
                 if platform == "pc")  # fmt: skip
    times_ms = [line.timestamp_ms for line in lines_of(recording)
                if (line.topic, line.partition) == (topic, 0)]  # fmt: skip
    assert len(times_ms) > 300


def test_recorded_clock_was_behind_and_put_right() -> None:
    """A rejection by it stays, and the step was an outage: only the newest heartbeat was sent."""
    recording = Recording(path_of("clock"))
    active, first, second, *_ = output_of(recording, "c-through")
    assert isinstance(active, SessionActive)
    assert isinstance(first, Heartbeat)
    assert isinstance(second, Heartbeat)
    assert second.sequence == first.sequence + 1 > 3
    (far, start), *_ = input_of(recording, "p2")
    assert isinstance(start, GameStart)
    assert far.timestamp_ms < recording.manifest.complete_ms + 60_000
    assert output_of(recording, "p2") == []


def test_recorded_sessions_kept_their_interval_under_other_settings() -> None:
    """Those that began after the change have the new one; a maximum holds for all of them."""
    recording = Recording(path_of("settings"))
    intervals_ms = defaultdict[str, set[int]](set)
    longest_ms = defaultdict[str, int](int)
    for line in lines_of(recording):
        if not is_output(recording, line):
            continue
        event = event_of(line)
        if isinstance(event, Heartbeat):
            age_ms = event.time_ms - event.started_ms
            intervals_ms[event.session_id].add(age_ms // event.sequence)
        if isinstance(event, SessionEnd):
            longest_ms[event.reason] = max(longest_ms[event.reason], event.duration_ms)
    assert intervals_ms == {"c": {500}, "d": {500}, "e": {1000}, "f": {1000}, "g": {1000}}
    assert longest_ms["ended"] < 6_000 < longest_ms["timed_out"]


def test_recorded_presence_has_silence_pings_and_a_topic_for_each_consumer() -> None:
    """Pings keep sessions and begin some; each kind of records is in its own topic."""
    recording = Recording(path_of("presence"))
    output = list(map(event_of, of_topic(recording, "output_topic")))
    assert {type(event) for event in output} == {SessionActive, SessionEnd}
    beats = list(map(event_of, of_topic(recording, "heartbeat_topic")))
    assert {type(event) for event in beats} == {Heartbeat}
    settings = recording.settings
    kept = [event for event in beats if event.session_id == "b"]
    assert kept[-1].time_ms - kept[0].started_ms > 2 * settings["idle_timeout_ms"]
    pinged = {event.session_id for event in output if event.device_id == "p2"}
    assert pinged == {"d", "f", "other"}
    silent = {e.device_id for e in output if isinstance(e, SessionEnd) and e.last_seen_ms}
    assert {"c1", "c4", "p1", "p2"} <= silent
    summaries = [line.value or "" for line in of_topic(recording, "summary_topic")]
    assert any('"title":{"id":7}' in summary for summary in summaries)
    rows = {line.key: line.value for line in of_topic(recording, "table_topic")}
    assert {None} < set(rows.values())


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
    """Swap one with the next of its device in its topic."""
    here = lines[at].key, lines[at].topic
    other = next(n for n in range(at + 1, len(lines)) if (lines[n].key, lines[n].topic) == here)
    lines[at], lines[other] = lines[other], lines[at]


@pytest.mark.parametrize("kind", [SessionActive, Heartbeat, SessionEnd])
@pytest.mark.parametrize(
    "name", ["end", "order", "outage-latest", "outage-all", "presence", "topics-apart"]
)
@pytest.mark.parametrize("plant", [changed, dropped, doubled, doubled_at_end, swapped])
def test_planted_difference_is_found_and_shown(
    plant: object, name: str, kind: type, tmp_path: Path
) -> None:
    """One record is enough, of any kind and under either policy; its device is named.

    A heartbeat without the end that it was sent with is taken for one of the wheel's: then there
    was no outage, and what it left out has no excuse. With topics apart, their timestamps tell what
    was sent together, and one record in the wrong place can take the excuse of others.
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
    assert "c1: " in result.stdout
    counts = counts_of(result)
    assert counts["differences"] > 0
    if name != "topics-apart" and (plant, name, kind) != (dropped, "outage-latest", SessionEnd):
        assert result.stdout.startswith("c1: ")
        assert "on 1 devices" in result.stdout
        assert counts["differences"] <= 2 or name == "presence"  # summary and row say it as well
    if plant is not swapped:
        assert kind.__name__ in result.stdout


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        *((plant, kind) for plant in (changed, doubled)
          for kind in (SessionActive, Heartbeat, SessionEnd)),
        # A heartbeat less may be one that an outage left out.
        (dropped, SessionActive),
        (dropped, SessionEnd),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "device"),
    [("order", "c2"), ("partitions", "d0"), ("busy", "c2"), ("clock", "c1"), ("settings", "c3")],
)
def test_planted_difference_is_found_where_input_is_out_of_order(
    plant: object, kind: type, name: str, device: str, tmp_path: Path
) -> None:
    """An early end, two partitions, old timestamps, a wrong clock, other settings excuse none."""
    recording = Recording(path_of(name))
    lines = lines_of(recording)
    plant(lines, first(lines, recording, kind, device))  # type: ignore[operator]
    rewrite(recording, tmp_path / "planted", lines)
    result = check(tmp_path / "planted")
    assert result.exit_code == 1, result.stdout
    assert result.stdout.startswith(f"{device}: ")


def test_session_of_a_late_start_would_be_a_difference(tmp_path: Path) -> None:
    """A run that acted on it is not what the rules say."""
    recording = Recording(path_of("order"))
    lines = lines_of(recording)
    at = first(lines, recording, SessionActive, "c1")
    (old, start), *_ = input_of(recording, "c1")[1:]
    acted = SessionActive("c1", start.session_id, "console", old.timestamp_ms, old.timestamp_ms)
    lines.insert(at + 1, Line(lines[at].topic, lines[at].partition, 0, lines[at].timestamp_ms,
                              key="c1", value=encode_output(acted).decode()))  # fmt: skip
    rewrite(recording, tmp_path / "planted", lines)
    result = check(tmp_path / "planted")
    assert result.exit_code == 1, result.stdout
    assert result.stdout.startswith("c1: 1 differences")


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
