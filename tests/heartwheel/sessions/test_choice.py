"""Which sessions a choice takes, and what it refuses to choose by."""

import pytest

from heartwheel.sessions.choice import Choice, ChoiceError
from session_logic.rules import CarryingSession, Session, WatchedSession

PLAIN = Session("d", "s", "pc", 1)
CONTEXT = (
    b'{"account":"\\u00e4\\"x","title":7,"share":1.50,"paid":true,"clan":null,"at":{"a":[1]},'
    b'"of.what":"7"}'
)
CARRYING = CarryingSession("d", "s", "pc", 1, context=CONTEXT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("platform", "pc"),
        ("context.account", 'ä"x'),
        ("context.title", "7"),
        ("context.of.what", "7"),
        ("context.share", "1.50"),
        ("context.paid", "true"),
        ("context.clan", "null"),
        ("context.at", '{"a":[1]}'),
    ],
)
def test_value_is_asked_for_as_it_stands_in_the_record_or_as_its_text(
    name: str, value: str
) -> None:
    """Text without its quotes and escapes, anything else as JSON has it."""
    assert Choice.of([(name, value)]).takes(CARRYING)
    for other in ("", value + "x", value[:-1], f'"{value}"'):
        assert not Choice.of([(name, other)]).takes(CARRYING)


def test_session_must_have_all_names_and_may_have_any_value_of_each() -> None:
    """As with filters of any search."""
    either = [("platform", "console"), ("platform", "pc")]
    assert Choice.of(either).takes(PLAIN)
    assert Choice.of([*either, ("context.title", "8"), ("context.title", "7")]).takes(CARRYING)
    assert not Choice.of([*either, ("context.title", "8")]).takes(CARRYING)
    assert not Choice.of([("platform", "console"), ("context.title", "7")]).takes(CARRYING)


def test_session_that_carries_nothing_has_no_context_to_be_chosen_by() -> None:
    """Neither does a name that is not carried equal anything."""
    watched = WatchedSession("d", "s", "pc", 1, last_seen_ms=1, idle_timeout_ms=9)
    for session in (PLAIN, watched):
        assert not Choice.of([("context.title", "7")]).takes(session)
    assert not Choice.of([("context.other", "7")]).takes(CARRYING)
    assert Choice.of([]).takes(PLAIN)


@pytest.mark.parametrize("name", ["", "Platform", "context", "context.", "device_id", "limits"])
def test_name_that_sessions_cannot_be_chosen_by_is_refused(name: str) -> None:
    """A filter that is not understood must not look like one that takes all."""
    with pytest.raises(ChoiceError, match=r"write platform=pc, or context\.NAME=VALUE"):
        Choice.of([("platform", "pc"), (name, "x")])
