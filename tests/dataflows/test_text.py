"""Text that senders have chosen, for logs, labels and terminals, and numbers in it."""

import pytest

from dataflows.text import INT64, printable, whole_number


def test_text_from_outside_gives_no_orders_to_a_terminal() -> None:
    """Escapes, line breaks and bytes that are no text are written out."""
    assert printable(b"a\x1b[31m\n\xff\x00") == "a\\x1b[31m\\n\\xff\\x00"
    assert printable("\u202eevil") == "\\u202eevil"
    assert printable("größe 心") == "größe 心"
    assert printable(None) == "-"


@pytest.mark.parametrize("text", ["0", "17", "007", str(INT64.stop - 1)])
def test_digits_are_a_number_as_far_as_kafka_has_such(text: str) -> None:
    """An offset is of 64 bits, with a sign."""
    assert whole_number(text) == int(text)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", " 1", "1\n", "1_0", "x", "\u00b2", "\u0663", str(INT64.stop), "1" * 5000],
)
def test_what_kafka_has_no_number_for_is_none(text: str) -> None:
    """Neither digits of other scripts, nor more of them than Python reads."""
    assert whole_number(text) is None


def test_number_below_0_is_one_where_that_is_wanted() -> None:
    """Such as the time of a record that has none."""
    assert whole_number("-1", -1) == -1
    assert whole_number("-2", -1) is None
