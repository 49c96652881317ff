"""When a lane that has fallen silent writes to its sink again."""

FIRST_MS = 30_000


class Settling:
    """Tells when an empty batch is due, so that a snapshot has the lane's last acknowledgement.

    Bytewax stores a part of the sink only if it was written to, and a record is acknowledged after
    that. The store of a silent lane would have its last records as not acknowledged for ever; and
    once they had expired, a start after a crash could not tell whether they were written.

    The lane does not know when Kafka acknowledges. So an empty batch is due after 30, 60, 120, ...
    s, up to the first wait that is longer than the limit: by then the run has failed otherwise.
    """

    def __init__(self, limit_ms: int) -> None:
        """Wait for an acknowledgement for so long."""
        self._limit_ms = limit_ms
        self._wait_ms = FIRST_MS
        self.due_ms: int | None = None

    def begin(self, now_ms: int) -> None:
        """Note that records are on their way."""
        self._wait_ms = FIRST_MS
        self.due_ms = now_ms + FIRST_MS

    def take(self, now_ms: int) -> bool:
        """Say whether a batch is due, and when the next one is."""
        if self.due_ms is None or now_ms < self.due_ms:
            return False
        last = self._wait_ms > self._limit_ms
        self._wait_ms *= 2
        self.due_ms = None if last else now_ms + self._wait_ms
        return True
