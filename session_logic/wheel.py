"""The heartbeat wheel: every session in the slot of its start, one heartbeat interval around.

A hashed timing wheel. A session never moves: its slot comes round once every interval, which is
when its next heartbeat is due. So a heartbeat changes no state, and its cost does not depend on
how many sessions there are. Sessions that beat in another interval, because they started under
another setting, have a ring of slots of their own.

Timeouts fall on the slots of the heartbeats, unless the interval does not divide the longest
session. An active session is then in the slot of its timeout as well, in a ring beside its own.

Sessions that end when nothing is heard of them are in session_logic.silence as well.
"""

from collections import defaultdict
from collections.abc import Iterator

from msgspec import Struct

from session_logic.keys import LaneKeys
from session_logic.rules import Rules, Session
from session_logic.silence import Silence


class Ring(Struct):
    """Sessions by (started_ms + offset_ms) mod interval_ms, in slots of one millisecond.

    Heartbeats at or before sent_ms are out already. A ring that is quiet or of timeouts has none.
    """

    interval_ms: int
    sent_ms: int
    offset_ms: int = 0
    timeouts: bool = False
    quiet: bool = False
    slots: dict[int, list[Session]] = {}

    def add(self, sessions: list[Session]) -> None:
        """Put sessions into their slots."""
        slots, interval_ms, offset_ms = self.slots, self.interval_ms, self.offset_ms
        for session in sessions:
            index = (session.started_ms + offset_ms) % interval_ms
            try:
                slots[index].append(session)
            except KeyError:
                slots[index] = [session]

    def put(self, session: Session) -> None:
        """Put one session into its slot."""
        index = (session.started_ms + self.offset_ms) % self.interval_ms
        slot = self.slots.get(index)
        if slot is None:
            self.slots[index] = [session]
        else:
            slot.append(session)

    def discard(self, session: Session) -> None:
        """Take a session out of its slot, if it is there."""
        index = (session.started_ms + self.offset_ms) % self.interval_ms
        slot = self.slots.get(index, [])
        for place, other in enumerate(slot):
            if other is session:
                del slot[place]
                break
        if not slot:
            self.slots.pop(index, None)

    def keep(self, time_ms: int, sessions: list[Session]) -> None:
        """Leave only these sessions in the slot whose turn is at a moment."""
        if sessions:
            self.slots[time_ms % self.interval_ms] = sessions
        else:  # silence may have ended a session for which the last one here was forgotten
            self.slots.pop(time_ms % self.interval_ms, None)


# What comes round at one moment: slots, each with its ring.
Slots = list[tuple[Ring | Silence, list[Session]]]


class Pieces:
    """What comes round at one moment, apart for each key group."""

    def __init__(self, time_ms: int, slots: Slots, keys: LaneKeys) -> None:
        """Sort the sessions of the slots by their key groups."""
        self.time_ms = time_ms
        self.by_group: defaultdict[int, Slots] = defaultdict(list)
        for ring, slot in slots:
            of_ring: defaultdict[int, list[Session]] = defaultdict(list)
            for session in slot:
                of_ring[keys.group_of(session.device_id)].append(session)
            for group, sessions in of_ring.items():
                self.by_group[group].append((ring, sessions))


class Wheel:
    """A ring for each interval in which a session may beat, and for timeouts off the beat."""

    def __init__(self, rules: Rules) -> None:
        """Make an empty wheel; slots are made on first use."""
        self._rings = [
            Ring(turn_ms, sent_ms, quiet=not interval_ms)
            for turn_ms, (interval_ms, sent_ms) in zip(rules.turns_ms, rules.beats, strict=True)
        ]
        odd_ms = [rules.max_session_ms % turn_ms for turn_ms in rules.turns_ms]
        self._timeouts = [
            Ring(ring.interval_ms, 0, offset_ms, timeouts=True) if offset_ms else None
            for ring, offset_ms in zip(self._rings, odd_ms, strict=True)
        ]
        # Heartbeats come before a timeout of the same moment.
        self._all = self._rings + [ring for ring in self._timeouts if ring is not None]
        self.silence = Silence()

    def __len__(self) -> int:
        """Count the sessions in the slots, the ended but not yet forgotten ones included."""
        return sum(sum(map(len, ring.slots.values())) for ring in self._rings)

    def __bool__(self) -> bool:
        """Say whether there is any session in it."""
        return any(ring.slots for ring in self._rings)

    def add(self, sessions: list[Session]) -> None:
        """Put sessions into their slots."""
        for number, (ring, timeouts) in enumerate(zip(self._rings, self._timeouts, strict=True)):
            of_ring = sessions
            if len(self._rings) > 1:
                of_ring = [session for session in sessions if session.interval == number]
            ring.add(of_ring)
            if timeouts is not None:
                timeouts.add([session for session in of_ring if not session.ended_ms])

    def put(self, session: Session) -> None:
        """Put one session into its slots: `add` for one, at a third of the cost."""
        self._rings[session.interval].put(session)
        timeouts = self._timeouts[session.interval]
        if timeouts is not None and not session.ended_ms:
            timeouts.put(session)

    def discard(self, session: Session) -> None:
        """Take a session out of its slots."""
        self._rings[session.interval].discard(session)
        timeouts = self._timeouts[session.interval]
        if timeouts is not None:
            timeouts.discard(session)

    def turn(self, after_ms: int, upto_ms: int) -> Iterator[tuple[int, int, Slots]]:
        """Yield (moment, sessions, slots) for the moments after after_ms, up to and with upto_ms.

        Those without slots are left out.
        """
        silent = self.silence.slots
        if len(self._all) == 1 and not silent:
            [ring], slots, interval_ms = self._all, self._all[0].slots, self._all[0].interval_ms
            for time_ms in range(after_ms + 1, upto_ms + 1):
                slot = slots.get(time_ms % interval_ms)
                if slot is not None:
                    yield time_ms, len(slot), [(ring, slot)]
            return
        for time_ms in range(after_ms + 1, upto_ms + 1):
            found: Slots = [
                (ring, slot)
                for ring in self._all
                if (slot := ring.slots.get(time_ms % ring.interval_ms)) is not None
            ]
            if time_ms in silent:
                found.append((self.silence, silent[time_ms]))
            if found:
                yield time_ms, sum(len(slot) for _, slot in found), found
