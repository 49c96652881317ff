"""What is still to be read: the lag of each partition, and in the log how a backlog shrinks."""

from collections.abc import Sequence
from datetime import UTC, datetime

from confluent_kafka import Consumer

from dataflows.kafka.end_of_input import BrokerContact
from dataflows.kafka.partition import InputPartition
from dataflows.logs import log
from dataflows.metrics import CONSUMER_LAG

MEASURE_MS = 1_000
LOG_MS = 5_000


class Backlog:
    """Measures the backlog of this process, and logs every few seconds while there is one.

    There is one while a partition is not caught up. Where nothing comes and nothing is queued
    meanwhile, Kafka does not answer, or has nothing to give, and the log says so.
    """

    def __init__(self, partitions: Sequence[InputPartition], contact: BrokerContact) -> None:
        self._partitions = partitions
        self._contact = contact
        self._measured_ms = 0
        self._began_ms = 0
        self._logged_ms = 0
        self._read = self._read_before = 0

    def note_poll(self, consumer: Consumer, read: int, now_ms: int) -> None:
        """Take in how many messages a poll has read."""
        behind = [part for part in self._partitions if not part.caught_up and not part.left]
        if behind:
            self._note_behind(consumer, behind, read, now_ms)
        else:
            self._note_caught_up(now_ms)
        if now_ms - self._measured_ms >= MEASURE_MS:
            self._measured_ms = now_ms
            self._measure(consumer)

    def _note_caught_up(self, now_ms: int) -> None:
        if self._logged_ms > self._began_ms > 0:
            took_s = (now_ms - self._began_ms) / 1000
            log.info("caught up", events=self._read, seconds=round(took_s, 1))
        self._began_ms = 0

    def _note_behind(
        self, consumer: Consumer, behind: list[InputPartition], read: int, now_ms: int
    ) -> None:
        if not self._began_ms:
            self._began_ms = self._logged_ms = now_ms
            self._read = self._read_before = 0
        self._read += read
        passed_ms = now_ms - self._logged_ms
        if passed_ms < LOG_MS:
            return
        if any(part.held for part in behind):
            pass  # what they wait for is told where it is asked for
        elif self._read == self._read_before and not any(part.pending for part in behind):
            self._log_standstill(consumer, behind)
        else:
            log.info(
                "catching up",
                events_left=max(0, sum(_left(consumer, part) for part in behind)),
                events_a_second=(self._read - self._read_before) * 1000 // passed_ms,
                **_time_of(behind),
            )
        self._logged_ms, self._read_before = now_ms, self._read

    def _measure(self, consumer: Consumer) -> None:
        """Set the lag of each partition from the ends that the consumer knows of."""
        for part in self._partitions:
            begin, end = consumer.get_watermark_offsets(part.place, cached=True)
            if end >= 0:  # known
                left = end - max(part.next_offset, begin, 0)
                CONSUMER_LAG.labels(part.topic, str(part.number)).set(max(0, left))

    def _log_standstill(self, consumer: Consumer, behind: list[InputPartition]) -> None:
        """Log why nothing comes: an open transaction, a damaged log, or Kafka's silence."""
        for part in behind:
            _, end = consumer.get_watermark_offsets(part.place, cached=True)
            if part.held_up(end):
                why = (
                    "an open transaction holds up the input; the lanes' time stands still until "
                    "its producer, or the transaction's timeout, ends it"
                )
            elif self._contact.is_answered and end > part.fetched_offset:
                why = (
                    "Kafka answers, but gives nothing of an input partition that has more; the "
                    "lanes' time stands still until it does; its log may be damaged there: see "
                    "docs/recovery-store.md#damage-in-the-broker"
                )
            else:
                continue
            log.warning(
                why,
                topic=part.topic,
                partition=part.number,
                offset=max(0, part.fetched_offset),
                records=end - max(0, part.fetched_offset),
                **_time_of(behind),
            )
            return
        log.warning(
            "no answer from Kafka; the lanes' time stands still until it answers",
            **_time_of(behind),
        )


def _time_of(parts: list[InputPartition]) -> dict[str, str]:
    """Return how far the time of the slowest partition has come, as a field; nothing at first."""
    watermark_ms = min(part.watermark_ms for part in parts)
    if not watermark_ms:
        return {}
    return {"at": datetime.fromtimestamp(watermark_ms / 1000, UTC).isoformat(" ", "seconds")}


def _left(consumer: Consumer, part: InputPartition) -> int:
    """Return how many messages of a partition have not been taken."""
    _, end = consumer.get_watermark_offsets(part.place, cached=True)
    return end - part.fetched_offset + len(part.pending)
