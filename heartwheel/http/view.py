"""What the HTTP server is given to look at."""

from urllib.parse import quote

from msgspec import Struct

from dataflows.run_state import RunState
from dataflows.settings import Settings
from heartwheel.cluster import Cluster

# The header that names a process.
NAME = "heartwheel-process"


class ProcessView(Struct, frozen=True):
    """The settings of a process, its place in the cluster, and the state of its run."""

    settings: Settings
    cluster: Cluster
    run: RunState

    @property
    def name(self) -> str:
        """What tells this process from others: its number and its output topic."""
        return self.name_of(self.number)

    @property
    def number(self) -> int:
        """The number of this process: that of the shard that it is, or that in its cluster."""
        return self.settings.own_shard.number if self.settings.shard else self.cluster.number

    def name_of(self, number: int) -> str:
        """Return what tells a process of the cluster, or a shard, from others."""
        return f"{number} {quote(self.settings.output_topic)}"

    @property
    def own_lanes(self) -> list[int]:
        """The numbers of the lanes that this process has."""
        return self.cluster.lanes_of(self.cluster.number, self.settings.own_lanes)

    def not_yet(self, number: int) -> str:
        """Say why nothing is known of a lane of this process yet; "" if it is."""
        lane = self.run.lanes.get(number)
        if lane is None:
            awaited = self.run.awaited_processes
            why = f"waiting for {awaited}" if awaited else "no word yet from input or store"
            return f"lane {number} has not begun: {why}"
        return f"lane {number} is being restored" if lane.restoring else ""
