"""The slow reference model: one dict, no wheel, no lanes, no cleverness.

It says what must come out; the tests and the benchmark compare real output with it.
"""

from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from session_logic.events import (
    Context,
    EndReason,
    Fact,
    Heartbeat,
    OutputEvent,
    SessionActive,
    SessionEnd,
    Watermark,
)
from session_logic.keys import key_group_of
from session_logic.rules import QUIET_TURN_MS, Rules

# A device remembers so many ends, and a fact that comes late brings so many heartbeats with it.
MAX_MEMORY = 16
MAX_MISSED = 10


class Life(Struct):
    """A session as the model knows it."""

    fact: Fact
    interval_ms: int
    ended_ms: int | None = None
    sent_ms: int = 0  # its heartbeats up to then are out, whatever the watermark is
    last_seen_ms: int = 0


class Ending(Struct):
    """An end that a device remembers; began_ms is None if the start has not been seen.

    Without a session_id it is that of whatever was active.
    """

    session_id: str
    began_ms: int | None
    ended_ms: int
    interval_ms: int
    carried: bytes = b""


class Model:
    """Every session that ever was, by device, oldest first, and the ends that are remembered."""

    def __init__(self, rules: Rules) -> None:
        """Begin with no sessions."""
        self.rules = rules
        self.hearing_ms = 0  # silence counts from then on
        self.intervals_ms = {rules.heartbeat_ms}  # all there were
        self.lives: dict[str, list[Life]] = {}
        self.endings: dict[str, list[Ending]] = {}

    def apply(self, fact: Fact, watermark: Watermark) -> list[OutputEvent]:
        """Return the records that a fact causes."""
        lives = self.lives.setdefault(fact.device_id, [])
        active = lives[-1] if lives and lives[-1].ended_ms is None else None
        records: list[OutputEvent] = []
        if active is not None:
            over_ms, reason = self.over(active)
            if over_ms <= fact.time_ms or over_ms <= watermark.upto_ms:
                records = self._end(active, reason, over_ms, watermark)
                active = None
        known = self._known(fact.device_id, watermark)
        if fact.ping:
            return records + self._ping(fact, active, known, watermark)
        if not fact.session_id:
            return records + self._end_without_id(fact, active, known, watermark)
        return records + self._by_name(fact, active, known, watermark)

    def _by_name(
        self, fact: Fact, active: Life | None, known: list[Ending], watermark: Watermark
    ) -> list[OutputEvent]:
        """Return what a start or an end causes that names its session."""
        records: list[OutputEvent] = []
        same = [end for end in known if end.session_id == fact.session_id]
        earlier = next((end for end in same if end.began_ms is not None), None)
        early = next((end for end in same if end.began_ms is None), None)
        began_ms = [end.began_ms for end in known if end not in same and end.began_ms is not None]
        if active is not None and active.fact.session_id != fact.session_id:
            began_ms.append(active.fact.time_ms)
        overtaken = any(ms > fact.time_ms for ms in began_ms)
        if active is not None and active.fact.session_id == fact.session_id:
            of_earlier = fact.time_ms < active.fact.time_ms and self._repeats(fact, earlier)
            if fact.is_start:
                _hear(active, fact.time_ms)
            if not fact.is_start and not of_earlier:
                records += self._end(active, "ended", fact.time_ms, watermark, carried=fact.carried)
        elif overtaken or self._repeats(fact, earlier):
            pass
        elif fact.is_start:
            ends = [
                end
                for end in known
                if end.began_ms is None
                and end.session_id in ("", fact.session_id)
                and fact.time_ms <= end.ended_ms
            ]
            first = min(ends, key=lambda end: (end.ended_ms, end.carried), default=None)
            records += self._start(fact, active, first, watermark)
        elif not self._repeats(fact, early):
            self._remember_early(fact, watermark)
        return records

    def _end_without_id(
        self, fact: Fact, active: Life | None, known: list[Ending], watermark: Watermark
    ) -> list[OutputEvent]:
        """Return what an end causes that is of whatever was active at its time."""
        if active is not None:
            if fact.time_ms < active.fact.time_ms:
                return []
            return self._end(active, "ended", fact.time_ms, watermark, carried=fact.carried)
        if any(end.began_ms is not None and end.began_ms > fact.time_ms for end in known):
            return []
        before = [end for end in known if end.began_ms is not None]
        before += [end for end in known if not end.session_id and end.ended_ms <= fact.time_ms]
        if not any(self._repeats(fact, end) for end in before):
            self._remember_early(fact, watermark)
        return []

    def _ping(
        self, fact: Fact, active: Life | None, known: list[Ending], watermark: Watermark
    ) -> list[OutputEvent]:
        """Return what a sign of life causes: a session, if it may begin one and none is active."""
        time_ms = fact.time_ms
        if active is not None and fact.session_id in {"", active.fact.session_id}:
            if time_ms >= active.fact.time_ms:
                _hear(active, time_ms)
            return []
        begun_ms = [] if active is None else [active.fact.time_ms]
        for end in known:
            if fact.session_id:
                is_of_it = end.session_id in {"", fact.session_id}
                if end.began_ms is not None:
                    is_of_it = end.session_id == fact.session_id
            elif end.began_ms is not None:
                is_of_it = end.began_ms <= time_ms
            else:
                is_of_it = not end.session_id and end.ended_ms <= time_ms
            if is_of_it and time_ms < end.ended_ms + (end.began_ms is None):
                return []
            if not is_of_it and end.began_ms is not None:
                begun_ms.append(end.began_ms)
        if not fact.is_start or any(ms > time_ms for ms in begun_ms):
            return []
        named = replace(fact, session_id=fact.session_id or str(time_ms))
        return self._start(named, active, None, watermark)

    def over(self, life: Life) -> tuple[int, EndReason]:
        """Return when a life ends by itself, and why."""
        timeout_ms = life.fact.time_ms + self.rules.max_session_ms
        silent_ms = max(life.last_seen_ms, self.hearing_ms) + life.fact.idle_timeout_ms
        if life.fact.idle_timeout_ms and silent_ms < timeout_ms:
            return silent_ms, "went_silent"
        return timeout_ms, "timed_out"

    def _start(
        self, fact: Fact, active: Life | None, early: Ending | None, watermark: Watermark
    ) -> list[OutputEvent]:
        """Return what a start causes that has not come before, and that nothing has overtaken."""
        lives, records = self.lives[fact.device_id], []
        if active is not None:
            records = self._end(active, "replaced", fact.time_ms, watermark)
        return records + self._open(lives, fact, early, watermark)

    def change_rules(self, rules: Rules, watermark: Watermark) -> list[OutputEvent]:
        """Go by other rules; return the ends of the sessions that have lasted too long for them."""
        if rules != self.rules:
            self._forget(watermark)
        self.rules = rules
        self.intervals_ms.add(rules.heartbeat_ms)
        return [
            record
            for device_id, lives in self.lives.items()
            for sent in [watermark.of(key_group_of(device_id))]
            for life in lives
            if life.ended_ms is None and life.fact.time_ms + rules.max_session_ms <= sent.upto_ms
            for record in self._end(
                life, "timed_out", watermark.upto_ms + 1, Watermark(sent.upto_ms)
            )
        ]

    def set_back(self, watermark: Watermark) -> None:
        """Let time begin again before a watermark: what was sent by then stays sent."""
        self._forget(watermark)
        for lives in self.lives.values():
            for life in lives:
                life.sent_ms = max(life.sent_ms, watermark.upto_ms)

    def _forget(self, watermark: Watermark) -> None:
        for device_id in self.endings:
            self.endings[device_id] = self._known(device_id, watermark.of(key_group_of(device_id)))

    def _known(self, device_id: str, watermark: Watermark) -> list[Ending]:
        """Return the ends that a device still remembers."""
        endings = self.endings.get(device_id, [])
        return [end for end in endings if self._is_kept(end, watermark)]

    def _is_kept(self, end: Ending, watermark: Watermark) -> bool:
        kept_ms = self.rules.deduplication_window_ms + (end.interval_ms or QUIET_TURN_MS)
        return end.ended_ms + kept_ms > watermark.upto_ms

    def _remember_early(self, fact: Fact, watermark: Watermark) -> None:
        """Remember an end of which the start has not been seen, if it is still kept."""
        ended_ms = max(1, fact.time_ms)
        interval_ms = self.rules.heartbeat_ms
        ending = Ending(fact.session_id, None, ended_ms, interval_ms, fact.carried)
        if self._is_kept(ending, watermark):
            self._remember(fact.device_id, ending)

    def _remember(self, device_id: str, ending: Ending) -> None:
        others = [end for end in self.endings.get(device_id, []) if _name(end) != _name(ending)]
        self.endings[device_id] = [*others, ending][-MAX_MEMORY:]

    def _repeats(self, fact: Fact, ending: Ending | None) -> bool:
        """Say whether a fact belongs to the life that ended so."""
        if ending is None:
            return False
        window_ms = 0 if fact.created else self.rules.deduplication_window_ms
        return fact.time_ms <= ending.ended_ms or fact.time_ms < ending.ended_ms + window_ms

    def _open(
        self, lives: list[Life], fact: Fact, early: Ending | None, watermark: Watermark
    ) -> list[OutputEvent]:
        life = Life(fact, self.rules.heartbeat_ms, last_seen_ms=fact.time_ms)
        lives.append(life)
        times = fact.time_ms, fact.time_ms
        active = SessionActive(*_names(fact), *times, _context(fact.carried))
        missed = Watermark(fact.time_ms, watermark.newest_only)
        if early is None:
            return [active, *self._due(life, missed, watermark.upto_ms, MAX_MISSED)]
        timeout_ms = fact.time_ms + self.rules.max_session_ms
        if timeout_ms <= early.ended_ms:
            return [active, *self._end(life, "timed_out", timeout_ms, missed, MAX_MISSED)]
        end = self._end(life, "ended", early.ended_ms, missed, MAX_MISSED, early.carried)
        return [active, *end]

    def _end(
        self,
        life: Life,
        reason: EndReason,
        time_ms: int,
        watermark: Watermark,
        at_most: int | None = None,
        carried: bytes = b"",
    ) -> list[OutputEvent]:
        fact = life.fact
        time_ms = max(time_ms, self._last_sent_ms(life, watermark.upto_ms))
        owed = self._beats(life, watermark.upto_ms, time_ms)
        life.ended_ms = max(1, time_ms)
        ending = Ending(fact.session_id, fact.time_ms, life.ended_ms, life.interval_ms)
        self._remember(fact.device_id, ending)
        silent = reason == "went_silent"
        duration_ms = (life.last_seen_ms if silent else time_ms) - fact.time_ms
        context = _context(fact.carried, carried)
        times = fact.time_ms, time_ms
        seen_ms = life.last_seen_ms if silent else UNSET
        end = SessionEnd(*_names(fact), *times, reason, duration_ms, context, seen_ms)
        return [*_newest(owed, watermark, at_most), end]

    def _beats(self, life: Life, after_ms: int, upto_ms: int) -> list[OutputEvent]:
        fact = life.fact
        beats: list[OutputEvent] = []
        context = _context(fact.carried) if self.rules.carry_in_heartbeats else UNSET
        after_ms = max(after_ms, life.sent_ms)
        if not life.interval_ms:
            return beats
        sequence, time_ms = 1, fact.time_ms + life.interval_ms
        while time_ms <= upto_ms and time_ms < fact.time_ms + self.rules.max_session_ms:
            if time_ms > after_ms:
                beats.append(Heartbeat(*_names(fact), fact.time_ms, time_ms, sequence, context))
            sequence, time_ms = sequence + 1, time_ms + life.interval_ms
        return beats

    def _last_sent_ms(self, life: Life, watermark_ms: int) -> int:
        """Return the time of the last record of a life that is out."""
        begun_ms = life.fact.time_ms
        if not life.interval_ms:
            return begun_ms
        if life.fact.idle_timeout_ms:
            watermark_ms = min(watermark_ms, self.over(life)[0])
        sent_ms = max(life.sent_ms, min(watermark_ms, begun_ms + self.rules.max_session_ms - 1))
        return max(begun_ms, sent_ms - (sent_ms - begun_ms) % life.interval_ms)

    def _due(
        self, life: Life, after: Watermark, upto_ms: int, at_most: int | None = None
    ) -> list[OutputEvent]:
        over_ms, reason = self.over(life)
        if over_ms <= upto_ms:
            return self._end(life, reason, over_ms, after, at_most)
        return _newest(self._beats(life, after.upto_ms, upto_ms), after, at_most)

    def advance(
        self, after_ms: int, upto_ms: int, *, newest_only: bool, device_id: str | None = None
    ) -> list[OutputEvent]:
        """Return what comes due after after_ms and at or before upto_ms, of one device or of all.

        With newest_only, a session that goes on gets what was due in the longest interval of all,
        and one that is over gets its newest heartbeat.
        """
        records: list[OutputEvent] = []
        some = self.lives.values() if device_id is None else [self.lives.get(device_id, [])]
        for lives in some:
            for life in lives:
                if life.ended_ms is not None:
                    continue
                if newest_only and self.over(life)[0] > upto_ms:
                    from_ms = max(after_ms, upto_ms - max(self.intervals_ms))
                    records += self._beats(life, from_ms, upto_ms)
                else:
                    records += self._due(life, Watermark(after_ms, newest_only), upto_ms)
        return records


def _hear(life: Life, time_ms: int) -> None:
    """Note when something was heard of a life, in steps of a tenth of its timeout."""
    if life.fact.idle_timeout_ms and time_ms - life.last_seen_ms >= life.fact.idle_timeout_ms / 10:
        life.last_seen_ms = time_ms


def _newest(
    beats: list[OutputEvent], watermark: Watermark, at_most: int | None
) -> list[OutputEvent]:
    if watermark.newest_only:
        return beats[-1:]
    return beats if at_most is None else beats[-at_most:]


def _names(fact: Fact) -> tuple[str, str, str]:
    return fact.device_id, fact.session_id, fact.platform


def _name(ending: Ending) -> tuple[str, bool, int]:
    """Return what tells an end from the others of its device."""
    name = ending.session_id
    return name, ending.began_ms is None, 0 if name else ending.ended_ms


def _context(*carried: bytes) -> Context:
    members = b",".join(filter(None, carried))
    return Raw(b"{%b}" % members) if members else UNSET
