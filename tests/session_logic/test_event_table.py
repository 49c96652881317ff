"""Tables of topics: what is wrong with one is said of its key, before anything is read by it."""

from typing import Any

import pytest

from session_logic.event_table import EventTable, FromField, Source, TableError, read_table, sources

TABLE: dict[str, Any] = {
    "platform": "pc",
    "type": "eventId",
    "start": ["Started"],
    "end": "Ended",
    "device": "hostPcId",
    "session": "appSessionId",
}
LEFT_OUT = object()
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"devise": "a"}, "devise is not a key of a table; did you mean device? T"),
    "key like no other": ({"q": "a"}, "q is not a key of a table; There are platform, type,"),
    "unknown table": ({"cary": {"a": "b"}}, "cary is not a key of a table; did you mean carry? T"),
    "topic with a dot": ({"x": {"device": "a"}}, 'a topic with dots is quoted: [inputs."a.b"]'),
    "no device": ({"device": LEFT_OUT}, "device is missing: write a path such as"),
    "no platform": ({"platform": LEFT_OUT}, "platform is missing: write text, or"),
    "number for a path": ({"device": 5}, "device is 5: write a path such as data.id"),
    "number in a list": ({"device": ["a", 5]}, "device is ['a', 5]: write a path such as data.id"),
    "number in a table": ({"carry": {"a": 5}}, "carry is {'a': 5}: write a table of up to 8"),
    "no such unit": ({"time_unit": "min"}, "time_unit is 'min': write \"iso\", \"s\", \"ms\" or"),
    "unit of no time": ({"time_unit": "ms"}, "time is missing, but time_unit is there: write"),
    "no such other": ({"other": "drop"}, "other is 'drop': write \"skip\" or \"reject\""),
    "no such format": ({"format": "csv"}, 'format is \'csv\': write "json", "json_sr" or "avro"'),
    "no device in a list": ({"device": []}, "device is empty: write a path"),
    "empty path": ({"device": ""}, "device is '': a name is missing in the path; write a path"),
    "two dots": ({"session": "a..b"}, "session is 'a..b': a name is missing in the path"),
    "dot at the end": ({"time": ["a", "b."]}, "time is 'b.': a name is missing in the path"),
    "root alone": ({"type": "$"}, "type is '$': a name is missing in the path"),
    "root without a name": ({"type": "$."}, "type is '$.': a name is missing in the path"),
    "array": ({"device": "events[0].id"}, "device is 'events[0].id': a path does not go into arr"),
    "quotes": ({"device": 'a."b"'}, "a name in a path has no quotes, backslashes or control"),
    "control character": ({"device": "a\tb"}, "a name in a path has no quotes, backslashes or"),
    "deep path": ({"device": ".".join("a" * 17)}, "a path has at most 16 names"),
    "header without a name": ({"type": "header:"}, "type is 'header:': the name of the header is"),
    "no platform in text": ({"platform": ""}, "platform is '': write 1 to 128 characters"),
    "long platform": ({"platform": "x" * 129}, "xx': write 1 to 128 characters"),
    "path of the platform": ({"platform": {"field": "a."}}, "platform.field is 'a.': a name is mi"),
    "no path of the platform": ({"platform": {"field": []}}, "platform.field is '': a name is mis"),
    "platform of what": ({"platform": {"path": "a"}}, "platform is {'path': 'a'}: write text, or"),
    "words without a type": ({"type": LEFT_OUT}, "start has words, but there is no type: write"),
    "type without words": ({"start": [], "end": []}, "start is missing: write what type has in a"),
    "empty word": ({"end": ["a", ""]}, "end has an empty word: take it out"),
    "word of two kinds": ({"ping": "Started"}, "ping has 'Started', and so has start: take one"),
    "word twice": ({"end": ["a", "a"]}, "end has 'a', and so has end: take one out"),
    "too much to carry": ({"carry": {f"n{n}": "a" for n in range(9)}}, "carry has 9 names: at"),
    "no name to carry": ({"end_carry": {"": "a"}}, "end_carry has the name '': write 1 to 128"),
    "no path to carry": ({"carry": {"a": "b..c"}}, "carry.a is 'b..c': a name is missing in the"),
    "nothing to carry": ({"carry": {"a": []}}, "carry.a is '': a name is missing in the path"),
    "negative timeout": ({"idle_timeout_ms": -1}, "idle_timeout_ms is -1: write milliseconds"),
    "timeout in words": ({"idle_timeout_ms": "1s"}, "idle_timeout_ms is '1s': write milliseconds"),
    "opened by no ping": (
        {"open_on_ping": True, "ping": []},
        "open_on_ping is true, but there is no ping: write a word, or a list of words",
    ),
    "carried from both": (
        {"carry": {"a": "b"}, "end_carry": {"a": "c"}},
        "end_carry.a is in carry as well: give it another name",
    ),
}  # fmt: skip


def table(**changes: Any) -> dict[str, Any]:
    """Return the plain values of a table with some changed or left out."""
    return {k: v for k, v in (TABLE | changes).items() if v is not LEFT_OUT}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_table_is_one_line_that_begins_with_its_key(name: str) -> None:
    """The key, what it has, and what to write instead."""
    changes, text = WRONG[name]
    with pytest.raises(TableError) as error:
        read_table(table(**changes))
    assert text in str(error.value)
    assert str(error.value) == error.value.key + error.value.problem
    assert error.value.key.partition(".")[0] in {*changes, "start", "time"}
    assert "\n" not in str(error.value)


def test_what_is_no_table_is_an_error() -> None:
    """As where a topic has a platform alone, like the topics of our own format."""
    with pytest.raises(TableError, match=r"^ is 'pc': it must be a table with platform, type,"):
        read_table("pc")


def test_text_stands_for_a_list_of_one() -> None:
    """In every key that takes a list."""
    one = read_table(table(device="a", start="b", carry={"n": "c"}))
    several = read_table(table(device=["a"], start=["b"], carry={"n": ["c"]}))
    assert sources(one.device) == sources(several.device)
    assert one.platform == several.platform == "pc"


def test_source_is_a_field_the_key_or_a_header() -> None:
    """The root says that a field is meant, whatever it is called."""
    assert [*sources(("a.b", "key", "header:ce_type", "$.key", "$.a.b", "$.header:x", "Key"))] == [
        Source("field", ("a", "b"), "field a.b"),
        Source("key", (), "the key"),
        Source("header", ("ce_type",), "header ce_type"),
        Source("field", ("key",), "field key"),
        Source("field", ("a", "b"), "field a.b"),
        Source("field", ("header:x",), "field header:x"),
        Source("field", ("Key",), "field Key"),
    ]


def test_platform_is_text_or_where_it_is() -> None:
    """With one path or a list."""
    assert read_table(table(platform={"field": "os"})).platform == FromField("os")
    assert read_table(table(platform={"field": ["os", "key"]})).platform == FromField(("os", "key"))


def test_defaults_are_the_documented_ones() -> None:
    """A table without the optional keys reads everything as it was given, and carries nothing."""
    assert read_table({"platform": "pc", "device": "id"}) == EventTable(
        platform="pc", device="id", type=(), start=(), end=(), ping=(), other="skip", session=(),
        time=(), time_unit="iso", carry={}, end_carry={}, format="json",
    )  # fmt: skip
