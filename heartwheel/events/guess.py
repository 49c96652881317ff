"""A table that may suit a topic, with what speaks against each of its keys; it is a proposal."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from heartwheel.events.evidence import MAX_ID, Evidence, Ranking
from heartwheel.events.fields import REJECTED, Field, Read, Seen, read_json
from heartwheel.events.records import SeenRecord
from heartwheel.events.times import UNIT_NAMES, Reading, are_nanoseconds, distance_text
from heartwheel.events.vocabulary import Kind, leaf, platform_words
from session_logic.codec import decode_input
from session_logic.event_time import Timestamp
from session_logic.events import Rejected

# By so many points must a field be before the next.
CLEAR = 2
# From so many records on their repetitions tell something.
ENOUGH = 20
SHOWN_FIELDS, SHOWN_WORDS, MAX_SHOWN = 3, 12, 40
LATE_MS = 86_400_000
# The type of a change event, and its words for a row that is new, and for one that was there.
CHANGE, CREATED, READ = "op", "c", "r"
WITHOUT_END = "Without one, write an idle_timeout_ms after which sessions end."
KINDS: tuple[Kind, ...] = ("start", "end", "ping")


class Choice(Struct, frozen=True):
    """What is proposed for a key of a table, None if nothing, and why: each note is a sentence.

    One that is optional stands in a comment.
    """

    key: str
    value: object
    notes: Sequence[str] = ()
    optional: bool = False


class Proposal(Struct, frozen=True):
    """A table for a topic; missing are the keys that it must have and that were not found."""

    topic: str
    notes: Sequence[str]
    choices: Sequence[Choice]
    missing: Sequence[str]


def propose(topic: str, records: Sequence[SeenRecord], read: Read = read_json) -> Proposal:
    """Return a table for the topic of these records, of which there is at least one."""
    seen = Seen.of(records, read)
    found = Evidence(seen)
    choices = [
        _platform(topic, found),
        *_type_and_words(found),
        _device(found),
        _session(found),
        *_time(found),
        *_carry(found),
        *_format(seen),
    ]
    there = {choice.key for choice in choices if choice.value is not None}
    missing = [key for key in ("type", "start", "end", "device") if key not in there]
    return Proposal(topic, list(_notes(seen)), choices, missing)


def _notes(seen: Seen) -> Iterator[str]:
    """Yield what the table is made from, and what is rejected whatever the table says."""
    count = len(seen.records)
    yield f"A proposal, made from {_amount(count, 'record')}."
    if sum(not isinstance(decode_input(one.value), Rejected) for one in seen.records) > count / 2:
        yield (
            "Most are in Heartwheel's own format: without a table, HEARTWHEEL_INPUT_TOPICS is all "
            "that names the topic."
        )
    if count < ENOUGH:
        yield "Unsure: so few tell little of how often values repeat."
    for writing, number in seen.writings.most_common():
        if writing in REJECTED:
            yield f"{number} of {count} values {REJECTED[writing]}."


def _platform(topic: str, found: Evidence) -> Choice:
    field = found.platforms.best
    if field is not None:
        return Choice("platform", {"field": _source(field)}, [f"It has {_shown(field)}."])
    words = platform_words(topic)
    if words:
        return Choice("platform", words[0], ["From the name of the topic."])
    note = "Unsure: neither a field nor the name of the topic tells it. Any text will do."
    return Choice("platform", topic[:MAX_ID], [note])


def _type_and_words(found: Evidence) -> Iterator[Choice]:
    field = found.types.best
    if field is None:
        note = "Not found: no field has a few words that look like a start or an end."
        yield Choice("type", None, [note, *_also(found.types)])
        return
    texts = field.texts()
    count = f"{len(field.values)} of {_amount(len(found.seen.records), 'record')}"
    yield Choice("type", _source(field), [f"In {count}.", *_also(found.types)])
    for kind in KINDS:
        words = [word for word, _ in texts.most_common() if found.words[word] == kind]
        perhaps = [word for word, _ in texts.most_common() if found.perhaps.get(word) == kind]
        skipped = [word for word in perhaps if word not in words]
        also = [f"Perhaps these as well: {_counted(skipped, texts)}."] if skipped else []
        if words:
            unsure = ["Unsure: are these all one thing?"] if len(words) > 1 else []
            if words[0] in perhaps:
                unsure.append(f"Unsure: this may tell of something else than {_KIND_NAMES[kind]}.")
            seen = f"Seen: {_counted(words, texts)}."
            if words == [CREATED] and leaf(field.name) == CHANGE:
                words = [CREATED, READ]
                unsure = ["Rows that were there before the first change are r."]
            yield Choice(kind, words, [seen, *unsure, *also])
        elif kind != "ping":
            note = f"Not found: no word looks like {_KIND_NAMES[kind]}."
            without = [WITHOUT_END] if kind == "end" else []
            yield Choice(kind, None, [note, *also, *without])
    others = [word for word, _ in texts.most_common() if found.words[word] is None]
    if others:
        more = f" and {len(others) - SHOWN_WORDS} more" if len(others) > SHOWN_WORDS else ""
        note = f"Seen, and skipped: {_counted(others[:SHOWN_WORDS], texts)}{more}."
        yield Choice("other", "skip", [note])


def _counted(words: Iterable[str], texts: Counter[str]) -> str:
    return ", ".join(f"{word} ({texts[word]})" for word in words)


_KIND_NAMES: dict[Kind, str] = {"start": "a start", "end": "an end", "ping": "a sign of life"}


def _device(found: Evidence) -> Choice:
    field = found.devices.best
    if field is None:
        note = "Not found: no field that most events have looks like the id of a device."
        return Choice("device", None, [note, *_also(found.devices)])
    notes = [_repeats(field)]
    ranking = found.devices
    if field.name != "key" and found.is_key(field):
        notes.append("The key of the record has the same.")
        ranking = ranking.without("key")
    return Choice("device", _source(field), [*notes, *_doubt(ranking)])


def _session(found: Evidence) -> Choice:
    field = found.sessions.best
    if field is None:
        note = (
            "Not found: the start's time names a session, and an end ends the one that is active."
        )
        return Choice("session", None, [note, *_also(found.sessions)])
    notes = [_repeats(field)]
    if field.sources in found.readings:
        notes.append("It is the time of the start, which the end has as well.")
    return Choice("session", _source(field), [*notes, *_doubt(found.sessions)])


def _time(found: Evidence) -> Iterator[Choice]:
    field = found.times.best
    if field is None:
        note = "Not found: the record's timestamp is the time of its event."
        yield Choice("time", None, [note, *_also(found.times), *_unread(found.unread_times)])
        return
    reading = found.readings[field.sources]
    # A time of Avro comes with its own unit.
    is_own = any(isinstance(value, Timestamp) for value in field.values.values())
    name = "times of Avro" if is_own else UNIT_NAMES[reading.unit]
    yield Choice("time", _source(field), [*_distance(name, reading), *_doubt(found.times)])
    if not is_own:
        yield Choice("time_unit", reading.unit)


def _unread(fields: Sequence[Field]) -> Iterator[str]:
    """Yield which fields are times by their names, and have what no unit reads."""
    for field in fields[:SHOWN_FIELDS]:
        unit = "nanoseconds, which" if are_nanoseconds(field.values.values()) else "which"
        yield (
            f"By its name {field.name} may be a time, but it has {_shown(field, 1)}, {unit} no "
            "time_unit reads: send ISO 8601, or seconds, milliseconds or microseconds since 1970."
        )


def _distance(name: str, reading: Reading) -> Iterator[str]:
    """Yield how far the times are from the records' timestamps."""
    apart_ms = reading.apart_ms
    if apart_ms is None:
        yield f"It has {name}."
        return
    where = "before" if apart_ms >= 0 else "after"
    yield f"It has {name}, {distance_text(apart_ms)} {where} the record's timestamp (median)."
    if apart_ms > LATE_MS:
        yield "With so much, late_limit_ms must be higher, or the timestamp is taken instead."


