"""Every setting: its name, type and default, and what it means."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, ValidationError, convert, field

from dataflows.shard import SHARD_ALLOWED
from dataflows.start import START_ALLOWED
from session_logic.event_table import EventTable
from session_logic.keys import KEY_GROUPS, Route
from session_logic.rules import LONGEST_MS

MAX_PORT = 65_535
LANES_ALLOWED = (
    f"a power of two up to {KEY_GROUPS}, by HEARTWHEEL_ROUTE=partition any number up to it"
)

Positive = Annotated[int, Meta(gt=0, le=LONGEST_MS)]
NotNegative = Annotated[int, Meta(ge=0, le=LONGEST_MS)]
Name = Annotated[str, Meta(min_length=1)]
# What Kafka takes as the name of a topic.
TOPIC_ALLOWED = (
    "up to 249 letters (a to z), digits, dots, _ and -, not . or .. alone (in TOML, in quotes)"
)
NoTopic = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}\Z)[a-zA-Z0-9._-]*\Z", max_length=249, extra={"allowed": TOPIC_ALLOWED}
    ),
]
Topic = Annotated[NoTopic, Meta(min_length=1)]
Topics = dict[Topic, Name]
Options = dict[str, str]


def is_topic(name: str) -> bool:
    """Say whether Kafka takes a name as that of a topic."""
    try:
        convert(name, Topic)
    except ValidationError:
        return False
    return True


class SettingsTable(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, repr_omit_defaults=True
):
    """The settings of a run; every name is a TOML key and, in capitals, a HEARTWHEEL_ variable.

    An option of the three tables at the end wins over Heartwheel's own choice. A Meta's `extra`
    says in words what a value may be, where its type does not.
    """

    bootstrap_servers: Annotated[
        Name, Meta(description="Kafka brokers to begin with, as host:port, with commas between.")
    ] = "127.0.0.1:9092"
    input_topics: Annotated[
        Topics,
        Meta(
            description="Input topics with their platforms, as topic=platform, with commas "
            "between. One that is added is read from HEARTWHEEL_START on. Take one away only after "
            "a clean stop of a run that was ready: else what a crashed run has sent of it is sent "
            "again once it is back. With input tables alone there are no others."
        ),
    ] = field(default_factory=lambda: {"console-events": "console", "pc-events": "pc"})
    inputs: Annotated[
        dict[Topic, EventTable],
        Meta(
            description="Input topics whose events have a shape of their own, each with a table "
            "that describes it. See docs/events.md."
        ),
    ] = {}
    output_topic: Annotated[
        Topic,
        Meta(description="Topic for sessions, with as many partitions as lanes."),
    ] = "session-events"
    heartbeat_topic: Annotated[
        NoTopic,
        Meta(
            description="Topic for heartbeats, away from the other records, with as many "
            "partitions as lanes; empty: they go to the output topic. Change it only after a clean "
            "stop of a run that was ready. See docs/contract.md."
        ),
    ] = ""
    summary_topic: Annotated[
        NoTopic,
        Meta(
            description="Topic for one flat record of each session that has ended, with as many "
            "partitions as lanes; empty: there are none. Change it only after a clean stop of a "
            "run that was ready. See docs/contract.md."
        ),
    ] = ""
    table_topic: Annotated[
        NoTopic,
        Meta(
            description="Compacted topic that has the active session of each device under its id, "
            "and nothing once it has ended, with as many partitions as lanes; empty: there is "
            "none. Change it only after a clean stop of a run that was ready, to a topic without "
            "records. See docs/contract.md."
        ),
    ] = ""
    dead_letter_topic: Annotated[
        Topic, Meta(description="Topic for input records that are no events.")
    ] = "dead-letters"
    lanes: Annotated[
        Positive,
        Meta(
            description="How many lanes; another number than the stored one needs "
            "`heartwheel store migrate`.",
            extra={"allowed": LANES_ALLOWED},
        ),
    ] = 4
    route: Annotated[
        Route,
        Meta(
            description="What decides the lane of a device: the `hash` of its id, or the number of "
            "the input `partition` that its events are in. By `partition`, each input topic must "
            "have as many partitions as lanes. A store keeps its route; `heartwheel store reshard` "
            "makes others of it that have the other one."
        ),
    ] = "hash"
    shard: Annotated[
        str,
        Meta(
            description="Which part of the partitions this run has, by HEARTWHEEL_ROUTE=partition: "
            "2/8 has every eighth from number 2 on, with a store of its own. pod/8 takes the "
            "number from the name of the pod. Empty: all of them. See docs/shards.md.",
            extra={"allowed": SHARD_ALLOWED},
        ),
    ] = ""
    heartbeat_ms: Annotated[
        NotNegative,
        Meta(
            description="Time between the heartbeats of a session; 0 for none. A session keeps the "
            "interval with which it started."
        ),
    ] = 30_000
    max_session_ms: Annotated[
        Positive,
        Meta(
            description="A session that is active for this long times out; at least "
            "HEARTWHEEL_HEARTBEAT_MS. A change holds for running sessions as well."
        ),
    ] = 28_800_000
    idle_timeout_ms: Annotated[
        NotNegative,
        Meta(
            description="A session of which nothing is heard for this long ends (`went_silent`); 0 "
            "for never. A session keeps the timeout with which it started. See docs/presence.md."
        ),
    ] = 0
    deduplication_window_ms: Annotated[
        NotNegative,
        Meta(
            description="How long after its end a repeated start of a session is recognised as a "
            "duplicate, and an end waits for its start. A change holds for stored ends as well."
        ),
    ] = 120_000
    tick_ms: Annotated[
        Positive,
        Meta(description="How often Kafka is polled and the wheel is turned, with little to do."),
    ] = 5
    target_latency_ms: Annotated[
        Positive,
        Meta(
            description="How long an event or a heartbeat may wait for that with much to do; the "
            "longer, the less processor time."
        ),
    ] = 10
    catch_up: Annotated[
        Literal["latest", "all"],
        Meta(
            description="Of the heartbeats due during an outage, send the latest of each session "
            "or all. What is set at a start decides about the outage before it."
        ),
    ] = "latest"
    carry_in_heartbeats: Annotated[
        bool,
        Meta(
            description="Whether heartbeats have the fields that their session carries, as its "
            "other records do."
        ),
    ] = True
    start: Annotated[
        Name,
        Meta(
            description="Where to begin in an input partition of which nothing has been read: at "
            "its beginning, at its end, or at its first record with a timestamp that is not before "
            "the moment (at its end if there is none).",
            extra={"allowed": START_ALLOWED},
        ),
    ] = "earliest"
    idle_partition_ms: Annotated[
        NotNegative,
        Meta(
            description="How long the lanes wait for an input partition that has no leader, before "
            "they go on without it; 0 to wait for ever. See docs/guarantees.md."
        ),
    ] = 0
    # With more than a day, a wrong clock would open sessions that are in the future for days.
    max_clock_skew_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=86_400_000,
            description="A record with a timestamp further ahead of the clock is a dead letter "
            "(`in_the_future`).",
        ),
    ] = 60_000
    late_limit_ms: Annotated[
        NotNegative,
        Meta(
            description="An event whose own time, in a field, is longer before its record's "
            "timestamp has that timestamp as its time."
        ),
    ] = 86_400_000
    # A dead letter with its headers must fit into a record of a broker's usual size.
    max_record_bytes: Annotated[
        int,
        Meta(
            gt=0,
            le=900_000,
            description="A record whose key and value together are larger is a dead letter "
            "(`too_large`), without them.",
        ),
    ] = 65_536
    snapshot_ms: Annotated[
        int, Meta(ge=10, le=LONGEST_MS, description="Time between snapshots.")
    ] = 250
    recovery_dir: Annotated[
        Name, Meta(description="Directory of the recovery store, which holds the sessions.")
    ] = "recovery"
    new_store: Annotated[
        bool,
        Meta(
            description="Let a store write to an output topic that another store has written. A "
            "new one sends the output of all input again. For one start, in all its processes; "
            "`run --new-store` is the same."
        ),
    ] = False
    recovery_parts: Annotated[
        int, Meta(gt=0, le=KEY_GROUPS, description="Recovery partitions to make if there are none.")
    ] = 1
    restore_timeout_ms: Annotated[
        Positive,
        Meta(
            description="A stored row that has not come after this time is lost, and the start "
            "fails."
        ),
    ] = 60_000
    fencing: Annotated[
        bool,
        Meta(
            description="Hold the lease on the output topic; turn it off for brokers without "
            "transactions."
        ),
    ] = True
    delivery_timeout_ms: Annotated[
        Positive,
        Meta(
            description="How long a record, or the lease, may wait for Kafka before the run fails."
        ),
    ] = 120_000
    stop_timeout_ms: Annotated[
        Positive, Meta(description="A stop that takes longer exits with 1.")
    ] = 20_000
    monitor_group: Annotated[
        str,
        Meta(
            description="Consumer group to which offsets are committed at each snapshot, for tools "
            "that show lag; one for each run; empty turns it off."
        ),
    ] = "heartwheel-monitor"
    log_format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="Format of the log; `auto` is text on a terminal, else JSON."),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least severe level that is logged."),
    ] = "info"
    progress_s: Annotated[
        int,
        Meta(
            ge=0,
            le=LONGEST_MS // 1000,
            description="Seconds between two lines of the log that tell how the process is doing; "
            "0 for none.",
        ),
    ] = 60
    progress_topic: Annotated[
        NoTopic,
        Meta(
            description="Topic to which each process sends what these lines say, as JSON; empty "
            "for none. For one run `run --progress-topic` is the same."
        ),
    ] = ""
    http_host: Annotated[Name, Meta(description="Where the HTTP server listens.")] = "127.0.0.1"
    http_port: Annotated[
        int, Meta(ge=0, le=MAX_PORT, description="Port of the HTTP server; 0 for no server.")
    ] = 8080
    http_addresses: Annotated[
        str,
        Meta(
            description="Where the HTTP servers of all processes of a cluster are, as host:port "
            "with commas between, in the order of --addresses; without it, at the hosts of "
            "--addresses with HEARTWHEEL_HTTP_PORT. Of shards, from number 0 on; without it, each "
            "answers for itself."
        ),
    ] = ""
    http_token: Annotated[
        str,
        Meta(
            description="Asked for as `Authorization: Bearer` on everything but /livez and "
            "/readyz; required when others can reach the host."
        ),
    ] = ""
    liveness_timeout_ms: Annotated[
        Positive,
        Meta(description="/livez fails when a loop of the dataflow has not turned for longer."),
    ] = 10_000
    ready_lag_ms: Annotated[
        Positive,
        Meta(description="/readyz fails while a lane is further behind the wall clock."),
    ] = 5_000
    registry_url: Annotated[
        str,
        Meta(
            description="Schema registry of the topics in Avro: what comes before /schemas/ids in "
            "its addresses, with commas between several.",
            extra={"allowed": "http:// or https://"},
        ),
    ] = ""
    registry_username: Annotated[
        str, Meta(description="User for the registry, with basic authentication.")
    ] = ""
    registry_password: Annotated[str, Meta(description="Password of that user.")] = ""
    registry_token: Annotated[str, Meta(description="Bearer token for the registry instead.")] = ""
    registry_ca: Annotated[
        str,
        Meta(
            description="PEM file with the authorities that may sign the registry's certificate; "
            "without it, those that the system trusts."
        ),
    ] = ""
    kafka: Annotated[Options, Meta(description="Options of librdkafka for all clients.")] = {}
    consumer: Annotated[Options, Meta(description="Options of librdkafka for consumers.")] = {}
    producer: Annotated[Options, Meta(description="Options of librdkafka for producers.")] = {}
