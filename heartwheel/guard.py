"""What a process needs before it may write: the store for itself, and the output topic.

The order matters. The store is locked before it is changed, and compared with the topic before the
lease says that this run writes there. The lease comes last, because from then on another run of
the same topic is refused.
"""

from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from dataflows.kafka.followed_lease import FollowedLease
from dataflows.kafka.lease import Lease
from dataflows.kafka.lease_record import Held
from dataflows.kafka.permit import WritePermit
from dataflows.settings import Settings
from heartwheel.cluster import Cluster
from heartwheel.store.files import StoreFiles
from heartwheel.store.identity import identify, note_clean_stop
from heartwheel.store.lock import StoreLock
from heartwheel.store.read_order import read_in_order
from heartwheel.store.start import StartCheck
from heartwheel.store.uncommitted import forget_unfinished
from session_logic.errors import SnapshotError


class Guard:
    """Keeps other runs from the store and the output topic of this process."""

    def __init__(self, settings: Settings, cluster: Cluster, folder: Path) -> None:
        """Lock the store in a folder, and let the first process clean up after a crash.

        What an interrupted epoch left must go before any process reads the store; the others cannot
        begin before they are connected to the first one. Raises HeartwheelError.
        """
        self._lock = StoreLock(folder, cluster.number)
        self._files = StoreFiles(folder)
        self._folder = folder
        self._start: StartCheck | None = None
        self._lease: Lease | FollowedLease | None = None
        if not cluster.number:
            forget_unfinished(folder)
            read_in_order(folder)
            self._start = StartCheck(settings, folder, identify(folder))
        if settings.fencing:
            self._lease = self._lease_of(settings, cluster, self._start)

    def _lease_of(
        self, settings: Settings, cluster: Cluster, start: StartCheck | None
    ) -> Lease | FollowedLease:
        """Return what lets this process write; the others follow the first."""
        if start is None:
            return FollowedLease(settings)
        holder = Held(
            self._lock.store,
            uuid4().hex,
            lock=self._lock.place,
            processes=max(1, len(cluster.addresses)),
            owner=start.owner.id,
            place=start.owner.place,
            shards=settings.own_shard.shards,
            generation=start.generation,
        )
        return Lease(settings, holder, ancestors=start.ancestors)

    @property
    def permit(self) -> WritePermit | None:
        """What the producer asks before it sends; None if the settings want no lease."""
        return None if self._lease is None else self._lease.permit

    def begin(self) -> None:
        """Take the lease, once the store is found to be the right one for the topic.

        Whose the topic is can be told only then, because no other run can change it any more.
        Raises ConfigError, FencedError or LeaseError.
        """
        if self._start is not None:
            self._start.begin(self._lease if isinstance(self._lease, Lease) else None)
        elif isinstance(self._lease, FollowedLease):
            self._lease.acquire()
        self._files.watch()

    def release(self, *, clean: bool = True) -> None:
        """Give the lease back, after everything has been written; if the stop is clean, note it.

        Raises SnapshotError if the store is not where it was; nothing is noted then.
        """
        try:
            self._files.release()
            if clean and self._start is not None:
                with suppress(SnapshotError):  # the store is taken for that of a killed run then
                    note_clean_stop(self._folder)
        finally:
            if self._lease is not None:
                self._lease.release()
