"""Why nothing, or nearly nothing, of a topic becomes an event: what a person is likely to mend."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence

from heartwheel.events.fields import REJECTED, Read, Scalar, Seen, read_json, text_of
from heartwheel.events.times import UNIT_NAMES, distance_text, reading_of
from heartwheel.events.trial import Outcome
from session_logic.event_table import EventTable, FromField, Some, Source, sources, words

NEARLY_ALL = 0.8
ALIKE = 0.6
SHOWN, MAX_SHOWN = 8, 40
LATE_MS = 86_400_000


def likely_causes(
    table: EventTable | None, outcomes: Sequence[Outcome], read: Read = read_json
) -> list[str]:
    """Return sentences that say why; none if enough becomes events, at their own times."""
    bad = [one for one in outcomes if one.becomes in ("skipped", "rejected")]
    if _is_nearly_all(len(bad), outcomes):
        by_fields = [one for one in bad if not one.beside]
        if not _is_nearly_all(len(by_fields), bad):
            return [_most_common(bad)]
        return list(_Causes(table, by_fields, read).found()) or [_most_common(by_fields)]
    late = [one for one in outcomes if one.late]
    if table is not None and _is_nearly_all(len(late), outcomes):
        return list(_Causes(table, late, read).time())
    return []


def _is_nearly_all(count: int, outcomes: Sequence[Outcome]) -> bool:
    return count > 0 and count >= NEARLY_ALL * len(outcomes)


def _most_common(bad: Sequence[Outcome]) -> str:
    """Return what is said of the reason that most have, with an example."""
    (reason, count), *_ = Counter(one.reason for one in bad).most_common(1)
    detail = next(one.detail for one in bad if one.reason == reason)
    return f"{count} of {_records(len(bad))}: {detail}"


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


class _Causes:
    """Looks at records that become no events, with the table by which they are read."""

    def __init__(self, table: EventTable | None, bad: Sequence[Outcome], read: Read) -> None:
        self._table = table
        self._seen = Seen.of([one.record for one in bad], read)
        self._outcomes = bad
        self._fields = {sources(field.sources[0])[0]: field for field in self._seen.fields}

    def found(self) -> Iterator[str]:
        """Yield each cause that is found."""
        written = self._written()
        if written:
            yield written
            return
        if self._table is None:
            yield (
                f"{_most_common(self._outcomes)}; for events of another shape than our own, "
                "`heartwheel events guess` proposes a table"
            )
            return
        yield from self._type()
        yield from self._missing("device", self._table.device)
        yield from self._missing("session", self._table.session)
        if isinstance(self._table.platform, FromField):
            yield from self._missing("platform", self._table.platform.field)
        yield from self.time()

    def _written(self) -> str:
        """Return how the values are written, if that is what is wrong."""
        (writing, count), *_ = self._seen.writings.most_common(1)
        if not self._is_most(count):
            return ""
        if writing in REJECTED and (self._table is None or self._needs_value()):
            return f"the values {REJECTED[writing]}"
        if writing == "json_sr" and (self._table is None or self._table.format == "json"):
            where = "in" if self._table else "describe the topic by a table, with"
            return (
                f'the values are JSON framed for a schema registry; {where} it format = "json_sr"'
            )
        return ""

    def _needs_value(self) -> bool:
        assert self._table is not None
        some = (*words(self._table.type), *words(self._table.device))
        return any(source.kind == "field" for source in sources(some))

    def _is_most(self, count: int) -> bool:
        return count >= NEARLY_ALL * len(self._seen.records)

    def _values(self, some: Some) -> dict[int, Scalar]:
        """Return what the records have where a key of the table says."""
        found: dict[int, Scalar] = {}
        for source in reversed(sources(some)):
            if source in self._fields:
                found |= self._fields[source].values
        return found

    def _missing(self, key: str, some: Some) -> Iterator[str]:
        """Yield that a part of an event is in nearly no record, and what is like it."""
        without = len(self._seen.records) - len(self._values(some))
        if not some or not self._is_most(without):
            return
        names = " and no ".join(source.name.removeprefix("the ") for source in sources(some))
        number = _records(len(self._seen.records))
        no_records = f"{key}: there is no {names} in {without} of {number}"
        near = [hint for source in sources(some) if (hint := self._nearest(source))]
        yield f"{no_records}; {near[0]}" if near else no_records

    def _nearest(self, source: Source) -> str:
        """Return the field, or header, whose name is most like that of a source."""
        wanted = ".".join(source.path)
        fields = {
            ".".join(other.path) or "key": field
            for other, field in self._fields.items()
            if source.kind in (other.kind, "key")
        }
        plain = {_plain(name): field for name, field in reversed(fields.items())}
        plain |= {_plain(name.rpartition(".")[2]): field for name, field in fields.items()} | plain
        near = difflib.get_close_matches(
            _plain(wanted), plain, 1, ALIKE
        ) or difflib.get_close_matches(_plain(wanted.rpartition(".")[2]), plain, 1, ALIKE)
        if near:
            field = plain[near[0]]
            return f"the nearest is {field.name} (in {len(field.values)})"
        if source.kind == "key" or not fields:
            return ""
        common = sorted(fields.values(), key=lambda field: -len(field.values))[:SHOWN]
        return f"seen are {', '.join(field.name for field in common)}"

    def _type(self) -> Iterator[str]:
        """Yield that the type is missing, or which words it has instead of the table's."""
        table = self._table
        assert table is not None
        if not table.type:
            return
        missing = list(self._missing("type", table.type))
        yield from missing
        known = {*words(table.start), *words(table.end), *words(table.ping)}
        texts = Counter(map(text_of, self._values(table.type).values()))
        other = {word: count for word, count in texts.most_common() if word not in known}
        if missing or not self._is_most(sum(other.values())):
            return
        shown = ", ".join(
            f"{_quoted(word)} ({count})" for word, count in list(other.items())[:SHOWN]
        )
        cases = {word.casefold().strip(): word for word in known}
        same = [cases[key] for word in other if (key := word.casefold().strip()) in cases]
        hint = f"; the table has {_quoted(same[0])}, and capitals and spaces count" if same else ""
        yield f"type has {shown}: none is in start, end or ping{hint}"

    def time(self) -> Iterator[str]:
        """Yield that the time is missing, in another unit, or too far from the timestamps."""
        table = self._table
        assert table is not None
        if not table.time:
            return
        yield from self._missing("time", table.time)
        values = self._values(table.time)
        if not values:
            return
        records = self._seen.records
        reading = reading_of(
            [(value, records[n].time_ms) for n, value in values.items()], table.time_unit
        )
        example = _quoted(text_of(next(iter(values.values()))))
        if reading is None:
            if any(one.late or "time" in one.detail for one in self._outcomes):
                yield f"time has {example}, which is no time in a unit that time_unit may be"
        elif reading.unit != table.time_unit:
            yield (
                f'time has {example}: write time_unit = "{reading.unit}" '
                f'({UNIT_NAMES[reading.unit]}), not "{table.time_unit}"'
            )
        elif reading.apart_ms is not None and self._is_apart():
            where = "before" if reading.apart_ms > 0 else "after"
            yield (
                f"time is {distance_text(reading.apart_ms)} {where} the records' timestamps "
                "(median); late_limit_ms and max_clock_skew_ms say how much may be"
            )

    def _is_apart(self) -> bool:
        return any(one.late or one.reason == "in_the_future" for one in self._outcomes)


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")