def _carry(found: Evidence) -> Iterator[Choice]:
    """Yield, as a comment, which fields of a start consumers may want."""
    if found.carried:
        fields = {field.sources[0].rpartition(".")[2]: field.sources[0] for field in found.carried}
        some = dict(list(fields.items())[:SHOWN_FIELDS])
        note = "Consumers may want these of a start, in the `context` of its session."
        yield Choice("carry", some, [note], optional=True)


def _format(seen: Seen) -> Iterator[Choice]:
    framed, avro = seen.writings["json_sr"], seen.writings["avro"]
    if avro:
        note = f"{avro} of {len(seen.records)} values are Avro; HEARTWHEEL_REGISTRY_URL is needed."
        yield Choice("format", "avro", [note])
    elif framed:
        note = f"{framed} of {len(seen.records)} values have the five bytes of a schema registry."
        yield Choice("format", "json_sr", [note])


def _repeats(field: Field) -> str:
    texts, count = field.texts(), len(field.values)
    return f"{_amount(len(texts), 'value')} in {_amount(count, 'event')}."


def _doubt(ranking: Ranking) -> Iterator[str]:
    """Yield what else it may be, and whether that is nearly as likely."""
    also = list(_also(ranking))
    if also and ranking.lead < CLEAR:
        yield "Unsure."
    yield from also


def _also(ranking: Ranking) -> Iterator[str]:
    others = ranking.others[:SHOWN_FIELDS]
    if others:
        yield f"Also possible: {', '.join(f'{one.name} ({_shown(one, 1)})' for one in others)}."


def _shown(field: Field, most: int = SHOWN_FIELDS) -> str:
    texts = [text for text, _ in field.texts().most_common(most)]
    return ", ".join(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…" for text in texts)


def _source(field: Field) -> str | list[str]:
    return field.sources[0] if len(field.sources) == 1 else list(field.sources)


def _amount(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
