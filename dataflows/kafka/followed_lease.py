"""The lease as the other processes of a cluster see it: they read what the first one renews.

What is guaranteed is what lease.py guarantees, for the records of this process. It is needed
because such a process can be paused while the first one dies and another run takes over.

The invariant: the right ends within FOLLOWED_S of the renewal that it rests on. That renewal was
not there yet at the last look that did not show it, so its age is counted from the beginning of
that look. A run that is not renewed gives no right at all, whatever its lease says. A lease that a
tool has written over is nobody's: the first process writes its own again.

Which run is ours: the one whose lease is there when this process first wants to write. Bytewax
has connected it to the first process by then, and that one takes the lease before it connects. It
is looked at before that as well, so that nobody has to wait for the next renewal: a process that
starts its epochs later than the others is behind them from then on.

What would break it: a process that is paused for longer than FOLLOWED_S between its connection and
its first record, while the first one dies and another run begins. It would take that run for its
own, until Bytewax sees that the connection is gone.
"""

from dataflows.clock import boot_time_s
from dataflows.kafka.client import MakeConsumer, make_consumer
from dataflows.kafka.lease_record import UNREADABLE, Held, LeaseRecord
from dataflows.kafka.permit import FOLLOWED_S, FencedError, WritePermit
from dataflows.settings import Settings

LOOK_S = 0.5


class FollowedLease:
    """The right of this process to write, as long as the run of its cluster has the lease."""

    def __init__(self, settings: Settings, make_consumer: MakeConsumer = make_consumer) -> None:
        """Make the client; `acquire` begins to look."""
        self._record = LeaseRecord(settings, make_consumer)
        self._run = ""  # not known
        self._seen: Held | None = None
        self._looked_s: float | None = None
        self._renewed_s: float | None = None  # the look before the one that first showed it
        self.permit = WritePermit(
            settings.output_topic, settings.delivery_timeout_ms / 1000, FOLLOWED_S
        )

    def acquire(self) -> None:
        """Follow the lease from now on."""
        self.permit.keep(self._look, LOOK_S)

    def _look(self) -> None:
        """Take in the lease; raises FencedError if another run has it, KafkaException."""
        begin_s, wanted = boot_time_s(), self.permit.asked.is_set()
        held = self._record.read()
        if held != self._seen:
            self._renewed_s = self._looked_s
        self._seen, self._looked_s = held, begin_s
        if held in (None, UNREADABLE) or not wanted:
            return
        self._run = self._run or held.run
        if held.run != self._run:
            msg = (
                f"another run has taken over output topic {self._record.topic}: this process "
                "writes nothing more and stops; run only one"
            )
            raise FencedError(msg)
        if self._renewed_s is not None and not held.released:
            self.permit.renew(self._renewed_s)

    def release(self) -> None:
        """Look no more."""
        self.permit.close()
