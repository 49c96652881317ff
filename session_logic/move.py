"""Moving the sessions of a stopped run to another number of lanes.

Groups keep their devices and change their lane. Lanes that become one have fired up to different
moments: the new lane goes on from the latest of them and, when it is restored, first sends what
the groups of the others still owe up to that moment.
"""

from collections import defaultdict
from collections.abc import Iterator

from session_logic.codec import encode_sessions
from session_logic.journal import BaseRow, JournalState
from session_logic.keys import KEY_GROUPS, key_groups_of, lane_of
from session_logic.lane import NEVER_MS, STATE_VERSION, Lane, LaneState

# A base that is older than every segment, of which there is none yet.
BEFORE_ALL = -1


class Move:
    """Takes restored lanes one by one, and then tells the states of the new ones."""

    def __init__(self, lanes: int) -> None:
        """Move to this number of lanes."""
        self._lanes = lanes
        self._fired_ms: defaultdict[int, int] = defaultdict(lambda: NEVER_MS)
        self._stored: defaultdict[int, list[int]] = defaultdict(list)
        self._active_ms: dict[int, int] = {}  # how far groups with active sessions were fired

    def take(self, lane: Lane) -> Iterator[BaseRow]:
        """Yield a base row of the new lane for every group of the old one that has sessions."""
        assert not lane.restoring
        for group in key_groups_of(lane.lane, lane.lanes):
            to = lane_of(group, self._lanes)
            self._fired_ms[to] = max(self._fired_ms[to], lane.fired_ms)
            sessions = lane.table.sessions(group)
            if not sessions:
                continue
            self._stored[to].append(group)
            if any(not session.ended_ms for session in sessions):
                self._active_ms[group] = lane.fired_ms
            yield BaseRow(to, group, BEFORE_ALL, encode_sessions(sessions))

    def states(self) -> list[LaneState]:
        """Return the states of the new lanes, once every old lane has been taken."""
        return [
            LaneState(
                STATE_VERSION,
                self._lanes,
                lane,
                fired_ms,
                JournalState(BEFORE_ALL, dict.fromkeys(self._stored[lane], BEFORE_ALL)),
                groups=KEY_GROUPS,
                late_ms={
                    group: self._active_ms[group]
                    for group in self._stored[lane]
                    if self._active_ms.get(group, fired_ms) < fired_ms
                },
            )
            for lane, fired_ms in sorted(self._fired_ms.items())
        ]
