"""The settings of a run: the table of them, checked as a whole, and what follows from it."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from dataflows.avro.access import is_word, wrong_access
from dataflows.settings_table import LANES_ALLOWED, MAX_PORT, SettingsTable
from dataflows.shard import SHARD_ALLOWED, Shard, read_shard
from dataflows.start import START_ALLOWED, start_ms
from session_logic.errors import ConfigError
from session_logic.events import Kind
from session_logic.keys import KEY_GROUPS, Route
from session_logic.mapping import Mapping
from session_logic.rules import Rules
from session_logic.summary import FIELDS as SUMMARY_FIELDS

# Tables of librdkafka options: for all clients, for consumers, for producers.
OPTION_TABLES = ("kafka", "consumer", "producer")
SECRET_WORDS = ("password", "secret", "key", "token", "jaas", "credential", "oauthbearer.config")
VARIABLES_APART: dict[Kind, str] = {
    "heartbeats": "HEARTWHEEL_HEARTBEAT_TOPIC",
    "summaries": "HEARTWHEEL_SUMMARY_TOPIC",
    "table": "HEARTWHEEL_TABLE_TOPIC",
}


class Settings(SettingsTable, frozen=True):
    """The settings of a run, which do not contradict each other, and what follows from them."""

    def __post_init__(self) -> None:
        """Raise ConfigError if two settings contradict each other."""
        for problem in (
            self._wrong_times(),
            self._wrong_shard(),
            self._wrong_topics(),
            self._wrong_ends(),
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
        if not self.all_input_topics:
            return "HEARTWHEEL_INPUT_TOPICS is empty: name a topic, or write an input table"
        names: dict[str, str] = {}
        for variable, topic in self._named_topics():
            if topic in names:
                return (
                    f"{variable} is {topic}, which {names[topic]} has as well: give it a topic of "
                    "its own"
                )
            names[topic] = variable
        if self.monitor_group == f"heartwheel-{self.output_topic}":
            return (
                f"HEARTWHEEL_MONITOR_GROUP is {self.monitor_group}: that group holds the lease on "
                "the output topic; give it another name"
            )
        return ""

    def _wrong_ends(self) -> str:
        """Return which table begins sessions that neither a record nor silence ends.

        Ends may come by a topic that has nothing but ends, if another one has starts. That the next
        start is to end a session is said by a timeout of 0.
        """
        tables = self.inputs.values()
        if not self.input_topics and not any(
            table.start or table.open_on_ping or not table.type for table in tables
        ):
            return "HEARTWHEEL_INPUTS has no start in any table: write what begins a session"
        apart = any(table.end and not table.start for table in tables)
        for topic, table in self.inputs.items():
            if table.end or topic in self.idle_timeouts_ms:
                continue
            if not table.type:
                return (
                    f"HEARTWHEEL_INPUTS, {topic} has no type, so that no record is an end: "
                    "write type, or an idle_timeout_ms after which its sessions end"
                )
            if not apart and table.idle_timeout_ms is None:
                return (
                    f"HEARTWHEEL_INPUTS, {topic} has no end, so that no record is an end: write "
                    "end, or an idle_timeout_ms after which its sessions end, or idle_timeout_ms = "
                    "0 if only the next start ends them"
                )
        return ""

    def _named_topics(self) -> Iterator[tuple[str, str]]:
        """Yield each topic with the variable that names it."""
        yield from (("HEARTWHEEL_INPUT_TOPICS", topic) for topic in self.input_topics)
        yield from (("HEARTWHEEL_INPUTS", topic) for topic in self.inputs)
        yield "HEARTWHEEL_DEAD_LETTER_TOPIC", self.dead_letter_topic
        yield "HEARTWHEEL_OUTPUT_TOPIC", self.output_topic
        yield from ((VARIABLES_APART[kind], topic) for kind, topic in self.topics_apart.items())
        if self.progress_topic:
            yield "HEARTWHEEL_PROGRESS_TOPIC", self.progress_topic

    def _wrong_topics_apart(self) -> str:
        if self.progress_topic and not self.progress_s:
            return (
                "HEARTWHEEL_PROGRESS_TOPIC is set, and HEARTWHEEL_PROGRESS_S is 0: write how "
                "often there is a record, in seconds"
            )
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
