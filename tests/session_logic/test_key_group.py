"""Tests of a group of devices."""

from session_logic.key_group import MAX_ENDED, KeyGroup
from session_logic.rules import Session


def session(name: str, ended_ms: int = 0) -> Session:
    """Return a session of device d."""
    return Session("d", name, "pc", 1, ended_ms)


def test_device_whose_sessions_end_one_after_another_knows_each_until_it_is_forgotten() -> None:
    """None, one and several ended sessions of a device are told and dropped alike."""
    group = KeyGroup()
    assert list(group.ended("d")) == []
    ended = [session(name) for name in "abc"]
    for number, one in enumerate(ended, 1):
        group.put(one)
        one.ended_ms = number
        group.end(one)
        assert list(group.ended("d")) == ended[:number]
    active = session("e")
    group.put(active)
    assert group.sessions() == [active, *ended]
    group.forget(ended[1])
    assert list(group.ended("d")) == [ended[0], ended[2]]
    group.forget(ended[0])
    assert list(group.ended("d")) == [ended[2]]
    group.forget(ended[2])
    assert list(group.ended("d")) == []
    assert group.sessions() == [active]


def test_loaded_sessions_are_those_that_were_stored() -> None:
    """Active and ended ones alike, several of a device among them."""
    stored = [session("a", 5), session("b", 6), session("c")]
    group = KeyGroup()
    assert group.load(stored) == stored[2:]
    assert group.active == {"d": stored[2]}
    assert group.sessions() == [stored[2], *stored[:2]]


def test_end_that_made_room_for_another_is_not_forgotten_twice() -> None:
    """The wheel may come to it later: then the end that took its place stays."""
    group = KeyGroup()
    gone = [group.put(session(f"s{n}", n + 1)) for n in range(MAX_ENDED + 1)][-1]
    assert gone is not None
    assert gone.crowded_out
    assert gone.session.session_id == "s0"
    group.forget(gone.session)
    assert len(list(group.ended("d"))) == MAX_ENDED
    relaunched = session("s1", 99)
    group.put(relaunched)
    group.forget(session("s1", 2))
    assert list(group.ended("d"))[-1] is relaunched
