"""Compares the output of a simulation with the model, record for record and device for device.

The model knows the input and what happened: when runs began and ended, when a source was given a
record, and which time a lane made up for after an outage. From this follows which heartbeats may
be sent before an end with an earlier timestamp is read (raced), and which `latest` may skip.
"""

from collections import Counter, defaultdict
from copy import deepcopy
from itertools import chain, pairwise

from msgspec import Struct
from msgspec.structs import replace

from session_logic.clock import END_VALID_MS
from session_logic.codec import decode_input, decode_output
from session_logic.events import (
    Fact,
    GameStart,
    Heartbeat,
    OutputEvent,
    Rejected,
    SessionActive,
    SessionEnd,
    Watermark,
)
from session_logic.keys import key_group_of, lane_of
from session_logic.rules import Rules
from tests.support.fake_kafka import Log, Reading, Record, Where
from tests.support.model import Ending, Model
from tests.support.model import Life as ModelLife

NEVER_MS = -1
Life = tuple[str, str, int]  # device, session, start
Letter = tuple[str, int, int]  # topic, partition, offset


class Past(Struct):
    """A run that is over; readings by input partition."""

    began_ms: int
    ended_ms: int
    readings: dict[Where, Reading]


class Skip(Struct):
    """A time of a lane that it made up for at once: after after_ms, up to and with upto_ms.

    It was back by itself at back_ms, which is later when a source was still behind.
    """

    after_ms: int
    upto_ms: int
    back_ms: int


