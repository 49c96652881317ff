"""How the events of a topic are written: a table of where device, session, time and the rest are.

A table is checked as a whole when it is made, so whatever reads by it needs to check nothing.
Nothing here knows where a table comes from: an error names its key, the caller says of which table.
"""

import difflib
from collections.abc import Iterator
from typing import Annotated, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from session_logic.errors import ConfigError
from session_logic.rules import LONGEST_MS

MAX_CARRIED = 8
MAX_NAMES = 16  # in a path
MAX_NAME = 128  # characters of a platform, or of a name in the context
HEADER = "header:"
ROOT = "$."

SOURCE = "a path such as data.id, or `key`, or `header:NAME`"
SOURCES = f"{SOURCE}, or a list of these"
WORDS = "a word, or a list of words"
CARRIED = 'a table of up to 8 names, such as {account = "data.account"}'
Some = str | tuple[str, ...]


class TableError(ConfigError):
    """A key of a table is wrong: correct it; problem goes on from the name of the key."""

    def __init__(self, key: str, problem: str) -> None:
        """Say which key, and what is wrong with it."""
        super().__init__(f"{key}{problem}")
        self.key = key
        self.problem = problem


class Source(Struct, frozen=True):
    """Where a value is: in a field, in the record's key, or in a header; name says it in words."""

    kind: Literal["field", "key", "header"]
    path: tuple[str, ...]
    name: str


class FromField(Struct, frozen=True, forbid_unknown_fields=True):
    """A platform that a source has, and not the table."""

    field: Some


class EventTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The events of a topic; every name is a key in TOML, and a Meta says what it may be."""

    platform: Annotated[
        str | FromField,
        Meta(
            description="The platform of all sessions of the topic, or where an event has it.",
            extra={"allowed": 'text, or {field = "data.os"}'},
        ),
    ]
    type: Annotated[
        Some, Meta(description="Where the kind of an event is.", extra={"allowed": SOURCES})
    ] = ()
    start: Annotated[
        Some, Meta(description="What `type` has in a start.", extra={"allowed": WORDS})
    ] = ()
    end: Annotated[
        Some, Meta(description="What `type` has in an end.", extra={"allowed": WORDS})
    ] = ()
    ping: Annotated[
        Some,
        Meta(
            description="What `type` has in a sign of life. Without idle_timeout_ms and "
            "open_on_ping, these records are skipped and counted.",
            extra={"allowed": WORDS},
        ),
    ] = ()
    other: Annotated[
        Literal["skip", "reject"],
        Meta(
            description="What becomes of a record whose type is none of these words: it is skipped "
            "and counted, or it is a dead letter.",
            extra={"allowed": '"skip" or "reject"'},
        ),
    ] = "skip"
    device: Annotated[Some, Meta(description="Where the device id is.", extra={"allowed": SOURCES})]
    session: Annotated[
        Some,
        Meta(
            description="Where the session id is. Without it the start's time in milliseconds "
            "names the session, and an end ends the one that is active.",
            extra={"allowed": SOURCES},
        ),
    ] = ()
    time: Annotated[
        Some,
        Meta(
            description="Where the time of the event is. Without it, it is the record's timestamp.",
            extra={"allowed": SOURCES},
        ),
    ] = ()
    time_unit: Annotated[
        Literal["iso", "s", "ms", "us"],
        Meta(
            description="How that time is written: ISO 8601 (UTC where it has no zone), or "
            "seconds, milliseconds or microseconds since 1970, as a number or as text.",
            extra={"allowed": '"iso", "s", "ms" or "us"'},
        ),
    ] = "iso"
    carry: Annotated[
        dict[str, Some],
        Meta(
            description="What of a start is in the `context` of every record of its session, "
            "by the name that it has there.",
            extra={"allowed": CARRIED},
        ),
    ] = {}
    end_carry: Annotated[
        dict[str, Some],
        Meta(
            description="What of an end is in the `context` of its `SessionEnd`.",
            extra={"allowed": CARRIED},
        ),
    ] = {}
    idle_timeout_ms: Annotated[
        int | None,
        Meta(
            description="A session that begins by an event of the topic ends when nothing is heard "
            "of it for so long; 0 for never. Without it, what is set for all topics counts.",
            extra={"allowed": f"milliseconds, 0 to {LONGEST_MS}"},
        ),
    ] = None
    open_on_ping: Annotated[
        bool,
        Meta(
            description="Whether a ping begins a session where none is active. In a topic without "
            "`type`, every record is a ping then.",
            extra={"allowed": "true or false"},
        ),
    ] = False
    format: Annotated[
        Literal["json", "json_sr", "avro"],
        Meta(
            description="`json_sr` is JSON framed for a schema registry: the five bytes before "
            "it are passed over, where they are there. `avro` is read by the schema whose id is "
            "before it, or in a header.",
            extra={"allowed": '"json", "json_sr" or "avro"'},
        ),
    ] = "json"

    def __post_init__(self) -> None:
        """Raise TableError for a path that cannot be, or for words that do not fit together."""
        for key, some in self._sources():
            for text in _list(some):
                if (problem := _wrong_source(text)) is not None:
                    raise TableError(key, f" is {text!r}: {problem}; write {SOURCE}")
        if not self.device:
            raise TableError("device", f" is empty: write {SOURCES}")
        platform = self.platform
        if isinstance(platform, str) and not 0 < len(platform) <= MAX_NAME:
            raise TableError("platform", f" is {platform!r}: write 1 to {MAX_NAME} characters")
        if self.time_unit != "iso" and not self.time:
            raise TableError("time", f" is missing, but time_unit is there: write {SOURCES}")
        if self.idle_timeout_ms is not None and not 0 <= self.idle_timeout_ms <= LONGEST_MS:
            problem = f" is {self.idle_timeout_ms}: write {allowed('idle_timeout_ms')}"
            raise TableError("idle_timeout_ms", problem)
        self._check_words()
        self._check_carried()

    def _sources(self) -> Iterator[tuple[str, Some]]:
        if isinstance(self.platform, FromField):
            yield "platform.field", self.platform.field or ""
        for key in ("type", "device", "session", "time"):
            yield key, getattr(self, key)
        for key in ("carry", "end_carry"):
            for name, some in getattr(self, key).items():
                yield f"{key}.{name}", some or ""

    def _check_words(self) -> None:
        words = {key: _list(getattr(self, key)) for key in ("start", "end", "ping")}
        kinds: dict[str, str] = {}
        for key, some in words.items():
            if some and not self.type:
                raise TableError(key, " has words, but there is no type: write where they are")
            for word in some:
                if not word:
                    raise TableError(key, " has an empty word: take it out")
                if word in kinds:
                    raise TableError(key, f" has {word!r}, and so has {kinds[word]}: take one out")
                kinds[word] = key
        if self.open_on_ping and self.type and not words["ping"]:
            raise TableError("open_on_ping", f" is true, but there is no ping: write {WORDS}")
        if self.type and not words["start"] and not words["end"] and not self.open_on_ping:
            raise TableError("start", f" is missing: write what type has in a start, {WORDS}")

    def _check_carried(self) -> None:
        for key in ("carry", "end_carry"):
            names = getattr(self, key)
            if len(names) > MAX_CARRIED:
                raise TableError(key, f" has {len(names)} names: at most {MAX_CARRIED} are carried")
            for name in names:
                if not 0 < len(name) <= MAX_NAME:
                    raise TableError(
                        key, f" has the name {name!r}: write 1 to {MAX_NAME} characters"
                    )
        for name in self.carry.keys() & self.end_carry.keys():
            raise TableError(f"end_carry.{name}", " is in carry as well: give it another name")


def read_table(plain: object) -> EventTable:
    """Return the table that plain values describe; raises TableError if they describe none."""
    keys = EventTable.__struct_fields__
    if not isinstance(plain, dict):
        raise TableError("", f" is {plain!r}: it must be a table with {', '.join(keys)}")
    for key, value in plain.items():
        if key not in keys:
            raise TableError(key or '""', _unknown(key, value))
    for key in ("platform", "device"):
        if key not in plain:
            raise TableError(key, f" is missing: write {allowed(key)}")
    try:
        return msgspec.convert(plain, EventTable)
    except msgspec.ValidationError as error:
        key = str(error).rpartition("`$.")[2].rstrip("`").partition(".")[0].partition("[")[0]
        raise TableError(key, f" is {plain[key]!r}: write {allowed(key)}") from None


def allowed(key: str) -> str:
    """Return in words what a key may be."""
    (meta,) = get_type_hints(EventTable, include_extras=True)[key].__metadata__
    return str(meta.extra["allowed"])


def sources(some: Some) -> tuple[Source, ...]:
    """Return the sources that a key names, in the order in which they are looked at."""
    return tuple(map(_source, _list(some)))


def words(some: Some) -> tuple[str, ...]:
    """Return the words of a key."""
    return _list(some)


def _list(some: Some) -> tuple[str, ...]:
    return (some,) if isinstance(some, str) else some


def _source(text: str) -> Source:
    if text == "key":
        return Source("key", (), "the key")
    if text.startswith(HEADER):
        name = text.removeprefix(HEADER)
        return Source("header", (name,), f"header {name}")
    path = text.removeprefix(ROOT)
    return Source("field", tuple(path.split(".")), f"field {path}")


def _wrong_source(text: str) -> str | None:
    """Return why a text names no source, or None if it does."""
    if text.startswith(HEADER):
        return None if text != HEADER else "the name of the header is missing"
    names = text.removeprefix(ROOT).split(".")
    if not all(names) or text == "$":
        return "a name is missing in the path"
    if len(names) > MAX_NAMES:
        return f"a path has at most {MAX_NAMES} names"
    if any(sign in text for sign in "[]"):
        return "a path does not go into arrays"
    if any(sign in '"\\' or sign < " " for sign in text):
        return "a name in a path has no quotes, backslashes or control characters"
    return None


def _unknown(key: str, value: object) -> str:
    nearest = difflib.get_close_matches(key, EventTable.__struct_fields__, n=1)
    if isinstance(value, dict) and not nearest:
        return ' is not a key of a table; a topic with dots is quoted: [inputs."a.b"]'
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f" is not a key of a table; {hint}There are {', '.join(EventTable.__struct_fields__)}"
