"""How long the input of a process rests when its epoch has ended, so that nobody waits with a core.

Bytewax gives an input partition no turn from when it has ended an epoch until all processes have
stored that one. If its next turn is due before that, Bytewax asks again and again until then
(`awake_after` in its `src/inputs.rs`): a worker thread computes for nothing, and takes from the
others the core that they need to come to their end. So the turn that ends an epoch must say that
the next one is due when the epoch is stored.

Which turn that is. Bytewax ends an epoch at the first turn after one interval. When it began is
known here up to some milliseconds, and no turn begins in these: the next one is just after them,
and ends the epoch for sure.

How long that takes. It is learnt: a turn that came later than it was due had to be waited for, and
the next rest is longer by half of that. After any other one it is a little shorter. So about one
epoch in ten is waited for, and input rests little longer than it must.

What would break it: a turn of another input step that ends the epoch, or a partition whose turn
is not asked for here. Then nothing is wrong, but a core is taken for as long as the epoch takes.
"""

# By so much the end of an epoch may have been earlier than it was noted.
NOTED_LATE_MS = 5
# A turn that comes by so much later than it was due has not been waited for.
LATE_MS = 2
# One epoch changes the rest by no more than this, so that an accident is soon forgotten.
LONGER_MS = 10
SHORTER_MS, SHARE = 0.5, 20


class EpochRest:
    """Tells the partitions of a process when to have a turn around the end of an epoch."""

    def __init__(self, interval_ms: int) -> None:
        """Begin without a rest; it becomes no longer than half an interval."""
        self._interval_ms = interval_ms
        self._rest_ms = 0.0
        self._ended_ms: int | None = None  # when the newest epoch was ended here
        self._waits = False  # until it is stored
        self._due_ms = 0  # the first turn after that

    def note_end(self, now_ms: int) -> None:
        """Take in that this process has ended an epoch."""
        self._ended_ms = now_ms
        self._waits = True
        self._due_ms = max(self._due_ms, now_ms)  # if no turn was expected to end it

    def note_begin(self, now_ms: int) -> None:
        """Take in the first turn after the epoch was stored; learn from when that was."""
        self._waits = False
        late_ms = now_ms - self._due_ms
        if late_ms > LATE_MS:
            longer_ms = min(late_ms / 2, LONGER_MS)
            self._rest_ms = min(self._rest_ms + longer_ms, self._interval_ms / 2)
        else:
            shorter_ms = max(SHORTER_MS, self._rest_ms / SHARE)
            self._rest_ms = max(self._rest_ms - shorter_ms, 0)

    def ends(self, now_ms: int) -> bool:
        """Say whether a turn that has begun now ends the epoch."""
        return self._ended_ms is not None and now_ms > self._ended_ms + self._interval_ms

    def turn_ms(self, wanted_ms: int, now_ms: int) -> int:
        """Return when a partition has its next turn, which has one now and wants that one."""
        if self._ended_ms is None:
            return wanted_ms
        end_ms = self._ended_ms + self._interval_ms
        if not self._waits and self.ends(now_ms):
            self._due_ms = now_ms + round(self._rest_ms)
            end_ms = now_ms + self._interval_ms
        turn_ms = end_ms + 1 if wanted_ms > end_ms - NOTED_LATE_MS else wanted_ms
        return max(turn_ms, self._due_ms)
