"""A device that is active in two lanes: its events come in two input partitions.

By the route `partition` nothing else can tell if the two are of two shards, which know nothing of
each other. A look-up that asks all of them sees it.
"""

from msgspec import UNSET, UnsetType

from dataflows.logs import log
from dataflows.metrics import SPLIT_DEVICES
from dataflows.text import printable
from heartwheel.sessions.shown import ShownSession


class SplitSession(ShownSession, frozen=True, gc=False, kw_only=True):
    """The session that was started last of those of a device; others are in these lanes, if any."""

    also_in_lanes: list[int] | UnsetType = UNSET


Found = ShownSession | SplitSession


class SplitDevices:
    """Puts the sessions of a device together, and tells of the first that has several."""

    def __init__(self) -> None:
        """Know of none yet."""
        self._told = False

    def note(self, found: Found) -> None:
        """Count what a look-up has found, and log it once, if it is in two lanes."""
        others = _other_lanes(found)
        if not others:
            return
        SPLIT_DEVICES.inc()
        if not self._told:
            self._told = True
            log.warning(
                "a device is active in several lanes, because its events come in several input "
                "partitions: its sessions do not end one another; let all senders use one "
                "partitioner",
                device=printable(found.device_id),
                lanes=sorted([found.lane, *others]),
            )


def joined(found: list[Found]) -> Found:
    """Return the only session, or the one started last with the lanes of the others."""
    newest = max(found, key=lambda session: session.started_ms)
    lanes = {session.lane for session in found}
    for session in found:
        lanes.update(_other_lanes(session))
    others = sorted(lanes - {newest.lane})
    if not others:
        return newest
    said = {name: getattr(newest, name) for name in ShownSession.__struct_fields__}
    return SplitSession(**said, also_in_lanes=others)


def _other_lanes(found: Found) -> list[int]:
    return (found.also_in_lanes or []) if isinstance(found, SplitSession) else []
