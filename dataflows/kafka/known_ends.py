"""The known ends of all partitions of a consumer: checked, invalidated, renewed for the lanes.

What an end is, and what makes it doubtful, is in end_of_input.py.
"""

from collections.abc import Sequence

from confluent_kafka import Consumer

from dataflows.kafka.end_of_input import BrokerContact, EndOfInput
from dataflows.kafka.partition import REPORT_MS, InputPartition
from dataflows.run_state import RunState
from session_logic.clock import Renewal

# For so long at most the known ends wait for the end of an epoch to be renewed with it.
RENEWAL_MS = 300


class KnownEnds:
    """Keeps the known ends of the partitions of a consumer true."""

    def __init__(
        self,
        source: str,
        partitions: Sequence[InputPartition],
        contact: BrokerContact,
        run: RunState,
    ) -> None:
        """Watch the partitions of the source of this name, which may still be added to."""
        self._source = source
        self._partitions = partitions
        self._contact = contact
        self._run = run
        self._checked_ms = self._renewed_ms = 0

    def note_answer(self, consumer: Consumer, part: InputPartition, now_ms: int) -> None:
        """Compare what has come of a partition with the end of its log in the newest answer."""
        part.note_answer(consumer.get_watermark_offsets(part.place, cached=True)[1], now_ms)
        if part.end.valid:
            self._contact.note_answer()

    def check(self, consumer: Consumer, now_ms: int) -> None:
        """Look where each log ends, from time to time: what is held up does not come."""
        if now_ms - self._checked_ms < REPORT_MS:
            return
        self._checked_ms = now_ms
        for part in self._partitions:
            high_watermark = consumer.get_watermark_offsets(part.place, cached=True)[1]
            if high_watermark >= 0:  # known
                part.check_end(high_watermark, now_ms)

    def invalidate(self, consumer: Consumer, known_ms: int | None) -> None:
        """Take back every known end, unless known_ms, up to which it held, is None."""
        if known_ms is not None:
            for part in self._partitions:
                part.invalidate_end(known_ms)
            self.refetch(consumer)

    def refetch(self, consumer: Consumer) -> None:
        """Fetch again where the end is outdated, so that Kafka announces it once more.

        Each begins after the messages that it has, so those of a poll must be dispatched before.
        """
        outdated = [
            part.refetch()
            for part in self._partitions
            if part.end is EndOfInput.REFETCH and not part.parked
        ]
        if outdated:
            consumer.incremental_unassign(outdated)
            consumer.incremental_assign(outdated)

    def renewal(self, now_ms: int) -> Renewal | None:
        """Return a renewal for all caught-up partitions, every REPORT_MS or soon after that.

        It is as of the moment at which each of them had been read to its end.
        """
        since_ms = now_ms - self._renewed_ms
        if since_ms < REPORT_MS:
            return None
        if since_ms < RENEWAL_MS and not self._run.epochs.is_told(now_ms):
            return None
        ends_ms = [part.end_as_of(now_ms) for part in self._partitions if part.caught_up]
        if not ends_ms:
            return None
        self._renewed_ms = now_ms
        return Renewal(self._source, min(ends_ms))
