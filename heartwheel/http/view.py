"""What the HTTP server is given to look at."""

from msgspec import Struct

from dataflows.run_state import RunState
from dataflows.settings import Settings
from heartwheel.cluster import Cluster


class ProcessView(Struct, frozen=True):
    """The settings of a process, its place in the cluster, and the state of its run."""

    settings: Settings
    cluster: Cluster
    run: RunState
