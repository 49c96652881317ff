"""What the sessions of a store take with them when the lane goes over to other rules.

A session keeps the heartbeat interval that it started with, so rules have every interval in which
a session beats, and a session names its own by its place. Where the clock of a run was ahead, the
interval also says up to when that run has sent: those heartbeats are out, and come no second time.

What would break it: a place that another interval takes, or a session that is remembered or not
depending on which slots of the wheel have come round.
"""

from msgspec.structs import replace

from session_logic.events import Watermark
from session_logic.rules import Rules
from session_logic.table import SessionTable


def with_intervals_of(stored: Rules, wanted: Rules) -> Rules:
    """Return the wanted rules with the intervals in which stored sessions beat, in their places."""
    return replace(wanted, intervals_ms=stored.intervals_ms, sent_ms=stored.sent_ms)


def sent_until(rules: Rules, upto_ms: int) -> tuple[Rules, list[int]]:
    """Return rules by which every session was sent up to a moment, and each interval's new place.

    Intervals that are the same by that have one place, so a clock that is ahead time and again
    adds no more of them.
    """
    return _with_beats(rules, [(ms, max(sent_ms, upto_ms)) for ms, sent_ms in rules.beats])


def settled(rules: Rules, upto_ms: int) -> tuple[Rules, list[int]]:
    """Return rules without the moments to which time has come, and each interval's new place.

    Each place is a ring of the wheel, and lanes that were moved into one can have many.
    """
    return _with_beats(rules, [(ms, sent_ms * (sent_ms > upto_ms)) for ms, sent_ms in rules.beats])


def _with_beats(rules: Rules, sent: list[tuple[int, int]]) -> tuple[Rules, list[int]]:
    beats = list(dict.fromkeys(sent))
    intervals_ms, sent_ms = zip(*beats, strict=True)
    places = [beats.index(beat) for beat in sent]
    return replace(rules, intervals_ms=intervals_ms, sent_ms=sent_ms), places


def handed_over(
    before: SessionTable, rules: Rules, watermark: Watermark, places: list[int] | None = None
) -> SessionTable:
    """Return a table by other rules with the sessions of the one of before, which is used up.

    What need not be remembered at the watermark by the rules of before is left behind.
    """
    table = SessionTable(rules, before.groups, before.counts, before.keys)
    table.carries, table.listens = before.carries, before.listens
    table.wheel.silence.hearing_ms = before.wheel.silence.hearing_ms
    for group in before.groups:
        sessions = before.remembered(group, watermark)
        if places is not None:
            for session in sessions:
                session.interval = places[session.interval]
        table.load(group, sessions)
    return table
