"""Hours played for each title and platform: SQL over the summaries of ended sessions.

pip install duckdb confluent-kafka
python examples/hours_played.py [TOPIC]     # HEARTWHEEL_SUMMARY_TOPIC, session-summaries
"""

import sys

import duckdb
from topic import records

QUERY = """
SELECT coalesce(title, '(none)') AS title, platform, count(*) AS sessions,
       round(sum(duration_ms) / 3_600_000, 2) AS hours
FROM sessions GROUP BY ALL ORDER BY hours DESC, title, platform
"""
# Summaries are flat, so a table of them needs no more than the names of its columns.
COLUMNS = ("device_id", "session_id", "platform", "started_ms", "duration_ms", "reason", "title")


def main() -> None:
    """Read all summaries into a table in memory, ask it, and print the answer."""
    topic = sys.argv[1] if len(sys.argv) > 1 else "session-summaries"
    rows = [
        [record.value.get(name) for name in COLUMNS]
        for record in records(topic)
        if record.value is not None
    ]
    db = duckdb.connect()
    db.execute(
        "CREATE TABLE sessions (device_id TEXT, session_id TEXT, platform TEXT, "
        "started_ms BIGINT, duration_ms BIGINT, reason TEXT, title TEXT)"
    )
    if rows:
        db.executemany("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    print(f"{'title':<20} {'platform':<10} {'sessions':>8} {'hours':>8}")
    for title, platform, sessions, hours in db.execute(QUERY).fetchall():
        print(f"{title:<20} {platform:<10} {sessions:>8} {hours:>8.2f}")


if __name__ == "__main__":
    main()
