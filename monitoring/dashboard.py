"""The Grafana dashboard; `python -m monitoring.dashboard` writes it into dashboard.json."""

import json
from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
)

from monitoring.panels import (
    CHOSEN,
    SHARDS,
    SOURCE,
    Panel,
    by_shard,
    graph,
    limits,
    number,
    quantile,
    quantiles,
    rate,
    spread,
)

FILE = Path(__file__).with_name("dashboard.json")
WIDTH = 24  # of Grafana's grid
# What the alerts ask for, in seconds.
LATE_S, CLOCK_LAG_S, SNAPSHOT_AGE_S, SILENCE_S = 0.5, 10, 30, 300
ENDS = ',outcome=~"ended|ended_early|replaced|timed_out|went_silent"'


def glance() -> list[Panel]:
    """Return the panels that say whether all is well."""
    return [
        number(
            "Processes up",
            "Processes that give metrics.",
            "short",
            "sum(up" + CHOSEN + ")",
            limits(1, above="green", below="red"),
        ),
        number(
            "Active sessions",
            "Sessions that have begun and not ended.",
            "short",
            f"sum(heartwheel_active_sessions{CHOSEN})",
        ),
        number("Events", "Events read a second.", "cps", f"sum({rate('heartwheel_events_total')})"),
        number(
            "Heartbeats",
            "Heartbeats that have come due, a second.",
            "cps",
            f"sum({rate('heartwheel_heartbeats_total')})",
        ),
        number(
            "Event latency, p99",
            "From the timestamp of the input record to the acknowledgement of the output record.",
            "s",
            quantile(0.99, "heartwheel_event_latency_seconds"),
            limits(LATE_S),
        ),
        number(
            "Heartbeat lateness, p99",
            "From the moment that a heartbeat is due to its acknowledgement.",
            "s",
            quantile(0.99, "heartwheel_heartbeat_lateness_seconds"),
            limits(LATE_S),
        ),
        number(
            "Clock lag",
            "How far the slowest lane is behind the wall clock.",
            "s",
            f"max(heartwheel_clock_lag_seconds{CHOSEN})",
            limits(CLOCK_LAG_S),
        ),
        number(
            "Dead letters",
            "Bad input in the time that is shown.",
            "short",
            f"sum(increase(heartwheel_dead_letters_total{CHOSEN}[$__range]))",
            limits(1, above="orange"),
        ),
    ]


def sessions() -> list[Panel]:
    """Return the panels on what devices do."""
    return [
        graph(
            "Active sessions",
            "By platform.",
            "short",
            (f"sum by (platform) (heartwheel_active_sessions{CHOSEN})", "{{platform}}"),
            stacked=True,
        ),
        graph(
            "Events",
            "Events read a second, by type.",
            "cps",
            (f"sum by (type) ({rate('heartwheel_events_total')})", "{{type}}"),
        ),
        graph(
            "Outcomes",
            "What has become of events and sessions, a second.",
            "cps",
            (f"sum by (outcome) ({rate('heartwheel_outcomes_total')})", "{{outcome}}"),
        ),
        graph(
            "Events by platform",
            "Events read a second.",
            "cps",
            (f"sum by (platform) ({rate('heartwheel_events_total')})", "{{platform}}"),
        ),
        graph(
            "Ends by platform",
            "How sessions end, a second; those that time out or go silent have sent no end.",
            "cps",
            (
                f"sum by (platform, outcome) ({rate('heartwheel_outcomes_total', ENDS)})",
                "{{platform}} {{outcome}}",
            ),
        ),
        graph(
            "Input silence",
            "Time since the newest record of each input topic came.",
            "s",
            (f"min by (topic) (heartwheel_input_silence_seconds{CHOSEN})", "{{topic}}"),
            limit=SILENCE_S,
        ),
    ]


def shards() -> list[Panel]:
    """Return the panels on shards; a run that is none is shard 0 of 1."""
    late = rate("heartwheel_heartbeat_lateness_seconds_bucket")
    late = f"{late} + on (job, instance) group_left (shard) 0 * {SHARDS}"
    return [
        graph(
            "Shards",
            "Those that give metrics, and how many there are by what each of them was told.",
            "short",
            (f"count(sum by (shard) ({SHARDS}))", "there"),
            (f"max({SHARDS})", "told"),
        ),
        graph(
            "Active sessions by shard",
            "Sessions that have begun and not ended.",
            "short",
            (by_shard(f"heartwheel_active_sessions{CHOSEN}"), "shard {{shard}}"),
            stacked=True,
        ),
        graph(
            "Heartbeat lateness by shard, p99",
            "From the moment that a heartbeat is due to its acknowledgement.",
            "s",
            (f"histogram_quantile(0.99, sum by (shard, le) ({late}))", "shard {{shard}}"),
            limit=LATE_S,
        ),
    ]


def latency() -> list[Panel]:
    """Return the panels on how fast it is."""
    event, heartbeat = "heartwheel_event_latency_seconds", "heartwheel_heartbeat_lateness_seconds"
    return [
        graph(
            "Event latency",
            "From the timestamp of the input record to the acknowledgement of the output record.",
            "s",
            *quantiles(event),
            limit=LATE_S,
        ),
        spread("Event latency, spread", "Records by their latency.", event),
        graph(
            "Heartbeat lateness",
            "From the moment that a heartbeat is due to its acknowledgement.",
            "s",
            *quantiles(heartbeat),
            limit=LATE_S,
        ),
        spread("Heartbeat lateness, spread", "Heartbeats by their lateness.", heartbeat),
    ]


