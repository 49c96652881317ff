"""The heartbeat wheel: every session in the slot of its start, one heartbeat interval around.

A hashed timing wheel. A session never moves: its slot comes round once every interval, which is
when its next heartbeat is due. So a heartbeat changes no state, and its cost does not depend on
how many sessions there are. Sessions that beat in another interval, because they started under
another setting, have a ring of slots of their own.
"""

from collections.abc import Iterator, Sequence

from session_logic.rules import Session


class Wheel:
    """Sessions by (started_ms + offset) mod interval, in slots of one millisecond."""

    def __init__(self, intervals_ms: Sequence[int], offsets_ms: Sequence[int] = ()) -> None:
        """Make an empty wheel with a ring for each interval; slots are made on first use."""
        offsets_ms = offsets_ms or [0] * len(intervals_ms)
        rings: list[dict[int, list[Session]]] = [{} for _ in intervals_ms]
        self._rings = list(zip(intervals_ms, offsets_ms, rings, strict=True))

    def __len__(self) -> int:
        """Count the sessions in the slots, the ended but not yet forgotten ones included."""
        return sum(sum(map(len, slots.values())) for _, _, slots in self._rings)

    def __bool__(self) -> bool:
        """Say whether there is any session in it."""
        return any(slots for _, _, slots in self._rings)

    def add(self, session: Session) -> None:
        """Put a session into its slot."""
        interval_ms, offset_ms, slots = self._rings[session.interval]
        index = (session.started_ms + offset_ms) % interval_ms
        slot = slots.get(index)
        if slot is None:
            slots[index] = [session]
        else:
            slot.append(session)

    def discard(self, session: Session) -> None:
        """Take a session out of its slot, if it is there."""
        interval_ms, offset_ms, slots = self._rings[session.interval]
        index = (session.started_ms + offset_ms) % interval_ms
        slot = slots.get(index, [])
        for place, other in enumerate(slot):
            if other is session:
                del slot[place]
                break
        if not slot:
            slots.pop(index, None)

    def extend(self, sessions: list[Session]) -> None:
        """Put many sessions into their slots."""
        for number, (interval_ms, offset_ms, slots) in enumerate(self._rings):
            for session in sessions:
                if session.interval != number:
                    continue
                index = (session.started_ms + offset_ms) % interval_ms
                if index in slots:
                    slots[index].append(session)
                else:
                    slots[index] = [session]

    def turn(self, after_ms: int, upto_ms: int) -> Iterator[tuple[int, int, list[Session]]]:
        """Yield (moment, interval, slot) for the moments after after_ms, up to and with upto_ms.

        The caller may take sessions out of the slot that it is given; an empty one is dropped.
        """
        rings = self._rings
        for time_ms in range(after_ms + 1, upto_ms + 1):
            for interval_ms, _, slots in rings:
                slot = slots.get(time_ms % interval_ms)
                if slot is not None:
                    yield time_ms, interval_ms, slot
                    if not slot:
                        slots.pop(time_ms % interval_ms, None)
