"""When the epochs of this process end, beside those of the others, and how they come together.

Bytewax ends the epoch of an input partition at its first turn after one interval, and then gives
it no turn until all partitions of all processes have ended theirs. Each keeps its own time. So a
process that has ended one late (a pause, a slow start, a restore) is late in every epoch from then
on, and in each of them the others read nothing for the difference, up to a whole interval. If that
is longer than they may be silent, their lanes' time stands still, for ever.

What is guaranteed: after some epochs all processes end theirs within APART_MS of each other, unless
something holds one of them up in every epoch anew.

How. The phase of this process is the time from the end of its first partition to that of the last
one anywhere. That one has ended when a lane takes its snapshot, because a lane waits for all
partitions. A phase that lasts for ROUNDS epochs is no accident. Then the partitions here have no
turn for that long, once, when their next epoch would end: it ends with the first turn after that,
which is when the latest process ends its own. If this process is ahead by nearly an interval, its
next epoch ends with the turn in which it sees that, and the one after that is made longer.

What looks like a phase may be work that this process does after the end of its epoch, in each of
them. Then the wait was for nothing, and it takes twice as many epochs until the next one.

What would break it: a turn that is taken all the same. It ends the epoch too early, and the next
epochs begin again.
"""

from dataflows.epoch_rest import EpochRest

# Epochs that end so close to each other end together.
APART_MS = 20
ROUNDS, MAX_ROUNDS = 3, 100


class EpochPhase:
    """Tells the input partitions of a process when they may have a turn.

    Each numbers its epochs from 1 on, and all of them have the same ones.
    """

    def __init__(
        self, interval_ms: int, *, alone: bool = True, rest: EpochRest | None = None
    ) -> None:
        """Begin epoch 1; alone: there is no other process. rest is for after its end."""
        self._interval_ms = interval_ms
        self.alone = alone
        self._rest = rest
        # By so much a turn may begin before its partitions are asked.
        self._margin_ms = max(5, interval_ms // 10)
        self._ended = self._begun = 0  # the newest epoch that a partition here has ended, or left
        self._first_ms = self._last_ms = 0  # when the first and the last partition have ended it
        # Of the epochs in a row that were apart: how many there were, and the shortest phase.
        self._count, self._phase_ms = 0, 0
        self._rounds = ROUNDS  # so many are waited for
        self._waited_ms = 0  # the phase of the last wait
        self._from_ms = self._until_ms = 0  # no turn in between

    def note_end(self, epoch: int, now_ms: int) -> None:
        """Take in that a partition of this process has ended an epoch."""
        if epoch > self._ended:
            self._ended, self._first_ms = epoch, now_ms
            self._last_ms = 0
            if self._rest is not None:
                self._rest.note_end(now_ms)
        if self.alone:
            self._last_ms = now_ms

    def note_all_ended(self, now_ms: int) -> None:
        """Take in that every partition of every process has ended the newest epoch."""
        self._last_ms = self._last_ms or now_ms

    def note_begin(self, epoch: int, now_ms: int) -> None:
        """Take in that a partition begins the epoch after this one, because it is stored."""
        if epoch <= self._begun:
            return  # another partition has said so
        self._begun = epoch
        if self._rest is not None:
            self._rest.note_begin(now_ms)
        self._note_phase((self._last_ms or now_ms) - self._first_ms)
        if self._count >= self._rounds:
            self._wait(now_ms)

    def _note_phase(self, phase_ms: int) -> None:
        if phase_ms <= APART_MS:
            self._count, self._rounds, self._waited_ms = 0, ROUNDS, 0
            return
        self._count += 1
        self._phase_ms = phase_ms if self._count == 1 else min(self._phase_ms, phase_ms)

    def _wait(self, now_ms: int) -> None:
        """Make an epoch longer: the one that begins, or the one after it."""
        phase_ms = self._phase_ms
        due_ms = self._first_ms + self._interval_ms
        if now_ms < due_ms:
            self._from_ms = due_ms - self._margin_ms
        elif phase_ms > self._interval_ms // 2:  # the new epoch ends with this turn
            self._from_ms = now_ms
            due_ms += self._interval_ms
        else:
            return  # what a snapshot takes leaves no time to wait
        self._until_ms = due_ms + phase_ms
        in_vain = phase_ms > self._waited_ms // 2 > 0
        self._rounds = min(2 * self._rounds, MAX_ROUNDS) if in_vain else ROUNDS
        self._count, self._waited_ms = 0, phase_ms

    def is_told(self, now_ms: int) -> bool:
        """Say whether what is sent now costs nothing of its own.

        The end of an epoch is told to every process anyway, and one that is alone tells nobody.
        """
        return self._rest is None or self._rest.ends(now_ms)

    def turn_ms(self, wanted_ms: int, now_ms: int) -> int:
        """Return when a partition has its next turn, which has one now and wants that one."""
        if self._rest is not None:
            wanted_ms = self._rest.turn_ms(wanted_ms, now_ms)
        return max(wanted_ms, self._until_ms) if wanted_ms >= self._from_ms else wanted_ms
