"""Everything that can be set, with what each setting means; checked as a whole."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from dataflows.avro.access import is_word, wrong_access
from dataflows.shard import SHARD_ALLOWED, Shard, read_shard
from dataflows.start import START_ALLOWED, start_ms
from session_logic.errors import ConfigError
from session_logic.event_table import EventTable
from session_logic.events import Kind
from session_logic.keys import KEY_GROUPS, Route
from session_logic.mapping import Mapping
from session_logic.rules import Rules
from session_logic.summary import FIELDS as SUMMARY_FIELDS

MAX_PORT = 65_535
# Tables of librdkafka options: for all clients, for consumers, for producers.
OPTION_TABLES = ("kafka", "consumer", "producer")
SECRET_WORDS = ("password", "secret", "key", "token", "jaas", "credential", "oauthbearer.config")
VARIABLES_APART: dict[Kind, str] = {
    "heartbeats": "HEARTWHEEL_HEARTBEAT_TOPIC",
    "summaries": "HEARTWHEEL_SUMMARY_TOPIC",
    "table": "HEARTWHEEL_TABLE_TOPIC",
}
LANES_ALLOWED = (
    f"a power of two up to {KEY_GROUPS}, by HEARTWHEEL_ROUTE=partition any number up to it"
)

Positive = Annotated[int, Meta(gt=0)]
NotNegative = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1)]
Topics = dict[Name, Name]
Options = dict[str, str]


class Settings(
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
        dict[Name, EventTable],
        Meta(
            description="Input topics whose events have a shape of their own, each with a table "
            "that describes it. See docs/events.md."
        ),
    ] = {}
    output_topic: Annotated[
        Name,
        Meta(description="Topic for sessions; it must have as many partitions as there are lanes."),
    ] = "session-events"
    heartbeat_topic: Annotated[
        str,
        Meta(
            description="Topic for heartbeats, away from the other records, with as many "
            "partitions as lanes; empty: they go to the output topic. Change it only after a clean "
            "stop of a run that was ready. See docs/contract.md."
        ),
    ] = ""
    summary_topic: Annotated[
        str,
        Meta(
            description="Topic for one flat record of each session that has ended, with as many "
            "partitions as lanes; empty: there are none. Change it only after a clean stop of a "
            "run that was ready. See docs/contract.md."
        ),
    ] = ""
    table_topic: Annotated[
        str,
        Meta(
            description="Compacted topic that has the active session of each device under its id, "
            "and nothing once it has ended, with as many partitions as lanes; empty: there is "
            "none. Change it only after a clean stop of a run that was ready, to a topic without "
            "records. See docs/contract.md."
        ),
    ] = ""
    dead_letter_topic: Annotated[
        Name, Meta(description="Topic for input records that are no events.")
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
    # With more than a day, a wrong clock would open sessions that are in the future for days.
    idle_partition_ms: Annotated[
        NotNegative,
        Meta(
            description="How long the lanes wait for an input partition that has no leader, before "
            "they go on without it; 0 to wait for ever. See docs/guarantees.md."
        ),
    ] = 0
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
    snapshot_ms: Annotated[int, Meta(ge=10, description="Time between snapshots.")] = 250
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
        Positive, Meta(description="Recovery partitions to make if there are none.")
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
        NotNegative,
        Meta(
            description="Seconds between two lines of the log that tell how the process is doing; "
            "0 for none."
        ),
    ] = 60
    progress_topic: Annotated[
        str,
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

    def __post_init__(self) -> None:
        """Raise ConfigError if two settings contradict each other."""
        for problem in (
            self._wrong_times(),
            self._wrong_shard(),
            self._wrong_topics(),
            self._wrong_topics_apart(),
            self._wrong_http(),
            self._wrong_registry(),
        ):
            if problem:
                raise ConfigError(problem)

    def _wrong_times(self) -> str:
        if not are_lanes(self.lanes, self.route):
            return f"HEARTWHEEL_LANES is {self.lanes}: write {LANES_ALLOWED}"
        if self.max_session_ms < self.heartbeat_ms:
            return (
                f"HEARTWHEEL_MAX_SESSION_MS ({self.max_session_ms}) must be at least "
                f"HEARTWHEEL_HEARTBEAT_MS ({self.heartbeat_ms})"
            )
        try:
            start_ms(self.start)
        except ValueError:
            return f"HEARTWHEEL_START is {self.start!r}: write {START_ALLOWED}"
        return ""

    def _wrong_shard(self) -> str:
        try:
            shard = self.own_shard
        except ValueError:
            return f"HEARTWHEEL_SHARD is {self.shard!r}: write {SHARD_ALLOWED}"
        if self.shard and self.route != "partition":
            return (
                f"HEARTWHEEL_SHARD is {shard}, and HEARTWHEEL_ROUTE is {self.route}: a shard "
                "writes where it reads, so set HEARTWHEEL_ROUTE=partition"
            )
        if shard.shards > self.lanes:
            return (
                f"HEARTWHEEL_SHARD is {shard}, and HEARTWHEEL_LANES is {self.lanes}: each shard "
                f"needs a lane, so have at most {self.lanes} shards"
            )
        return ""

    def _wrong_topics(self) -> str:
        both = self.input_topics.keys() & self.inputs.keys()
        if both:
            return (
                f"HEARTWHEEL_INPUT_TOPICS and HEARTWHEEL_INPUTS both have {', '.join(sorted(both))}"
                ": a topic that has a table is left out of the others"
            )
        inputs = self.all_input_topics
        topics = [*inputs, self.output_topic, self.dead_letter_topic]
        if not inputs or len(set(topics)) < len(topics):
            return (
                "HEARTWHEEL_INPUT_TOPICS, HEARTWHEEL_OUTPUT_TOPIC and HEARTWHEEL_DEAD_LETTER_TOPIC "
                f"must name at least one input and no topic twice: {', '.join(topics)}"
            )
        for topic, table in self.inputs.items():
            if not table.type and topic not in self.idle_timeouts_ms:
                return (
                    f"HEARTWHEEL_INPUTS, {topic} has no type, so that no record is an end: "
                    "write type, or an idle_timeout_ms after which its sessions end"
                )
        if self.monitor_group == f"heartwheel-{self.output_topic}":
            return (
                f"HEARTWHEEL_MONITOR_GROUP is {self.monitor_group}: that group holds the lease on "
                "the output topic; give it another name"
            )
        return ""

    def _wrong_topics_apart(self) -> str:
        topics = [*self.all_input_topics, self.output_topic, self.dead_letter_topic]
        apart = {VARIABLES_APART[kind]: topic for kind, topic in self.topics_apart.items()}
        if self.progress_topic:
            apart["HEARTWHEEL_PROGRESS_TOPIC"] = self.progress_topic
            if not self.progress_s:
                return (
                    "HEARTWHEEL_PROGRESS_TOPIC is set, and HEARTWHEEL_PROGRESS_S is 0: write how "
                    "often there is a record, in seconds"
                )
        for variable, topic in apart.items():
            if topic in topics:
                return (
                    f"{variable} is {topic}, which is there for something else: "
                    "give it a topic of its own, or leave it empty"
                )
            topics.append(topic)
        for topic, table in self.inputs.items():
            for name in {*table.carry, *table.end_carry} if self.summary_topic else ():
                if name in SUMMARY_FIELDS:
                    return (
                        f"HEARTWHEEL_INPUTS, {topic} carries {name}, which a summary has as well: "
                        "give it another name, or leave HEARTWHEEL_SUMMARY_TOPIC empty"
                    )
        return ""

    def _wrong_http(self) -> str:
        if self.http_port and not self.http_token and not is_loopback(self.http_host):
            return (
                f"HEARTWHEEL_HTTP_HOST is {self.http_host}, which others can reach: set "
                "HEARTWHEEL_HTTP_TOKEN (or HEARTWHEEL_HTTP_TOKEN_FILE) to what they must know, or "
                "HEARTWHEEL_HTTP_PORT=0 to have no server"
            )
        wrong = [one for one in self.http_places if not is_port(one.rpartition(":")[2])]
        if wrong:
            return f"HEARTWHEEL_HTTP_ADDRESSES has {wrong[0]!r}: write host:port for each process"
        if not is_word(self.http_token):
            return "HEARTWHEEL_HTTP_TOKEN must be one word of ASCII letters, digits and signs"
        return ""

    def _wrong_registry(self) -> str:
        for topic in self.avro_topics:
            if not self.registry_url:
                return (
                    f"HEARTWHEEL_INPUTS, {topic} has format avro: set HEARTWHEEL_REGISTRY_URL to "
                    "where the schemas are"
                )
        return wrong_access(
            self.registry_urls, self.registry_username, self.registry_password, self.registry_token
        )

    @property
    def http_places(self) -> list[str]:
        """The address of each process's HTTP server, if they are set."""
        return [place.strip() for place in self.http_addresses.split(",") if place.strip()]

    @property
    def own_shard(self) -> Shard:
        """The shard that this run is; raises ValueError if it is none."""
        return read_shard(self.shard)

    @property
    def own_lanes(self) -> range:
        """The lanes of this run, in all its processes."""
        return self.own_shard.of(self.lanes)

    @property
    def registry_urls(self) -> list[str]:
        """Every address of the registry."""
        return [url.strip().rstrip("/") for url in self.registry_url.split(",") if url.strip()]

    @property
    def avro_topics(self) -> list[str]:
        """The input topics in Avro."""
        return [topic for topic, table in self.inputs.items() if table.format == "avro"]

    @property
    def all_input_topics(self) -> list[str]:
        """Every input topic, with a table or without."""
        return [*self.input_topics, *self.inputs]

    @property
    def topics_apart(self) -> dict[Kind, str]:
        """The topics of records that do not go to the output topic, by their kind."""
        topics: dict[Kind, str] = {
            "heartbeats": self.heartbeat_topic,
            "summaries": self.summary_topic,
            "table": self.table_topic,
        }
        return {kind: topic for kind, topic in topics.items() if topic}

    @property
    def lane_topics(self) -> dict[str, str]:
        """The topics with a partition for each lane, with the variables that name them."""
        topics = {self.output_topic: "HEARTWHEEL_OUTPUT_TOPIC"}
        return topics | {topic: VARIABLES_APART[kind] for kind, topic in self.topics_apart.items()}

    @property
    def platforms(self) -> dict[str, str]:
        """The platform of every input topic, which is "" where its events have it."""
        tables = {topic: table.platform for topic, table in self.inputs.items()}
        return self.input_topics | {
            topic: platform if isinstance(platform, str) else ""
            for topic, platform in tables.items()
        }

    def mappings(self) -> dict[str, Mapping]:
        """Return what reads the topics that have a table."""
        return {
            topic: Mapping(
                table,
                self.max_clock_skew_ms,
                self.late_limit_ms,
                listens=topic in self.idle_timeouts_ms,
            )
            for topic, table in self.inputs.items()
        }

    @property
    def idle_timeouts_ms(self) -> dict[str, int]:
        """The idle timeout of each input topic whose sessions have one."""
        timeouts_ms = dict.fromkeys(self.input_topics, self.idle_timeout_ms)
        for topic, table in self.inputs.items():
            own_ms = table.idle_timeout_ms
            timeouts_ms[topic] = self.idle_timeout_ms if own_ms is None else own_ms
        return {topic: timeout_ms for topic, timeout_ms in timeouts_ms.items() if timeout_ms}

    def rules(self) -> Rules:
        """Return the part that the session rules need."""
        return Rules(
            self.heartbeat_ms,
            self.max_session_ms,
            self.deduplication_window_ms,
            self.catch_up,
            carry_in_heartbeats=self.carry_in_heartbeats,
            apart=tuple(self.topics_apart),
        )

    def recovery_path(self) -> Path:
        """Return the recovery directory; a `~` is the home directory, as in a shell."""
        return Path(self.recovery_dir).expanduser()

    def masked(self) -> dict[str, Any]:
        """Return every setting as plain values, with secrets replaced by stars."""
        plain: dict[str, Any] = _masked(msgspec.to_builtins(self))
        return plain | {table: _masked(plain[table]) for table in OPTION_TABLES}

    def __repr__(self) -> str:
        """Show the settings without secrets."""
        return f"Settings({self.masked()})"


def is_secret(name: str) -> bool:
    """Say whether the value of a setting or of an option must not be shown."""
    return any(word in name for word in SECRET_WORDS)


def _masked(values: dict[str, Any]) -> dict[str, Any]:
    return {name: "***" if value and is_secret(name) else value for name, value in values.items()}


def are_lanes(count: int, route: Route) -> bool:
    """Say whether a run by this route can have so many lanes."""
    return 0 < count <= KEY_GROUPS and (route == "partition" or not count & (count - 1))


def is_port(text: str) -> bool:
    """Say whether a text is the number of a port that can be connected to."""
    good = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PORT))
    return good and 0 < int(text) <= MAX_PORT


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach what is bound to a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
