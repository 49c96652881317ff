"""What the topics for consumers must have, by what the output has."""

from collections import Counter

from msgspec.json import decode

from session_logic.events import ActiveSession, OutputEvent, SessionActive, SessionEnd
from session_logic.summary import summary_of
from tests.support.cluster import Cluster

SESSION_MS = 28_800_000  # the default of the maximum


def check_summaries(cluster: Cluster, topic: str) -> int:
    """Check that each end has one summary under its device; return how many there are."""
    ends = [event for event in cluster.events() if isinstance(event, SessionEnd)]
    wanted = Counter((end.device_id.encode(), summary_of(end)) for end in ends)
    found = Counter((record.key, record.value) for record in cluster.read(topic))
    assert not wanted - found, f"missing: {wanted - found}"
    assert not found - wanted, f"too many: {found - wanted}"
    return found.total()


def active_sessions(events: list[OutputEvent]) -> dict[bytes, ActiveSession]:
    """Return the session that each device has at the end of the output."""
    active: dict[bytes, ActiveSession] = {}
    for event in events:
        key = event.device_id.encode()
        if isinstance(event, SessionActive):
            timeout_ms = event.started_ms + SESSION_MS
            active[key] = ActiveSession(
                event.session_id, event.platform, event.started_ms, timeout_ms
            )
        elif isinstance(event, SessionEnd):
            del active[key]
    return active


def check_table(cluster: Cluster, topic: str) -> int:
    """Check that the newest rows are the active sessions; return how many there are."""
    newest = {record.key: record.value for record in cluster.read(topic)}
    found = {k: decode(v, type=ActiveSession) for k, v in newest.items() if v is not None and k}
    assert found == active_sessions(cluster.events())
    return len(found)
