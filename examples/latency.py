"""The latency of the output, as the published reference pipeline measures its own.

    python examples/latency.py [TOPIC]     # HEARTWHEEL_OUTPUT_TOPIC, session-events

That is from the time of what caused a record (its event, or the moment at which a heartbeat or a
timeout was due) to the timestamp of the record in Kafka. Events of the past, as in a backlog, are
as late as they were sent: look at times without one.
"""

import sys
from collections import defaultdict
from statistics import quantiles

from topic import records


def main() -> None:
    """Print percentiles for each type of record."""
    topic = sys.argv[1] if len(sys.argv) > 1 else "session-events"
    latencies_ms: defaultdict[str, list[int]] = defaultdict(list)
    for record in records(topic):
        if record.value is not None:
            late_ms = record.written_ms - record.value["time_ms"]
            latencies_ms[record.value["type"]].append(late_ms)
    print(f"{'type':<14} {'records':>9} {'p50':>7} {'p99':>7} {'max':>7}   ms")
    for kind, values in sorted(latencies_ms.items()):
        cuts = quantiles(values, n=100) if len(values) > 1 else values * 99
        print(f"{kind:<14} {len(values):>9} {cuts[49]:>7.0f} {cuts[98]:>7.0f} {max(values):>7}")


if __name__ == "__main__":
    main()
