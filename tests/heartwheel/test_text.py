"""Bytes and times as text, for JSON and for a terminal."""

from heartwheel.text import duration_text, moment_text, printable, text_or_bytes


def test_text_from_outside_gives_no_orders_to_a_terminal() -> None:
    """Escapes, line breaks and bytes that are no text are written out."""
    assert printable(b"a\x1b[31m\n\xff\x00") == "a\\x1b[31m\\n\\xff\\x00"
    assert printable("\u202eevil") == "\\u202eevil"
    assert printable("größe 心") == "größe 心"
    assert printable(None) == "-"


def test_times_are_shown_with_the_largest_whole_unit() -> None:
    """And what is no time is a word."""
    assert [duration_text(ms) for ms in (604_800_000, 90_000, 250, -1)] == [
        "7 d", "90 s", "250 ms", "forever",
    ]  # fmt: skip
    assert moment_text(1795428000000) == "2026-11-23 10:00:00.000Z"
    assert [moment_text(ms) for ms in (-1, 2**62)] == ["never", "never"]


def test_bytes_are_text_only_if_they_are_utf_8() -> None:
    """Nothing is replaced, so the bytes can be had again."""
    assert text_or_bytes("größe".encode()) == ("größe", None)
    assert text_or_bytes(b"\xff") == (None, b"\xff")
    assert text_or_bytes(None) == (None, None)
