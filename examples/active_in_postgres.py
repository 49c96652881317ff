"""The active session of each device as a table in PostgreSQL, upserted from the table topic.

    pip install "psycopg[binary]" confluent-kafka
    python examples/active_in_postgres.py "host=127.0.0.1 dbname=games" [TOPIC]

Rows may come again after a crash of Heartwheel; an upsert does not mind. It reads to the end of the
topic and stops: run it again, or let it go on from a consumer group's offsets.
"""

import sys

import psycopg
from psycopg.types.json import Jsonb
from topic import records

TABLE = """
CREATE TABLE IF NOT EXISTS active_sessions (
  device_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, platform TEXT NOT NULL,
  started TIMESTAMPTZ NOT NULL, context JSONB)
"""
UPSERT = """
INSERT INTO active_sessions VALUES (%s, %s, %s, to_timestamp(%s / 1000.0), %s)
ON CONFLICT (device_id) DO UPDATE SET session_id = excluded.session_id,
  platform = excluded.platform, started = excluded.started, context = excluded.context
"""


def main() -> None:
    """Bring the table in the database up to date, in one transaction."""
    topic = sys.argv[2] if len(sys.argv) > 2 else "active-sessions"
    newest = {record.key: record.value for record in records(topic)}
    with psycopg.connect(sys.argv[1]) as database, database.cursor() as cursor:
        cursor.execute(TABLE)
        for device, row in newest.items():
            if row is None:
                cursor.execute("DELETE FROM active_sessions WHERE device_id = %s", [device])
            else:
                context = Jsonb(row["context"]) if "context" in row else None
                names = row["session_id"], row["platform"], row["started_ms"]
                cursor.execute(UPSERT, [device, *names, context])
    active = sum(row is not None for row in newest.values())
    print(f"{active} upserted, {len(newest) - active} deleted")


if __name__ == "__main__":
    main()
