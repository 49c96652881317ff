"""The heartbeat wheel: every session in the slot of its start, one heartbeat interval around.

A session never moves: its slot comes round once every interval, which is when its next
heartbeat is due. So a heartbeat changes no state, and its cost does not depend on how many
sessions there are.
"""

from collections.abc import Iterator

from session_logic.rules import Session


class Wheel:
    """Sessions by (started_ms + offset_ms) mod interval, in slots of one millisecond."""

    def __init__(self, interval_ms: int, offset_ms: int = 0) -> None:
        """Make an empty wheel; slots are made on first use."""
        self._interval_ms = interval_ms
        self._offset_ms = offset_ms
        self._slots: dict[int, list[Session]] = {}

    def __len__(self) -> int:
        """Count the sessions in the slots, the ended but not yet forgotten ones included."""
        return sum(map(len, self._slots.values()))

    def __bool__(self) -> bool:
        """Say whether there is any session in it."""
        return bool(self._slots)

    def add(self, session: Session) -> None:
        """Put a session into its slot."""
        index = (session.started_ms + self._offset_ms) % self._interval_ms
        slot = self._slots.get(index)
        if slot is None:
            self._slots[index] = [session]
        else:
            slot.append(session)

    def discard(self, session: Session) -> None:
        """Take a session out of its slot, if it is there."""
        index = (session.started_ms + self._offset_ms) % self._interval_ms
        slot = self._slots.get(index, [])
        for place, other in enumerate(slot):
            if other is session:
                del slot[place]
                break
        if not slot:
            self._slots.pop(index, None)

    def extend(self, sessions: list[Session]) -> None:
        """Put many sessions into their slots."""
        slots, interval_ms, offset_ms = self._slots, self._interval_ms, self._offset_ms
        for session in sessions:
            index = (session.started_ms + offset_ms) % interval_ms
            if index in slots:
                slots[index].append(session)
            else:
                slots[index] = [session]

    def turn(self, after_ms: int, upto_ms: int) -> Iterator[tuple[int, list[Session]]]:
        """Yield (moment, slot) for the moments after after_ms, up to and with upto_ms, in order.

        The caller may take sessions out of the slot that it is given; an empty one is dropped.
        """
        slots, interval_ms = self._slots, self._interval_ms
        for time_ms in range(after_ms + 1, upto_ms + 1):
            slot = slots.get(time_ms % interval_ms)
            if slot is not None:
                yield time_ms, slot
                if not slot:
                    slots.pop(time_ms % interval_ms, None)
