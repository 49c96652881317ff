"""Where a store begins to read: words, and moments in ISO 8601."""

import pytest

from dataflows.start import start_ms


@pytest.mark.parametrize("word", ["earliest", "latest"])
def test_word_is_no_moment(word: str) -> None:
    """Whoever reads decides by the word."""
    assert start_ms(word) is None


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("2026-11-25T00:00:00Z", 1_795_564_800_000),
        ("2026-11-25T01:30:00+01:30", 1_795_564_800_000),
        ("2026-11-25 00:00:00.127Z", 1_795_564_800_127),
        ("2026-11-25T00:00:00.127999+00:00", 1_795_564_800_127),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_moment_is_exact_to_the_millisecond(text: str, expected_ms: int) -> None:
    """No timestamp of Kafka is finer, and none in between is left out."""
    assert start_ms(text) == expected_ms


@pytest.mark.parametrize(
    "text",
    [
        "", "End", "1795564800000", "2026-11-25", "2026-11-25T00:00:00", "2026-13-01T00:00:00Z",
        " 2026-11-25T00:00:00Z", "1969-12-31T23:59:59.999Z", "yesterday", "15m",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """Above all a moment without a zone; Kafka takes -1 and -2 ms for words of its own."""
    with pytest.raises(
        ValueError, match=r"Invalid isoformat|month must be|has no zone|is before 1970"
    ):
        start_ms(text)
