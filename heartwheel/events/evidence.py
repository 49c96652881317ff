"""What speaks for a field to be a part of an event: its name, and how its values repeat.

A session has one start and one end, a device has several, a time is near its record's timestamp and
differs between the start and the end of a session. Points add up what is seen; they are no
probability.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, pairwise

from msgspec import Struct

from heartwheel.events.fields import Field, Seen, text_of
from heartwheel.events.times import Reading, reading_of
from heartwheel.events.vocabulary import (
    CARRIED,
    DEVICE,
    PLATFORM,
    SESSION,
    TIME,
    TYPE,
    Kind,
    kind_of,
    leaf,
    likeness,
    perhaps_kind_of,
    platform_words,
)
from session_logic.event_time import time_reader

NAMED = 4  # points at most that the name of a type gives
MAX_WORDS = 30  # that a type has, or a platform
MAX_ID = 128  # characters
MAX_ALIKE = 20  # fields of one name, of which each two are looked at
MOST = 0.9  # of the events must have a part of an event
FEW = 3  # values, which tell nothing of how often they repeat
SECOND_MS, NEAR_MS, DAY_MS = 1_000, 60_000, 86_400_000
# Points from which on a field is proposed.
TYPE_LEAST, DEVICE_LEAST, SESSION_LEAST, TIME_LEAST, PLATFORM_LEAST, CARRIED_LEAST = (
    8,
    3,
    4,
    4,
    4,
    3,
)


class Ranking(Struct, frozen=True):
    """The fields that may be a part of an event, with their points, the best first."""

    ranked: list[tuple[float, Field]]
    least: float

    @classmethod
    def of(cls, some: Iterable[tuple[float, Field]], least: float) -> "Ranking":
        """Put fields in order; those for which nothing speaks are left out."""
        return cls(sorted((one for one in some if one[0] > 0), key=lambda one: -one[0]), least)

    def without(self, name: str) -> "Ranking":
        """Return the others, without a field of this name."""
        return Ranking([one for one in self.ranked if one[1].name != name], self.least)

    @property
    def best(self) -> Field | None:
        """The field that is proposed."""
        points, field = self.ranked[0] if self.ranked else (0, None)
        return field if points >= self.least else None

    @property
    def others(self) -> list[Field]:
        """The fields that might be proposed instead; without a best one, all that there are."""
        best = self.best
        return [
            field
            for points, field in self.ranked
            if field is not best and (best is None or points >= self.least)
        ]

    @property
    def lead(self) -> float:
        """By how many points the best is before the next."""
        points = [points for points, _ in self.ranked[:2]]
        return points[0] - (points[1] if len(points) > 1 else 0)


class Evidence:
    """The parts of an event as they are in some records, each found with the help of those before.

    words are those of the type, with what they are likely to say. perhaps are those of them that
    may say something else as well; words has what they say only where no other word says it. events
    are the numbers of the records that are a start or an end; of all records, with None, where no
    word says so.
    """

    def __init__(self, seen: Seen) -> None:
        """Look at everything."""
        self.seen = seen
        self.types = Ranking.of(((_type_points(f, seen), f) for f in seen.fields), TYPE_LEAST)
        self.words: dict[str, Kind | None] = {}
        self.perhaps: dict[str, Kind] = {}
        self.events: dict[int, Kind | None] = {}
        if (found := self.types.best) is not None:
            self.words = {word: kind_of(word, leaf(found.name)) for word in found.texts()}
            self.perhaps = _perhaps(self.words)
            self.words |= _needed(self.words, self.perhaps)
            kinds = {number: self.words[text_of(value)] for number, value in found.values.items()}
            self.events = {n: kind for n, kind in kinds.items() if kind in ("start", "end")}
        if not self.events:
            self.events = dict.fromkeys(range(len(seen.records)))
        others = [field.among(self.events) for field in seen.fields if field is not found]
        fields = [field for field in (*others, *_pairs(others, self)) if self.has_most(field)]
        readings = ((field.sources, self._reading(field)) for field in fields)
        self.readings = {sources: found for sources, found in readings if found is not None}
        ids = [field for field in fields if _is_id(field)]
        self.devices = Ranking.of(((self._device_points(f), f) for f in ids), DEVICE_LEAST)
        self.sessions = Ranking.of(((self._session_points(f), f) for f in ids), SESSION_LEAST)
        timed = [field for field in fields if field.sources in self.readings]
        self.times = Ranking.of(((self._time_points(f), f) for f in timed), TIME_LEAST)
        self.unread_times = [
            field
            for field in fields
            if field.sources not in self.readings and likeness(field.name, TIME) >= TIME_LEAST
        ]
        few = [field for field in ids if len(field.texts()) <= MAX_WORDS]
        self.platforms = Ranking.of(((_platform_points(f), f) for f in few), PLATFORM_LEAST)
        starts = [number for number, kind in self.events.items() if kind != "end"]
        self.carried = [
            field
            for field in others
            if likeness(field.name, CARRIED) >= CARRIED_LEAST
            and field.among(starts).values
            and field not in (self.devices.best, self.sessions.best)
        ]

    def has_most(self, field: Field) -> bool:
        """Say whether most events have a field."""
        return len(field.values) >= MOST * len(self.events)

    def is_key(self, field: Field) -> bool:
        """Say whether most events have a field's value as their key."""
        records = self.seen.records
        same = [
            records[number].key == text_of(value).encode(errors="replace")
            for number, value in field.values.items()
        ]
        return sum(same) >= MOST * len(same)

    def _reading(self, field: Field) -> Reading | None:
        records = self.seen.records
        return reading_of([(value, records[n].time_ms) for n, value in field.values.items()])

    def _device_points(self, field: Field) -> float:
        points = likeness(field.name, DEVICE)
        if field.name == "key":
            points += 3
        elif self.is_key(field):
            points += 4
        points += len(field.texts()) < len(field.values)
        points += 3 * self._alternates(field)
        return points + self._against_id(field)

    def _session_points(self, field: Field) -> float:
        device = self.devices.best
        points = likeness(field.name, SESSION)
        if field is device or field.name == "key":
            return 0
        paired = self._paired(field)
        if field.sources in self.readings and paired > MOST:
            return max(
                points, SESSION_LEAST
            )  # when it began, which the end tells as well: that names it
        if points <= 0 and device is not None and _tells_no_more(field, device):
            return 0
        points -= 3 * (likeness(field.name, DEVICE) > 0)
        return points + 4 * paired + self._against_id(field)

    def _against_id(self, field: Field) -> float:
        """Return what speaks against an id: one for all, another in each record, or a time."""
        different, count = len(field.texts()), len(field.values)
        points = 0
        if count > FEW:
            points -= 4 * (different == 1)
            points -= 6 * (different == count and len(set(self.events.values())) > 1)
        return points - 5 * (field.sources in self.readings)

    def _alternates(self, field: Field) -> bool:
        """Say whether most values have a start, an end, a start and so on: sessions in turn."""
        several = [
            [self.events[number] for number in numbers]
            for numbers in _numbers_by_value(field).values()
            if len(numbers) > FEW
        ]
        in_turn = [all(a != b for a, b in pairwise(kinds)) for kinds in several]
        return sum(in_turn) > MOST * len(in_turn) > MOST

    def _paired(self, field: Field) -> float:
        """Return the share of values with one start and one end, of those that have an end."""
        kinds = [
            [self.events[number] for number in numbers]
            for numbers in _numbers_by_value(field).values()
        ]
        ended = [some for some in kinds if "end" in some]
        if not ended or any(some.count("start") > 1 for some in kinds):
            return 0
        return sum(some in (["start", "end"], ["end", "start"]) for some in ended) / len(ended)

    def _time_points(self, field: Field) -> float:
        reading = self.readings[field.sources]
        points = likeness(field.name, TIME) - 0.5 * field.sources[0].count(".")
        if reading.apart_ms is not None:
            points += 2 * (abs(reading.apart_ms) < NEAR_MS) + (abs(reading.apart_ms) < DAY_MS)
        several = [times for times in self._times_in_turn(field, reading) if len(times) > 1]
        # When a session began is in its end as well, and is not the time of the end.
        if sum(len(set(times)) == 1 for times in several) > len(several) / 2:
            return 0
        # Events of one session, or device, come in the order of their times.
        rising = sum(times == sorted(times) for times in several)
        return points + 2 * (rising > MOST * len(several))

    def _times_in_turn(self, field: Field, reading: Reading) -> Iterator[list[int]]:
        """Yield the times of each session, or else of each device, as its events come.

        Left out is what says nothing: events of one second, if the times have whole seconds.
        """
        one = self.sessions.best or self.devices.best
        read = time_reader(reading.unit)
        found = {n: time_ms for n, v in field.values.items() if (time_ms := read(v)) is not None}
        is_coarse = all(time_ms % SECOND_MS == 0 for time_ms in found.values())
        for numbers in _numbers_by_value(one).values() if one is not None else ():
            times = [found[n] for n in numbers if n in found]
            stamps = [stamp for n in numbers if (stamp := self.seen.records[n].time_ms) is not None]
            if not (is_coarse and stamps and max(stamps) - min(stamps) < SECOND_MS):
                yield times


