"""All that is off by default, turned on: a topic for each consumer, and silence that ends sessions.

Silence ends the sessions of every input topic. One more topic has signs of life alone, each of
which begins a session where none is active (`open_on_ping`).
"""

from msgspec import Struct

from tests.support.broker import create_topics
from tests.support.cluster import Cluster
from tests.support.consumers import check_summaries, check_table

TABLE = """
[inputs.{topic}]
platform = "web"
device = "key"
session = "visit"
open_on_ping = true
"""


class Everything(Struct):
    """The topics that are there only where everything is on."""

    signs: str
    summaries: str
    table: str

    def check(self, cluster: Cluster) -> tuple[int, int]:
        """Check the topics for consumers; return how many summaries and active sessions are there.

        Heartbeats are compared with the model like the output.
        """
        return check_summaries(cluster, self.summaries), check_table(cluster, self.table)


def turn_on(cluster: Cluster, idle_timeout_ms: int) -> Everything:
    """Turn everything on for the next runs."""
    cluster.give_heartbeats_a_topic()
    signs = f"{cluster.output}-signs"
    create_topics(cluster.admin, {signs: cluster.input_partitions}, cluster.replicas)
    cluster.inputs[signs] = "web"
    config = cluster.folder / "everything.toml"
    config.write_text(TABLE.format(topic=signs))
    cluster.variables |= {
        "HEARTWHEEL_CONFIG": str(config),
        "HEARTWHEEL_IDLE_TIMEOUT_MS": str(idle_timeout_ms),
    }
    summaries = cluster.give_summaries_a_topic()
    return Everything(signs, summaries, cluster.give_the_table_a_topic())
