"""Bytes and times as text."""

from heartwheel.text import duration_text, moment_text, text_or_bytes


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
