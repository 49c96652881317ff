"""Reading the topic of the dead letters, as far as it can be read: no session depends on it."""

from collections.abc import Callable

from confluent_kafka import Message

from dataflows.kafka.headers import headers_of
from dataflows.kafka.reader import ReadError
from dataflows.kafka.reconcile import OutputReader, ReconcileError
from dataflows.logs import log
from dataflows.messages import RecordId, RejectedByClock
from dataflows.text import whole_number
from session_logic.events import OF_A_MOMENT

# A start waits so long for each partition.
BOUNDS_TIMEOUT_S = 5.0


class LetterTopic:
    """The topic of the dead letters, as far as it can be read."""

    def __init__(self, name: str, partitions: int, reader: OutputReader) -> None:
        """Name it; the reader is asked later."""
        self.name = name
        self.partitions = partitions
        self._reader = reader

    def ends(self) -> dict[int, int]:
        """Return where each partition ends that can be read now."""
        return {number: high for number, (_, high) in self._bounds().items()}

    def read(
        self, starts: dict[int, int] | None, take: Callable[[Message], None]
    ) -> dict[int, int]:
        """Give each record from the starts on to take; return where the partitions end.

        Without starts, from the beginning. What has expired, or was made anew, begins at its
        beginning. A partition that cannot be read now is left out, and the log says so.
        """
        bounds = self._bounds()
        wanted, ends = {}, {}
        for number, (low, high) in bounds.items():
            ends[number] = high
            start = starts.get(number, low if starts else high) if starts is not None else low
            if not low <= start <= high:
                self._warn_of_gap(number, start, low, high)
                start = low
            if start < high:
                wanted[number] = start
        if not wanted:
            return ends
        try:
            return ends | self._reader.read(self.name, wanted, take)
        except (ReconcileError, ReadError) as error:
            self._warn(str(error))
            return {}

    def _bounds(self) -> dict[int, tuple[int, int]]:
        found = {}
        for number in range(self.partitions):
            try:
                found[number] = self._reader.bounds(self.name, number, BOUNDS_TIMEOUT_S)
            except ReconcileError as error:
                self._warn(str(error))
        return found

    def _warn_of_gap(self, partition: int, stored: int, low: int, high: int) -> None:
        log.warning(
            "the dead-letter topic does not have the stored offset any more; dead letters that a "
            "killed run wrote there may come twice",
            topic=self.name,
            partition=partition,
            stored=stored,
            begins=low,
            ends=high,
        )

    def _warn(self, why: str) -> None:
        log.warning(
            "the dead-letter topic cannot be read; dead letters that a killed run wrote there may "
            "come twice",
            topic=self.name,
            error=why,
        )

    def rejected_by_clock(self, stored: dict[int, int] | None) -> RejectedByClock:
        """Return the input that earlier runs rejected because of the moment that it was.

        What one run has rejected stays rejected: at a later moment the same record would be an
        event. Only what came after the last snapshot can be decoded again, so the topic is read
        from the stored offsets on; without them (a store that another process has) from its
        beginning.
        """
        found: RejectedByClock = {}

        def take(message: Message) -> None:
            headers = header_bytes(message)
            record, time_ms = origin_of(headers), _number(headers, "heartwheel.timestamp")
            of_a_moment = (
                headers.get("heartwheel.reason", b"").decode(errors="replace") in OF_A_MOMENT
            )
            if record is not None and of_a_moment and time_ms is not None:
                found.setdefault(record[:2], {})[record.offset] = time_ms

        self.read(stored, take)
        return found


def header_bytes(message: Message) -> dict[str, bytes]:
    """Return the headers of a record by name; of a name that is there twice, the last."""
    return {name: value or b"" for name, value in headers_of(message) or ()}


def origin_of(headers: dict[str, bytes]) -> RecordId | None:
    """Return the input record that a dead letter was; None if headers are not Heartwheel's."""
    topic = headers.get("heartwheel.topic", b"").decode(errors="replace")
    partition = _number(headers, "heartwheel.partition")
    offset = _number(headers, "heartwheel.offset")
    if partition is None or offset is None:
        return None
    return RecordId(topic, partition, offset)


def _number(headers: dict[str, bytes], name: str) -> int | None:
    return whole_number(headers.get(name, b"").decode(errors="replace"))