def _type_points(field: Field, seen: Seen) -> float:
    """Return what speaks for a field to have the words for start and end."""
    texts = field.texts()
    name = leaf(field.name)
    if len(texts) > MAX_WORDS:
        return 0
    words = {text: kind_of(text, name) for text in texts}
    sure = {kind for kind in words.values() if kind in ("start", "end")}
    unsure = set(_needed(words, _perhaps(words)).values())
    named = min(likeness(name, TYPE), NAMED)
    points = 8 * len(sure) + 3 * len(unsure) + (named if sure or unsure else named / 2)
    return points * len(field.values) / len(seen.records) - 0.5 * field.name.count(".")


def _perhaps(words: Mapping[str, Kind | None]) -> dict[str, Kind]:
    """Return the words that may say what is not known of them, with what that is."""
    unknown = (word for word, kind in words.items() if kind is None)
    return {word: kind for word in unknown if (kind := perhaps_kind_of(word)) is not None}


def _needed(words: Mapping[str, Kind | None], perhaps: Mapping[str, Kind]) -> dict[str, Kind]:
    """Return the words that may be starts or ends, where no other word is.

    Beside words for one of both, a word for its break and one for what follows it are neither.
    """
    missing = {"start", "end"} - set(words.values())
    is_break = len(missing) == 1 and len(set(perhaps.values())) > 1
    return {} if is_break else {word: kind for word, kind in perhaps.items() if kind in missing}


