"""Moving the sessions of stopped runs to other lanes, each to that of its device.

By another route a key group does not stay together, as it does where only the number of lanes
changes (session_logic.move). So sessions of lanes that were stopped at different moments meet in
one. Time goes on there from the earliest of these moments, because up to there all input was read;
each session remembers up to when its own heartbeats are out, as after a clock that was ahead.

What would break it: a session that is taken by a later moment than that of its lane.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from session_logic.codec import encode_sessions
from session_logic.errors import ConfigError
from session_logic.journal import BaseRow, JournalState
from session_logic.keys import KEY_GROUPS, LaneKeys, key_groups_of
from session_logic.lane import Lane
from session_logic.lane_time import NEVER_MS
from session_logic.move import BEFORE_ALL
from session_logic.restoring import LaneState, state_version, stored_rules
from session_logic.rules import Rules, Session


class Relocation:
    """Takes restored lanes one by one, and then tells the rows and states of the new ones."""

    def __init__(self, lanes: int, lane_of: Callable[[str], int]) -> None:
        """Move to this number of lanes, each device to the one that lane_of tells."""
        self._lanes = lanes
        self._lane_of = lane_of
        self._rules: Rules | None = None
        self._beats: dict[tuple[int, int], int] = {}  # with their places
        self._sessions: defaultdict[tuple[int, int], list[Session]] = defaultdict(list)
        self._occupied_ms: list[int] = []  # the moments of lanes that have sessions
        self._empty_ms = NEVER_MS
        self._carries = self._listens = False
        self._hearing_ms = 0

    def take(self, lane: Lane) -> None:
        """Take over the sessions of a lane, which is used up.

        All lanes must have gone by the same times.
        """
        assert not lane.restoring
        table, self._rules = lane.table, lane.table.rules
        self._carries = self._carries or table.carries
        self._listens = self._listens or table.listens
        self._hearing_ms = max(self._hearing_ms, lane.hearing_ms)
        count = 0
        for group in key_groups_of(lane.lane, lane.lanes):
            upto_ms, sessions = lane.watermark().of(group).upto_ms, table.sessions(group)
            count += len(sessions)
            for session in sessions:
                interval_ms, sent_ms = table.rules.beats[session.interval]
                beat = interval_ms, max(sent_ms, upto_ms)
                session.interval = self._beats.setdefault(beat, len(self._beats))
                to = self._lane_of(session.device_id)
                place = to, LaneKeys(to, self._lanes).group_of(session.device_id)
                self._sessions[place].append(session)
        if count:
            self._occupied_ms.append(lane.watermark_ms)
        else:
            self._empty_ms = max(self._empty_ms, lane.watermark_ms)

    def rows(self) -> Iterator[BaseRow]:
        """Yield a base row for each key group that has sessions.

        Raises ConfigError for a device with active sessions in several of the old lanes.
        """
        for (lane, group), sessions in self._sessions.items():
            sessions.sort(key=lambda session: session.ended_ms)  # the oldest end first
            active = Counter(session.device_id for session in sessions if not session.ended_ms)
            split = next((device_id for device_id, count in active.items() if count > 1), None)
            if split is not None:
                msg = (
                    f"device {split} has active sessions in several lanes, as its events were in "
                    "several input partitions: end all but one of them first"
                )
                raise ConfigError(msg)
            yield BaseRow(lane, group, BEFORE_ALL, encode_sessions(sessions))

    def states(self) -> list[LaneState]:
        """Return the states of the new lanes, once every old lane has been taken."""
        assert self._rules is not None
        intervals_ms = [interval_ms for interval_ms, _ in self._beats]
        sent_ms = [sent_ms for _, sent_ms in self._beats]
        rules = replace(stored_rules(self._rules), intervals_ms=intervals_ms, sent_ms=sent_ms)
        groups = defaultdict[int, list[int]](list)
        for lane, group in sorted(self._sessions):
            groups[lane].append(group)
        return [
            LaneState(
                version=state_version(carries=self._carries, listens=self._listens),
                lanes=self._lanes,
                lane=lane,
                watermark_ms=min(self._occupied_ms, default=self._empty_ms),
                journal=JournalState(BEFORE_ALL, dict.fromkeys(groups[lane], BEFORE_ALL)),
                groups=KEY_GROUPS,
                rules=rules,
                carries=self._carries,
                listens=self._listens,
                hearing_ms=self._hearing_ms,
            )
            for lane in range(self._lanes)
        ]
