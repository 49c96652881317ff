"""What can be carried: JSON that every parser takes for the same, as it stands in the event."""

import pytest

from session_logic.carried_json import MAX_BYTES, MAX_DEPTH, MAX_RAW_BYTES, checked, member_name

AS_IT_STANDS = [
    b'""', b'"abc DEF ~"', b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"', '"é€😀"'.encode(),
    b'"\\ud83d\\ude00"',
    b"0", b"-0", b"7", b"1.50", b"-1e5", b"1E+2", b"123456789012345678901234567890", b"true",
    b"false", b"null", b"[]", b"{}", b'[1,2.50,"x y"]', b'{"a":{"b":[null]},"c":{"b":1}}',
    b'"\x7f"',
]  # fmt: skip
WRONG = {
    b'"\xff"': "is not valid JSON",
    b'"\xed\xa0\x80"': "is not valid JSON",
    b'"\\ud800"': "is not valid JSON",
    b'["\\ud800"]': "is not valid JSON",
    b"1e999": "is not valid JSON",
    b"[1e999]": "is not valid JSON",
    b"[" * 2_000 + b"]" * 2_000: "is not valid JSON|objects and arrays deep",
    b"[" * 33 + b"]" * 33: "is 33 objects and arrays deep: at most 32 are carried",
    b'{"a":' * 33 + b"1" + b"}" * 33: "is 33 objects and arrays deep",
    b'{"a":1,"a":2}': "has a field twice in an object",
    b'[{"b":{"a":1,"\\u0061":2}}]': "has a field twice in an object",
    b'"' + b"x" * 255 + b'"': "has 257 bytes: at most 256 are carried",
    b'"' + "é".encode() * 128 + b'"': "has 258 bytes: at most 256 are carried",
    b"[" + b" " * MAX_RAW_BYTES + b"]": f"has {MAX_RAW_BYTES + 2} bytes",
}


@pytest.mark.parametrize("raw", AS_IT_STANDS)
def test_value_is_carried_as_it_stands(raw: bytes) -> None:
    """Escapes, and the form of a number, are kept."""
    assert checked(raw) == raw


def test_spaces_between_the_parts_are_left_out() -> None:
    """They count for no limit, within reason."""
    assert checked(b'{ "a b" : [ 1 ,\n\t2 ] }') == b'{"a b":[1,2]}'
    assert checked(b"[" + b" " * MAX_BYTES + b"1]") == b"[1]"


@pytest.mark.parametrize("raw", WRONG, ids=lambda raw: raw[:20])
def test_value_that_cannot_be_carried_says_why(raw: bytes) -> None:
    """It would not be read, or not by all alike."""
    with pytest.raises(ValueError, match=WRONG[raw]):
        checked(raw)


def test_value_at_a_limit_is_carried() -> None:
    """Both limits themselves are allowed."""
    text = b'"' + b"x" * (MAX_BYTES - 2) + b'"'
    assert checked(text) == text
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert checked(deep) == deep


def test_name_is_written_as_json() -> None:
    """Whatever is in it."""
    assert member_name('a"é') == '"a\\"é":'.encode()
