"""What an account is playing now, as a service for personalization would look it up.

    python examples/now_playing.py ACCOUNT [TOPIC]     # HEARTWHEEL_TABLE_TOPIC, active-sessions

It builds the look-up that such a service keeps: it reads the compacted table once, then follows it.
"""

import sys
from datetime import UTC, datetime

from topic import records


def main() -> None:
    """Print the active sessions of an account, the newest first."""
    if len(sys.argv) < 2:
        sys.exit("which account? python examples/now_playing.py ACCOUNT [TOPIC]")
    account = sys.argv[1]
    topic = sys.argv[2] if len(sys.argv) > 2 else "active-sessions"
    by_device = {record.key: record.value for record in records(topic)}
    playing = [
        (row["started_ms"], device, row)
        for device, row in by_device.items()
        if row is not None and str(row.get("context", {}).get("account")) == account
    ]
    if not playing:
        print(f"{account} is not playing")
    for started_ms, device, row in sorted(playing, reverse=True):
        since = datetime.fromtimestamp(started_ms / 1000, UTC).isoformat(timespec="seconds")
        title = row["context"].get("title", "(no title)")
        print(f"{account} plays {title} on {device} ({row['platform']}) since {since}")


if __name__ == "__main__":
    main()
