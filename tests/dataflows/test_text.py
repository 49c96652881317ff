"""Text that senders have chosen, for logs, labels and terminals."""

from dataflows.text import printable


def test_text_from_outside_gives_no_orders_to_a_terminal() -> None:
    """Escapes, line breaks and bytes that are no text are written out."""
    assert printable(b"a\x1b[31m\n\xff\x00") == "a\\x1b[31m\\n\\xff\\x00"
    assert printable("\u202eevil") == "\\u202eevil"
    assert printable("größe 心") == "größe 心"
    assert printable(None) == "-"
