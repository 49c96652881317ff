"""How many play each title at the end of each minute, for content scheduling.

    python examples/players_by_minute.py [TOPIC]     # HEARTWHEEL_OUTPUT_TOPIC, session-events

Starts and ends are enough: with HEARTWHEEL_HEARTBEAT_TOPIC the topic has nothing else.
"""

import sys
from collections import Counter
from datetime import UTC, datetime

from topic import records

MINUTE_MS = 60_000


def main() -> None:
    """Count the changes of each minute, then print the sums."""
    topic = sys.argv[1] if len(sys.argv) > 1 else "session-events"
    changes: dict[int, Counter[str]] = {}
    for record in records(topic):
        event = record.value
        if event is None or event["type"] == "Heartbeat":
            continue
        title = str(event.get("context", {}).get("title", "(none)"))
        change = 1 if event["type"] == "SessionActive" else -1
        changes.setdefault(event["time_ms"] // MINUTE_MS, Counter())[title] += change
    players: Counter[str] = Counter()
    for minute in sorted(changes):
        players.update(changes[minute])
        until = datetime.fromtimestamp((minute + 1) * MINUTE_MS / 1000, UTC).strftime("%H:%M")
        print(until, "  ".join(f"{title} {count}" for title, count in sorted(players.items())))


if __name__ == "__main__":
    main()