def flow() -> list[Panel]:
    """Return the panels on the way from input to output."""
    return [
        graph(
            "Consumer lag",
            "Records of each input partition that have not been taken in.",
            "short",
            (
                f"sum by (topic, partition) (heartwheel_consumer_lag_records{CHOSEN})",
                "{{topic}}/{{partition}}",
            ),
        ),
        graph(
            "Clock lag",
            "Wall clock minus the time of each lane; grows while a partition cannot be read.",
            "s",
            (f"max by (lane) (heartwheel_clock_lag_seconds{CHOSEN})", "lane {{lane}}"),
            limit=CLOCK_LAG_S,
        ),
        graph(
            "Dead letters",
            "Bad input a second, by reason.",
            "cps",
            (f"sum by (reason) ({rate('heartwheel_dead_letters_total')})", "{{reason}}"),
        ),
        graph(
            "Heartbeats",
            "Heartbeats that have come due, a second, by lane.",
            "cps",
            (f"sum by (lane) ({rate('heartwheel_heartbeats_total')})", "lane {{lane}}"),
            stacked=True,
        ),
        graph(
            "Sink queue",
            "Records sent and not acknowledged yet; grows while Kafka does not answer.",
            "short",
            (f"sum by (instance) (heartwheel_sink_queue_records{CHOSEN})", "{{instance}}"),
        ),
        graph(
            "Reconciled records",
            "Found in the output topic after a crash, and not sent again.",
            "short",
            (
                f"sum by (instance) (heartwheel_reconciled_records_total{CHOSEN})",
                "{{instance}}",
            ),
        ),
    ]


def store() -> list[Panel]:
    """Return the panels on snapshots and the recovery store."""
    return [
        graph(
            "Snapshot age",
            "Time since the last complete snapshot.",
            "s",
            (f"max by (instance) (heartwheel_snapshot_age_seconds{CHOSEN})", "{{instance}}"),
            limit=SNAPSHOT_AGE_S,
        ),
        graph(
            "Snapshot duration",
            "From the end of an epoch until all of it is stored.",
            "s",
            *quantiles("heartwheel_snapshot_duration_seconds"),
        ),
        graph(
            "Snapshot bytes",
            "Bytes given to the recovery store, a second.",
            "Bps",
            (f"sum by (instance) ({rate('heartwheel_snapshot_bytes_total')})", "{{instance}}"),
        ),
        graph(
            "Merge duration",
            "Time that writing the base of a group of devices takes.",
            "s",
            *quantiles("heartwheel_merge_duration_seconds"),
        ),
        graph(
            "Stored rows",
            "Rows in the store (at most 768), and those that a lane still waits for on a resume.",
            "short",
            (f"sum(heartwheel_store_keys{CHOSEN})", "stored"),
            (f"sum(heartwheel_restore_rows_missing{CHOSEN})", "missing"),
        ),
        graph(
            "Stored bytes",
            "Bytes in the rows of the store.",
            "bytes",
            (f"sum by (instance) (heartwheel_store_bytes{CHOSEN})", "{{instance}}"),
        ),
    ]


def processes() -> list[Panel]:
    """Return the panels on the processes themselves."""
    start, build = f"process_start_time_seconds{CHOSEN}", f"heartwheel_build_info{CHOSEN}"
    return [
        graph(
            "Processor",
            "Cores in use.",
            "short",
            (f"sum by (instance) ({rate('process_cpu_seconds_total')})", "{{instance}}"),
        ),
        graph(
            "Memory",
            "Memory in use, and what may be used.",
            "bytes",
            (f"sum by (instance) (process_resident_memory_bytes{CHOSEN})", "{{instance}}"),
            (f"sum by (instance) (heartwheel_memory_limit_bytes{CHOSEN})", "limit {{instance}}"),
        ),
        graph(
            "Time since the start",
            "Falls to zero when a process is started again.",
            "s",
            (
                f"time() - {start} * on (job, instance) group_right {build}",
                "{{instance}} version {{version}}",
            ),
        ),
    ]


# Each row of the dashboard: its title, its panels, and how many stand side by side.
ROWS = (
    ("At a glance", glance(), 8),
    ("Sessions", sessions(), 3),
    ("Latency", latency(), 2),
    ("Shards", shards(), 3),
    ("From input to output", flow(), 3),
    ("Snapshots and store", store(), 3),
    ("Processes", processes(), 3),
)


def build() -> str:
    """Return the dashboard as Grafana imports it."""
    board = (
        Dashboard("Heartwheel")
        .uid("heartwheel")
        .tags(["heartwheel"])
        .description("Device sessions and heartbeats from Kafka to Kafka; see docs/runbook.md")
        .time("now-30m", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("job", "label_values(heartwheel_build_info, job)"))
        .with_variable(
            _choice("instance", 'label_values(heartwheel_build_info{job=~"$job"}, instance)')
        )
        .annotation(
            AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(enable=True)
            .icon_color("red")
            .expr('ALERTS{alertname=~"Heartwheel.*",alertstate="firing"}')
        )
    )
    numbers = count(1)
    for title, panels, in_line in ROWS:
        board.with_row(Row(title).id(next(numbers)))
        for panel in panels:
            board.with_panel(panel.id(next(numbers)).span(WIDTH // in_line))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _choice(name: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all"))
    )


if __name__ == "__main__":
    FILE.write_text(build())
