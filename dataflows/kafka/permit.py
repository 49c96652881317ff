"""Until when this process may write to the output topic, and what happens once it may not.

What is guaranteed: `check` returns only while the last renewal is young enough, and once it
is not, nothing that Kafka's client still holds is sent. What keeps the permit renews it (lease.py,
followed_lease.py), and the producer asks for it before each batch.

It lasts for LEASE_S, or for FOLLOWED_S in a process that only reads what the first one renews.

- The age of a renewal is taken with the clock that goes on while the machine is suspended.
- A thread looks at that age every WATCH_S, because all others may be waiting for Kafka when the
  network comes back. Once the permit has lapsed, it lets the producer give up what it holds. That
  ends the run, because these records are only in its snapshot.
- Every renewal has a way out. One that fails or raises anything is tried again or ends the run,
  and a permit that is not renewed for the delivery timeout ends it in any case.

What would break it: a renewal whose age is not counted from before it was asked for; a process
that is paused between `check` and the end of its batch. What it enqueues then is sent if it takes
longer than WATCH_S to give it up.
"""

import threading
import time
from collections.abc import Callable
from threading import Event

from confluent_kafka import KafkaError, KafkaException

from dataflows.clock import boot_time_s
from dataflows.logs import log
from session_logic.errors import HeartwheelError

# A permit that was not renewed for this long is over, and with it what is not acknowledged. Kafka
# replaces a broker that hangs sooner, and one that is started again alone mostly is.
LEASE_S = 30.0
# Each start of a cluster that has crashed waits for this.
FOLLOWED_S = 15.0
WATCH_S = 0.1
# When it is said, and said again, that the permit is not renewed: once a request has timed out.
WARN_S, WARN_AGAIN_S = 8.0, 30.0
# A thread that waits for Kafka is not waited for.
CLOSE_S = 6.0
UNANSWERED = "Kafka does not answer"


class FencedError(HeartwheelError):
    """Another run writes to the output topic: only one may."""


class LeaseError(HeartwheelError):
    """The lease cannot be kept: the run stops, and resumes when it is started again."""


class WritePermit:
    """The right of this process to write to the output topic."""

    def __init__(self, topic: str, timeout_s: float, lasts_s: float = LEASE_S) -> None:
        """Begin without the right; whoever asks for it waits for at most timeout_s."""
        self._topic = topic
        self._lasts_s = lasts_s
        self._timeout_s = timeout_s
        self._given = False
        self._since_s = boot_time_s()  # the last renewal, or the first question before any
        self._end: HeartwheelError | None = None
        self._over, self._wake = Event(), Event()
        self._keeper: threading.Thread | None = None
        self._warn_s = WARN_S  # the age at which it is said next
        self.reason = UNANSWERED  # why there is no newer renewal
        self.asked = Event()  # once somebody has wanted to write
        self.on_lapse: Callable[[], None] = lambda: None
        self.on_look: Callable[[], None] = lambda: None  # at each look, before all else

    def renew(self, begin_s: float) -> None:
        """Give the right anew, from a moment of `boot_time_s` on."""
        self._since_s, self._given, self.reason = begin_s, True, UNANSWERED

    def end(self, error: HeartwheelError) -> None:
        """Take the right away for ever; the first error is the one that is raised."""
        self._end = self._end or error

    @property
    def valid(self) -> bool:
        """Whether this process may write."""
        return self._given and self._end is None and self._age_s() <= self._lasts_s

    def _age_s(self) -> float:
        return boot_time_s() - self._since_s

    def _wanted(self) -> bool:
        return self._given or self.asked.is_set()

    def raise_if_over(self) -> None:
        """Raise FencedError or LeaseError if the right does not come back."""
        if self._end is not None:
            raise self._end
        age_s = self._age_s()
        if self._wanted() and age_s > max(self._timeout_s, self._lasts_s):
            msg = (
                f"the lease on output topic {self._topic} could not be renewed for {age_s:.0f} s: "
                f"{self.reason}; the run stops, and resumes from its last snapshot when it is "
                "started again"
            )
            raise LeaseError(msg)

    def check(self) -> None:
        """Return if this process may write, and wait while that is not known.

        Raises FencedError if another run has taken over, LeaseError if that stays unknown.
        """
        if not self.asked.is_set():
            if not self._given:
                self._since_s = boot_time_s()
            self.asked.set()
            self._wake.set()
        while not self.valid:
            self.raise_if_over()
            time.sleep(0.01)

    def keep(self, renew: Callable[[], None], every_s: float) -> None:
        """Renew in a thread until it is closed or over: every so often, and once when asked."""
        self._keeper = threading.Thread(
            target=self._keep, args=(renew, every_s), name="lease", daemon=True
        )
        self._keeper.start()
        threading.Thread(target=self._watch, name="lease watch", daemon=True).start()

    def _keep(self, renew: Callable[[], None], every_s: float) -> None:
        while self._end is None:
            self._wake.wait(every_s)
            self._wake.clear()
            if self._over.is_set():
                return
            self.try_to(renew)

    def try_to(self, renew: Callable[[], None]) -> None:
        """Renew once; what fails is kept as the reason, or is the end."""
        try:
            renew()
        except KafkaException as error:
            self.reason = describe(error)
        except HeartwheelError as error:
            self.end(error)
        except Exception as error:  # noqa: BLE001  # else nobody would know, and all would wait
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            msg = f"the lease on output topic {self._topic} is lost by an unexpected {what}"
            self.end(LeaseError(msg))

    def _watch(self) -> None:
        while not self._over.wait(WATCH_S):
            self.look()

    def look(self) -> None:
        """Have given up what may not be sent any more, and warn of what is not renewed."""
        self.on_look()
        if self._given and not self.valid:
            self.on_lapse()
        age_s = self._age_s()
        if age_s < WARN_S:
            if self._warn_s > WARN_S:
                log.info("the lease is renewed again", topic=self._topic)
            self._warn_s = WARN_S
        elif age_s > self._warn_s and self._wanted() and self._end is None:
            self._warn_s = age_s + WARN_AGAIN_S
            log.warning(
                "the lease on the output topic is not renewed; without it nothing is written "
                f"from {self._lasts_s:g} s on",
                topic=self._topic,
                seconds=round(age_s, 1),
                error=self.reason,
            )

    def close(self) -> bool:
        """Renew no more; say whether this process still had the right, and nobody renews it."""
        self._over.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join(CLOSE_S)
            if self._keeper.is_alive():
                return False
        return self.valid


def describe(error: KafkaException) -> str:
    """Return what Kafka says, and the name of the error."""
    cause: KafkaError = error.args[0]
    return f"{cause.str()} ({cause.name()})"
