"""Moving the sessions of a stopped run to another number of lanes.

Groups keep their devices and change their lane. Lanes that become one have fired up to different
moments: the new lane goes on from the latest of them and, when it is restored, first sends what
the groups of the others still owe up to that moment.
"""

from collections import defaultdict
from collections.abc import Iterator

from msgspec.structs import replace

from session_logic.codec import encode_sessions
from session_logic.journal import BaseRow, JournalState
from session_logic.keys import KEY_GROUPS, key_groups_of, lane_of
from session_logic.lane import Lane
from session_logic.lane_time import NEVER_MS
from session_logic.restoring import LaneState, StoredRules, state_version, stored_rules

# A base that is older than every segment, of which there is none yet.
BEFORE_ALL = -1


class Move:
    """Takes restored lanes one by one, and then tells the states of the new ones."""

    def __init__(self, lanes: int) -> None:
        """Move to this number of lanes."""
        self._lanes = lanes
        self._watermarks: defaultdict[int, int] = defaultdict(lambda: NEVER_MS)
        self._stored: defaultdict[int, list[int]] = defaultdict(list)
        self._beats: list[tuple[int, int]] = []
        self._rules: StoredRules | None = None
        self._active_watermarks: dict[int, int] = {}  # of key groups with active sessions
        self._carrying: set[int] = set()  # new lanes
        self._hearing_ms: dict[int, int] = {}  # of new lanes that listen

    def take(self, lane: Lane) -> Iterator[BaseRow]:
        """Yield a base row of the new lane for every group of the old one that has sessions."""
        assert not lane.restoring
        rules = lane.table.rules
        self._beats += [beat for beat in rules.beats if beat not in self._beats]
        intervals_ms, sent_ms = map(list, zip(*self._beats, strict=True))
        self._rules = replace(stored_rules(rules), intervals_ms=intervals_ms, sent_ms=sent_ms)
        for group in key_groups_of(lane.lane, lane.lanes):
            to, upto_ms = lane_of(group, self._lanes), lane.watermark().of(group).upto_ms
            self._watermarks[to] = max(self._watermarks[to], upto_ms)
            if lane.table.carries:
                self._carrying.add(to)
            if lane.table.listens:
                self._hearing_ms[to] = max(self._hearing_ms.get(to, 0), lane.hearing_ms)
            sessions = lane.table.sessions(group)
            if not sessions:
                continue
            for session in sessions:  # lanes may have come to know intervals in another order
                session.interval = self._beats.index(rules.beats[session.interval])
            self._stored[to].append(group)
            if any(not session.ended_ms for session in sessions):
                self._active_watermarks[group] = upto_ms
            yield BaseRow(to, group, BEFORE_ALL, encode_sessions(sessions))

    def states(self) -> list[LaneState]:
        """Return the states of the new lanes, once every old lane has been taken."""
        return [
            LaneState(
                version=state_version(
                    carries=lane in self._carrying, listens=lane in self._hearing_ms
                ),
                lanes=self._lanes,
                lane=lane,
                watermark_ms=watermark_ms,
                journal=JournalState(BEFORE_ALL, dict.fromkeys(self._stored[lane], BEFORE_ALL)),
                groups=KEY_GROUPS,
                moved_watermarks={
                    group: self._active_watermarks[group]
                    for group in self._stored[lane]
                    if self._active_watermarks.get(group, watermark_ms) < watermark_ms
                },
                rules=self._rules,
                carries=lane in self._carrying,
                listens=lane in self._hearing_ms,
                hearing_ms=self._hearing_ms.get(lane, 0),
            )
            for lane, watermark_ms in sorted(self._watermarks.items())
        ]
