"""What can be seen of the dataflow of this process from outside its threads."""

from collections import deque
from collections.abc import Callable
from threading import get_ident

from dataflows.messages import DeadLetter

RECENT_LETTERS = 20
Recent = deque[DeadLetter]
Asked = Callable[[], bool]


class Vitals:
    """When the loops of this process last turned, and its last dead letters.

    The dataflow writes, whoever looks only reads, and nobody waits: each write is one step under
    the GIL. A reader copies what it goes through, as it may grow meanwhile.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.turned_ms: dict[int, int] = {}  # by worker thread; one without work has no entry
        self.dead_letters: Recent = deque(maxlen=RECENT_LETTERS)
        # Whether a loop stands still until Kafka answers: no fault of the process.
        self.waits_for_kafka: Asked = lambda: False

    def turn(self, now_ms: int) -> None:
        """Note that the loop of this worker thread has turned."""
        self.turned_ms[get_ident()] = now_ms