def _platform_points(field: Field) -> float:
    known = all(platform_words(text) for text in field.texts())
    return likeness(field.name, PLATFORM) + 2 * known


def _is_id(field: Field) -> bool:
    """Say whether most values can be ids; some may be faulty."""
    values = field.values.values()
    fit = [type(one) in (str, int) and 0 < len(str(one)) <= MAX_ID for one in values]
    return sum(fit) >= MOST * len(fit)


def _numbers_by_value(field: Field) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for number, value in field.values.items():
        found[text_of(value)].append(number)
    return found


def _tells_no_more(field: Field, device: Field) -> bool:
    """Say whether a field has one value for each device, as its owner's name is."""
    theirs: defaultdict[str, set[str]] = defaultdict(set)
    for number, value in field.values.items():
        if number in device.values:
            theirs[text_of(device.values[number])].add(text_of(value))
    return all(len(values) == 1 for values in theirs.values())


def _pairs(fields: list[Field], evidence: Evidence) -> Iterator[Field]:
    """Yield each two fields of one name of which most events have one: after.id and before.id."""
    by_name: defaultdict[str, list[Field]] = defaultdict(list)
    for field in fields:
        if not evidence.has_most(field) and field.values:
            by_name[field.name.rpartition(".")[2]].append(field)
    for some in by_name.values():
        for one, other in combinations(some[:MAX_ALIKE], 2):
            starts = Counter(evidence.events[number] for number in one.values)
            first, second = (one, other) if starts["start"] >= starts["end"] else (other, one)
            yield Field((*first.sources, *second.sources), {**second.values, **first.values})
