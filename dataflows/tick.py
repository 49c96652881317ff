"""The tick of a loop: short for low latency, longer while there is much to do, or nothing."""


class Tick:
    """Tells when a loop turns next: at a multiple of base_ms, or of longer ticks up to longest_ms.

    A turn costs much whatever it does, here and in the broker: fewer and larger ones cost less, for
    some milliseconds of latency. A tick grows by base_ms for every busy_work pieces of work that
    come in one base tick; a turn itself is turn_work of them. A loop with idle_ms takes the longest
    ticks when no work has come for that time.
    """

    def __init__(
        self,
        base_ms: int,
        longest_ms: int,
        *,
        busy_work: int,
        turn_work: int = 0,
        idle_ms: int | None = None,
    ) -> None:
        self._base_ms = base_ms
        self._max_factor = max(1, longest_ms // base_ms)
        self._busy_work = busy_work
        self._turn_work = turn_work
        self._idle_ms = idle_ms
        self._factor = 1
        self._worked_ms = 0

    def note_work(self, now_ms: int, work: int) -> None:
        """Take in how much work the last turn had."""
        if work:
            self._worked_ms = now_ms
        work_per_base = work // self._factor + self._turn_work
        self._factor = min(self._max_factor, 1 + work_per_base // self._busy_work)

    def is_idle(self, now_ms: int) -> bool:
        """Say whether no work has come for idle_ms; a loop without it is never idle."""
        return self._idle_ms is not None and now_ms - self._worked_ms >= self._idle_ms

    def next_ms(self, now_ms: int) -> int:
        """Return when to turn next, after now_ms."""
        factor = self._max_factor if self.is_idle(now_ms) else self._factor
        tick_ms = self._base_ms * factor
        return (now_ms // tick_ms + 1) * tick_ms
