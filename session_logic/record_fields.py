"""Where the values of a record are, and how they are taken out: fast, or slowly and in general.

A Get gives one value of a record. For FastFields the fields of a record are a msgspec Struct that
has those which a table names, so that the decoder passes over all the others. It raises for a field
that holds an array or an object instead of a value. For SlowFields they are a dict of all fields,
not decoded yet. Where both find something, they find the same.

A record is (fields, key, headers); where a table needs no key and no header, it is the Struct
alone, because nothing gets an attribute as fast as attrgetter does.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct, defstruct

from session_logic.event_table import Source

Headers = Sequence[tuple[str, bytes | None]]
Record = Any
# A value is None where it is not there, or null; bytes are a key or a header that is no text. What
# is carried is JSON as it stands in the record, b"" or None where it is not there.
Get = Callable[[Record], Any]
Path = tuple[str, ...]

# What cannot be read raises one of these.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_NULL = b"null"
_ABSENT = Raw()
_Scalar = str | int | float | bool | None
_members: Callable[[bytes | Raw], dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any: Callable[[bytes | Raw], Any] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Fields(Protocol):
    """A way to take values out of a record."""

    def value(self, path: Path) -> Get:
        """Return what gets the value of a field."""

    def carried(self, path: Path) -> Get:
        """Return what gets the JSON of a field."""


def value_of(sources: Sequence[Source], fields: Fields) -> Get:
    """Return what gets the value of the first source that is there."""
    gets = [
        fields.value(source.path) if source.kind == "field" else _beside(source)
        for source in sources
    ]
    if len(gets) == 1:
        return gets[0]

    def get_first(record: Record) -> Any:
        found = (get(record) for get in gets)
        return next((value for value in found if value is not None), None)

    return get_first


def carried_of(sources: Sequence[Source], fields: Fields) -> Get:
    """Return what gets the JSON of the first source that is there, or null if one is null."""
    gets = [
        fields.carried(source.path) if source.kind == "field" else _as_json(_beside(source))
        for source in sources
    ]
    if len(gets) == 1:
        return gets[0]

    def get_first(record: Record) -> Any:
        found = [raw for get in gets if (raw := get(record))]
        return next((raw for raw in found if raw != _NULL), _NULL if found else None)

    return get_first


def _beside(source: Source) -> Get:
    """Return what gets the text of a key or of a header, or its bytes where they are no text."""
    if source.kind == "key":
        return lambda record: text_of(record[1])
    (name,) = source.path

    def get(record: Record) -> Any:
        # Of several with a name the last one counts, as for Kafka's own clients.
        found = (content for header, content in reversed(record[2] or ()) if header == name)
        return text_of(next(found, None))

    return get


def text_of(content: bytes | None) -> str | bytes | None:
    """Return bytes as text, or as they are where they are no UTF-8."""
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return content


def _as_json(get: Get) -> Get:
    def get_json(record: Record) -> Any:
        text = get(record)
        return _encode(text) if isinstance(text, str) else text

    return get_json


class SlowFields:
    """All fields of a record, each decoded when it is asked for."""

    @staticmethod
    def decode(value: bytes) -> dict[str, Raw]:
        """Return the fields; raises one of UNREADABLE."""
        return _members(value)

    @staticmethod
    def value(path: Path) -> Get:
        """Return what gets the value of a field."""
        return lambda record: _value(_find(record[0], path))

    @staticmethod
    def carried(path: Path) -> Get:
        """Return what gets the JSON of a field."""
        return lambda record: bytes(_find(record[0], path))


def _find(members: dict[str, Raw], path: Path) -> Raw:
    """Return what stands in a field; a path that leads into no object leads nowhere."""
    *parents, name = path
    for parent in parents:
        raw = bytes(members.get(parent, _ABSENT))
        members = _members(raw) if raw.startswith(b"{") else {}
    return members.get(name, _ABSENT)


def _value(raw: Raw) -> Any:
    return _decode_any(raw) if bytes(raw) else None


class FastFields:
    """The fields that a table names, by a Struct that is made for them."""

    def __init__(self, values: Sequence[Source], carried: Sequence[Source]) -> None:
        """Make the Struct for what is needed as a value, and what is carried."""
        self._top = _Node()
        self.is_alone = all(source.kind == "field" for source in (*values, *carried))
        for sources, is_carried in ((values, False), (carried, True)):
            for source in sources:
                if source.kind == "field":
                    self._top.add(source.path, is_carried=is_carried)
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(self._top.struct()).decode

    @property
    def is_empty(self) -> bool:
        """Whether no field is needed, so that the value need not be read."""
        return not self._top.nodes

    def value(self, path: Path) -> Get:
        """Return what gets the value of a field."""
        attributes, rest, is_raw = self._top.place(path)
        get = self._get(attributes)
        return (lambda record: _value(_inside(get(record), rest))) if is_raw else get

    def carried(self, path: Path) -> Get:
        """Return what gets the JSON of a field."""
        attributes, rest, _ = self._top.place(path)
        get = self._get(attributes)
        if len(attributes) == 1 and not rest:
            return lambda record: bytes(get(record))
        return lambda record: bytes(_inside(get(record), rest))

    def _get(self, attributes: Sequence[str]) -> Get:
        """Return what gets an attribute of an attribute, and so on, of the Struct of a record."""
        get = attrgetter(attributes[0]) if len(attributes) == 1 else _inner(attributes)
        return get if self.is_alone else lambda record: get(record[0])


def _inner(names: Sequence[str]) -> Callable[[Any], Any]:
    def get(fields: Any) -> Any:
        for name in names:
            if fields is None:
                return None
            fields = getattr(fields, name)
        return fields

    return get


def _inside(raw: Raw | None, rest: Path) -> Raw:
    """Return what stands in a field of a raw object; without a path, the object itself."""
    if raw is None:
        return _ABSENT
    return _find({"": raw}, ("", *rest)) if rest else raw


class _Node:
    """A field that a table names, or one that such fields are in."""

    def __init__(self) -> None:
        self.nodes: dict[str, _Node] = {}
        self.is_value = self.is_carried = False

    def add(self, path: Path, *, is_carried: bool) -> None:
        """Take in that a table names this path."""
        if path:
            self.nodes.setdefault(path[0], _Node()).add(path[1:], is_carried=is_carried)
        else:
            self.is_value, self.is_carried = True, self.is_carried or is_carried

    @property
    def is_raw(self) -> bool:
        """Whether it stays as it stands: it is carried, or a value that others are in as well."""
        return self.is_carried or (self.is_value and bool(self.nodes))

    def struct(self) -> type[Struct]:
        """Return a Struct with these nodes, called by their places: a name may be any text."""
        fields: list[tuple[str, Any, Any]] = []
        for number, (name, node) in enumerate(self.nodes.items()):
            kind: Any = _Scalar
            if node.is_raw:
                kind = Raw
            elif node.nodes:
                kind = node.struct() | None
            default = _ABSENT if node.is_raw else None
            fields.append((f"f{number}", kind, msgspec.field(name=name, default=default)))
        return defstruct("Fields", fields, gc=False)

    def place(self, path: Path) -> tuple[list[str], Path, bool]:
        """Return the attributes that lead to a path, the rest of it, and whether that is raw.

        There is a rest where a field on the way is raw.
        """
        node, attributes = self, []
        for index, name in enumerate(path):
            attributes.append(f"f{list(node.nodes).index(name)}")
            node = node.nodes[name]
            if node.is_raw:
                return attributes, path[index + 1 :], True
        return attributes, (), False
