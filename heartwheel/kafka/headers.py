"""The headers of the dead-letter topic: where a dead letter is from, and that it was requeued."""

from collections.abc import Iterable, Mapping
from typing import Self

from msgspec import Struct

from dataflows.messages import RecordId
from dataflows.text import INT64, whole_number

# Of a mark, a record without key and value, which says that a dead letter was sent again: its
# input record, the id under which it was sent again, and how often it has been sent again by now.
MARK, BECAME, REQUEUES = "heartwheel.requeued", "heartwheel.became", "heartwheel.requeues"
# Of a record that was sent again: which dead letter it was.
LETTER = "heartwheel.letter"
REASON, DETAIL = "heartwheel.reason", "heartwheel.detail"
_ORIGIN = tuple(f"heartwheel.{name}" for name in ("topic", "partition", "offset", "timestamp"))
Headers = Iterable[tuple[str, str | bytes | None]]


class Origin(Struct, frozen=True):
    """The input record of a dead letter; its time tells a re-created topic from the old one."""

    record: RecordId
    time_ms: int

    def __str__(self) -> str:
        """Return it as a mark has it."""
        return f"{self.record}/{self.time_ms}"

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self | None:
        """Return the origin that headers tell of; None if they are not Heartwheel's."""
        topic, *numbers, time = (headers.get(name, "") for name in _ORIGIN)
        partition, offset = map(whole_number, numbers)
        time_ms = whole_number(time, INT64.start)
        if not topic or partition is None or offset is None or time_ms is None:
            return None
        return cls(RecordId(topic, partition, offset), time_ms)


def header_texts(headers: Headers) -> dict[str, str]:
    """Return headers as text; bytes that are no text are replaced."""
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value or ""
        for name, value in headers
    }