class Judge:
    """The output of a simulation that is over; `check` raises AssertionError where it is wrong."""

    def __init__(
        self,
        rules: Rules,
        log: Log,
        topics: dict[str, str],
        pasts: list[Past],
        skips: dict[int, list[Skip]],
        doubled_letters: Counter[Letter],
    ) -> None:
        self._rules = rules
        self._log = log
        self._topics = topics
        self._pasts = pasts
        self._skips = skips
        self._doubled_letters = doubled_letters
        self.counts: Counter[str] = Counter()
        self._by_clock: set[Letter] = set()  # what is no event because of its timestamp
        self._late_ends: dict[tuple[str, str, int | None], int] = {}
        self._devices: defaultdict[str, list[OutputEvent]] = defaultdict(list)
        self._lives: defaultdict[Life, list[OutputEvent]] = defaultdict(list)

    def check(self, output: str, letters: str, end_ms: int) -> None:
        """Check every record of the output topic and of the dead-letter topic."""
        self._read(output)
        self._by_clock = {
            letter_of(record)
            for record in chain(*self._log.topics[letters])
            if (record.headers or {})["heartwheel.reason"] == "in_the_future"
        }
        for topic, platform in self._topics.items():
            for partition in range(len(self._log.topics[topic])):
                self._check_input((topic, partition), platform, end_ms)
        assert not self._devices, f"records of unknown devices: {self._devices}"
        self._check_letters(letters)

    def _read(self, topic: str) -> None:
        lanes = self._log.topics[topic]
        for lane, records in enumerate(lanes):
            for record in records:
                event = decode_output(record.value or b"")
                assert record.key == event.device_id.encode()
                assert lane_of(key_group_of(event.device_id), len(lanes)) == lane
                self._devices[event.device_id].append(event)
                self._lives[_life(event)].append(event)
                self.counts["records"] += 1

    def _check_input(self, where: Where, platform: str, end_ms: int) -> None:
        """Check the devices of an input partition."""
        model = Model(self._rules)
        opened: dict[Life, int] = {}  # how far time may have come when its start was read
        latest_ms = 0
        for offset, record in enumerate(self._log.at(where)):
            event = decode_input(record.value)
            come_to_ms, latest_ms = latest_ms, max(latest_ms, record.time_ms)
            if isinstance(event, Rejected) or (*where, offset) in self._by_clock:
                continue
            fact = Fact(
                type(event) is GameStart,
                event.device_id,
                event.session_id,
                platform,
                record.time_ms,
                created=True,
            )
            late_ms = self._known_by(where, offset, record)
            # A partition that is behind has come to the latest stamp so far.
            late_ms = max(late_ms, min(come_to_ms, self._given_ms(where, offset)))
            opened.setdefault(_life_of(fact), late_ms)
            self._apply(model, fact, late_ms)
        model.advance(NEVER_MS, end_ms, newest_only=False)
        for device, lives in model.lives.items():
            self._check_device(device, model, opened)
            assert all(life.ended_ms is not None for life in lives)

    def _apply(self, model: Model, fact: Fact, late_ms: int) -> None:
        """Apply a fact as the log shows that it was.

        What comes first is decided by time, unless time had come so far when the fact was read
        that a heartbeat was out, or that a session was timed out or forgotten.
        """
        lives = model.lives.setdefault(fact.device_id, [])
        published = model.endings.get(fact.device_id, [])
        for endings in (published, self._replayed(published)):
            for fired_ms in (NEVER_MS, *self._moments_ms(lives, endings, fact, late_ms)):
                model.lives[fact.device_id] = deepcopy(lives)
                model.endings[fact.device_id] = deepcopy(endings)
                events = model.apply(fact, Watermark(fired_ms))
                if self._fits(fact, events, [_life_of(life.fact) for life in lives]):
                    self.counts["raced facts"] += fired_ms != NEVER_MS
                    self._note_late_end(fact, model.endings.get(fact.device_id, []))
                    return
        msg = f"{fact} is nowhere to be seen: {self._devices[fact.device_id]}"
        raise AssertionError(msg)

    def _note_late_end(self, fact: Fact, endings: list[Ending]) -> None:
        """Note an end that was read after its session had ended at a later time."""
        for ending in endings:
            name = fact.device_id, fact.session_id, ending.began_ms
            late = ending.began_ms is not None and ending.began_ms <= fact.time_ms < ending.ended_ms
            if late and not fact.is_start and ending.session_id == fact.session_id:
                self._late_ends[name] = min(fact.time_ms, self._late_ends.get(name, fact.time_ms))

    def _replayed(self, published: list[Ending]) -> list[Ending]:
        """Return the ends as a run may know them that was begun after a crash.

        The run before published an end, and was killed before it was stored. If an earlier end
        had come meanwhile, the next run has read that one first: the record of the later end is
        out, and stays so, but what is remembered is the earlier one.
        """
        return [
            replace(
                ending,
                ended_ms=min(
                    [ending.ended_ms]
                    + [
                        late_ms
                        for (_, session, began_ms), late_ms in self._late_ends.items()
                        if (session, began_ms) == (ending.session_id, ending.began_ms)
                    ]
                ),
            )
            for ending in published
        ]

    def _moments_ms(
        self, lives: list[ModelLife], endings: list[Ending], fact: Fact, late_ms: int
    ) -> list[int]:
        """Return the times that make a difference to a fact, if time had come so far.

        They are those of a timeout, of a heartbeat that an end must not be before, and of an end
        that is remembered no longer.
        """
        rules = self._rules
        kept_ms = rules.deduplication_window_ms + rules.heartbeat_ms
        moments_ms = [end.ended_ms + kept_ms for end in endings]
        for life in lives:
            started_ms = life.fact.time_ms
            timeout_ms = started_ms + rules.max_session_ms
            moments_ms += [timeout_ms, (life.ended_ms or timeout_ms) + kept_ms]
            moments_ms += range(started_ms, min(late_ms, timeout_ms) + 1, rules.heartbeat_ms)
        return sorted({ms for ms in moments_ms if fact.time_ms < ms <= late_ms})

    def _fits(self, fact: Fact, events: list[OutputEvent], known: list[Life]) -> bool:
        """Say whether the log has the ends and the start that a fact is said to cause."""
        ends = [event for event in events if isinstance(event, SessionEnd)]
        opened = any(isinstance(event, SessionActive) for event in events)
        life = _life_of(fact)
        is_there = fact.is_start and life in self._lives and life not in known
        return opened == is_there and all(self._end_of(_life(end)) == end for end in ends)

    def _end_of(self, life: Life) -> SessionEnd | None:
        return next((e for e in self._lives.get(life, ()) if isinstance(e, SessionEnd)), None)

    def _given_ms(self, where: Where, offset: int) -> int:
        times = [past.readings[where].given_ms.get((where, offset)) for past in self._pasts]
        return max(time_ms for time_ms in times if time_ms is not None)

    def _known_by(self, where: Where, offset: int, record: Record) -> int:
        """Return the last moment that a lane may fire before it has to know of a record.

        In the run in which it was appended: a lease after the source was last sure that it had
        come to the end. A later run reads to the end first.
        """
        limit_ms = NEVER_MS
        for past in self._pasts:
            if past.ended_ms <= record.appended_ms:
                limit_ms = max(limit_ms, past.ended_ms)
            elif past.began_ms <= record.appended_ms:
                reading = past.readings[where]
                sure_ms = [begin for begin, end in reading.doubts if end > record.appended_ms]
                given_ms = reading.given_ms.get((where, offset), past.ended_ms)
                limit_ms = max(
                    limit_ms, min(past.ended_ms, min([given_ms, *sure_ms]) + END_VALID_MS)
                )
        return limit_ms

    def _check_device(self, device: str, model: Model, opened: dict[Life, int]) -> None:
        """Check that a device's sessions are there, each whole, one after the other."""
        found = self._devices.pop(device, [])
        wanted = [(device, life.fact.session_id, life.fact.time_ms) for life in model.lives[device]]
        order = [life for life, after in pairwise([*map(_life, found), None]) if life != after]
        assert order == wanted, f"sessions of {device}: {order} instead of {wanted}"
        for life, known in zip(wanted, model.lives[device], strict=True):
            records = self._lives[life]
            assert isinstance(records[0], SessionActive), f"{life}: {records}"
            assert {r.platform for r in records} == {known.fact.platform}
            assert isinstance(records[-1], SessionEnd), f"{life}: {records}"
            end = records[-1]
            assert max(1, end.time_ms) == known.ended_ms, f"{life}: {end}, not {known.ended_ms}"
            assert records[0].time_ms == life[2]
            assert end.duration_ms == end.time_ms - life[2] >= 0
            self._check_beats(life, records[1:-1], end, opened[life])
            self.counts["sessions"] += 1

    def _check_beats(
        self,
        life: Life,
        records: list[OutputEvent],
        end: SessionEnd,
        opened_ms: int,
    ) -> None:
        """Check the heartbeats of a session: in sequence, none missing, none doubled."""
        device, _, started_ms = life
        beat_ms = self._rules.heartbeat_ms
        timeout_ms = started_ms + self._rules.max_session_ms
        for record in records:
            assert isinstance(record, Heartbeat), f"{life}: {records}"
            assert record.time_ms == started_ms + record.sequence * beat_ms
        found = [record.sequence for record in records]
        assert all(one < two for one, two in pairwise(found)), f"{life}: sequence {found}"
        due_by_ms = min(end.time_ms, timeout_ms - 1)
        last = max(0, (due_by_ms - started_ms) // beat_ms)
        assert set(found) <= set(range(1, last + 1)), f"{life}: {found}, and {last} were due"
        skips = self._skips.get(lane_of(key_group_of(device), self._lanes), [])
        for sequence in sorted(set(range(1, last + 1)) - set(found)):
            due_ms = started_ms + sequence * beat_ms
            later_ms = [started_ms + found_ * beat_ms for found_ in found if found_ > sequence]
            assert later_ms, f"{life}: heartbeat {sequence}, the newest, is missing"
            if self._rules.catch_up == "latest" and due_ms <= opened_ms:
                self.counts["missed heartbeats"] += 1  # due before the start was read
                continue
            assert any(
                skip.after_ms < due_ms and later_ms[0] <= self._newest_by(skip, end)
                for skip in skips
            ), f"{life}: heartbeat {sequence} at {due_ms} is missing"
            self.counts["skipped heartbeats"] += 1
        self.counts["heartbeats"] += len(found)

    def _newest_by(self, skip: Skip, end: SessionEnd) -> int:
        """Return when the newest heartbeat that stands for those it skips is due at the latest."""
        return skip.back_ms if end.time_ms <= skip.back_ms else skip.upto_ms

    @property
    def _lanes(self) -> int:
        return len(self._log.topics["out"])

    def _check_letters(self, topic: str) -> None:
        """Check that each record that is no event is a dead letter, and once."""
        wanted = {
            (topic, partition, offset)
            for topic in self._topics
            for partition, records in enumerate(self._log.topics[topic])
            for offset, record in enumerate(records)
            if isinstance(decode_input(record.value), Rejected)
        }
        wanted |= self._by_clock
        found: Counter[Letter] = Counter()
        for record in chain(*self._log.topics[topic]):
            letter = letter_of(record)
            source = self._log.at(letter[:2])[letter[2]]
            assert (record.key, record.value) == (source.key, source.value)
            found[letter] += 1
        assert found.keys() == wanted, f"dead letters {found} instead of {wanted}"
        for letter, times in found.items():
            assert times <= 1 + self._doubled_letters[letter], f"dead letter {letter}: {times}"
        self.counts["dead letters"] += len(found)
        self.counts["dead letters by the clock"] += len(self._by_clock)
        self.counts["dead letters doubled"] += found.total() - len(found)


def letter_of(record: Record) -> Letter:
    """Return the name of a dead letter."""
    headers = record.headers or {}
    partition, offset = headers["heartwheel.partition"], headers["heartwheel.offset"]
    return headers["heartwheel.topic"], int(partition), int(offset)


def _life(event: OutputEvent) -> Life:
    return event.device_id, event.session_id, event.started_ms


def _life_of(fact: Fact) -> Life:
    return fact.device_id, fact.session_id, fact.time_ms
