"""Since when a lane hears its devices: silence counts only from then on.

An outage keeps devices from being heard: of Kafka, of one partition of the input, or of whatever
brings their events there. So wherever one has ended, silence begins anew for all sessions of the
lane. What is taken for an outage:

- time stood still for over STALL_MS by the lane's turns, once it had come as far as it could: a
  partition cannot be read, whatever comes of the others;
- time goes on by over STALL_MS at once where the lane had come as far as it could, or by over
  GAP_MS where it is behind: the lane had no turns meanwhile, or a partition had no input;
- the lane did not run, and over RESTART_MS went by from the time that is stored until all input had
  been read again: a partition may have been away meanwhile, and nothing that is read tells;
- the lane did not run, and no fact of it is there for over GAP_MS;
- a partition was left, because it had no leader for long: until all input has been read again,
  nobody is taken for silent, as any device may have its events there.

What devices sent while the lane did not run is in the input, and is judged by its own times before
time goes on. The first input that a lane ever reads is taken as it is. What is decided here is
stored with the facts, because it depends on what was known when; nothing that follows from it is
sent before it is stored.
"""

from session_logic.silence import DEAF_MS, STALL_MS

GAP_MS = 10_000
# By its defaults Kafka gives the partitions of a broker that it does not hear of to others after
# 7 s at the earliest. So a run that is back within this is there before a new leader is.
RESTART_MS = 5_000
_NEVER_MS = -1


class Hearing:
    """From which moment on the devices of a lane are heard, and what tells so."""

    def __init__(self, since_ms: int, *, ran_before: bool) -> None:
        """Begin with a moment that is known, and say whether the lane has read input before."""
        self.since_ms = since_ms
        self._newest_ms = _NEVER_MS
        self._ran_before = ran_before
        self._was_abreast = self._abreast = False
        self._still_ms: int | None = None  # since when turns have found that time stands still

    @property
    def deaf(self) -> bool:
        """Whether silence does not count at all."""
        return self.since_ms == DEAF_MS

    def note_turn(self, now_ms: int, *, moved: bool, abreast: bool) -> None:
        """Take note whether time has gone on in a turn, and has come as far as all input has."""
        self._abreast = abreast
        self._was_abreast = self._was_abreast or abreast
        if moved:
            self._still_ms = None
        elif self._still_ms is None:
            self._still_ms = now_ms

    def has_stalled(self, now_ms: int) -> bool:
        """Say whether time stands still because a partition that was read cannot be."""
        still_ms = self._still_ms
        return self._was_abreast and still_ms is not None and now_ms - still_ms > STALL_MS

    def has_restarted(self, now_ms: int, watermark_ms: int) -> bool:
        """Say whether the lane goes on after a time in which it cannot know of an outage."""
        if self._was_abreast or not self._ran_before or watermark_ms < 0:
            return False
        return now_ms - max(watermark_ms, self.since_ms) > RESTART_MS

    def was_deaf(self, time_ms: int, watermark_ms: int) -> bool:
        """Say whether there was an outage before a moment to which time has come."""
        return self._was_abreast and time_ms - watermark_ms > self._limit_ms()

    def note_fact(self, time_ms: int, watermark_ms: int, now_ms: int) -> bool:
        """Take in when a fact was, which is read now; say whether there was an outage before it."""
        heard_ms = max(watermark_ms, self.since_ms)
        if self._was_abreast:
            limit_ms = STALL_MS if self.has_stalled(now_ms) else self._limit_ms()
            return time_ms - heard_ms > limit_ms
        heard_ms, self._newest_ms = (
            max(heard_ms, self._newest_ms),
            max(self._newest_ms, time_ms),
        )
        return self._ran_before and time_ms - heard_ms > GAP_MS

    def _limit_ms(self) -> int:
        return STALL_MS if self._abreast else GAP_MS
