"""A proposed table as TOML: quoted where it must be, with notes that stay comments."""

import tomllib

import pytest

from heartwheel.events.guess import Choice, Proposal
from heartwheel.views.proposal import to_toml, toml_lines

TEXTS = [
    "",
    "plain",
    'q"uote',
    "back\\slash",
    "new\nline",
    "\x00\x7f\x1b",
    "\u2028\u202e",
    "ü😀",
    "a.b",
    "'",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    """As a value, in a list, and as a name in a table; on one line that shows as it is."""
    for value in (text, [text, text], {text or "a": text}):
        line = f"a = {to_toml(value)}"
        assert tomllib.loads(line)["a"] == value
        assert line.isprintable()


@pytest.mark.parametrize("topic", ["plain_topic-1", "a.b", "with space", 'q"', "\n[kafka]", "ü"])
def test_any_topic_is_the_name_of_the_table(topic: str) -> None:
    """Names that are no bare keys are quoted."""
    lines = list(toml_lines(Proposal(topic, [], [Choice("platform", "pc")], [])))
    assert tomllib.loads("\n".join(lines)) == {"inputs": {topic: {"platform": "pc"}}}
    assert (lines[0] == f"[inputs.{topic}]") == (topic == "plain_topic-1")


def test_what_was_not_found_and_what_is_optional_are_comments() -> None:
    """Under the name of their keys; notes are folded to what a terminal shows."""
    proposal = Proposal(
        "t",
        ["Made from 3 records."],
        [
            Choice("device", ["a.id", "b.id"], ["One note. " * 12, "Another\nnote."]),
            Choice("session", None, ["Not found."]),
            Choice("carry", {"title": "data.title"}, ["Perhaps."], optional=True),
        ],
        [],
    )
    lines = list(toml_lines(proposal))
    assert lines[:2] == ["# Made from 3 records.", "[inputs.t]"]
    assert lines[-3:] == ["# session: Not found.", "# Perhaps.", '# carry = {title = "data.title"}']
    assert 'device = ["a.id", "b.id"]' in lines
    assert "Another\\nnote." in "".join(lines)
    assert max(map(len, lines)) <= 100
    assert tomllib.loads("\n".join(lines)) == {"inputs": {"t": {"device": ["a.id", "b.id"]}}}
