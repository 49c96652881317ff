"""The open files of a process: what it needs, and the limit, which is raised to that.

A Kafka client that gets no file for a connection tries again for ever, and says why in its log
only. SQLite does not say why at all. So a limit that is too low is found before anything is opened.
"""

import resource
from pathlib import Path

from dataflows.errors import too_few_files
from dataflows.settings import Settings
from heartwheel.cluster import Cluster
from heartwheel.http.connections import MAX_CONNECTIONS
from heartwheel.http.processes import MAX_ASKED
from heartwheel.http.sessions import MAX_WALKS

# Each Kafka client has a pipe to the thread of each broker, and a connection if it asks that one.
PER_BROKER = 24
# What SQLite has for each, and once more while a start looks at the store.
PER_PART = 4
# The connection to each other process, one each way for a moment.
PER_PROCESS = 2
# Beside its own connections, the HTTP server asks other processes: each listing one at a time.
HTTP_FILES = MAX_CONNECTIONS + MAX_ASKED + MAX_WALKS
OTHERS = 60


def allow_open_files(settings: Settings, cluster: Cluster, folder: Path, brokers: int) -> None:
    """See to it that this process may open what it needs, with so many brokers.

    Raises ShortageError if the system does not allow it.
    """
    parts = sum(1 for _ in folder.glob("*.sqlite3"))
    needed = needed_files(settings, cluster, parts, brokers)
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_enough(limit, needed):
        return
    if not _is_enough(most, needed):
        raise too_few_files(f"{needed} with {brokers} Kafka brokers and {parts} recovery parts")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def needed_files(settings: Settings, cluster: Cluster, parts: int, brokers: int) -> int:
    """Return how many files a process has open at most, rounded up."""
    return (
        OTHERS
        + PER_BROKER * brokers
        + PER_PART * parts
        + PER_PROCESS * len(cluster.addresses)
        + HTTP_FILES * bool(settings.http_port)
    )


def _is_enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
