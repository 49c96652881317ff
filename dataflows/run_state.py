"""What the parts of one run share. It is made once and passed to each of them.

There is nothing of the kind at the level of a module, so that two runs fit into one process.
"""

from collections import deque
from collections.abc import Callable, Mapping
from threading import Event, get_ident

from msgspec import Struct, field

from dataflows.clock import Clock, SteadyClock, elapsed_ms
from dataflows.epoch_phase import EpochPhase
from dataflows.messages import DeadLetter, RejectedByClock
from dataflows.timestamps import Timestamps
from session_logic.counts import PlatformNames
from session_logic.events import SessionName
from session_logic.lane import Lane

MAX_RECENT_DEAD_LETTERS = 20


class RunState(Struct, eq=False):
    """The clock of a run, its stop, and what can be seen of it from outside its threads.

    Once `stop` is set, and no output is held back, the sources end, and Bytewax drains, takes a
    last snapshot and returns.

    The dataflow writes, and whoever looks only reads. Nobody waits, because each write is one step
    under the GIL. A reader copies what it iterates over, because it may grow meanwhile.
    """

    clock: Clock = field(default_factory=SteadyClock)
    stop: Event = field(default_factory=Event)
    # For limits on how long something may take: a clock that no step of the wall clock moves.
    elapsed_ms: Callable[[], int] = elapsed_ms
    # Whether a lane is for this process, by its number; all processes agree. Records and rows are
    # written where their lane is: else each would be pickled and sent to another process.
    has_lane: Callable[[int], bool] = lambda _lane: True
    # The lanes that have begun in this process, by number.
    lanes: dict[int, Lane] = field(default_factory=dict)
    # How the platforms are called in what is counted, in all of these lanes.
    platforms: PlatformNames = field(default_factory=PlatformNames)
    # When input partitions have their turns; the source says how long an epoch is.
    epochs: EpochPhase = field(default_factory=lambda: EpochPhase(0))
    # When each worker thread last turned by elapsed_ms, by its id; one without work has no entry.
    turned_ms: dict[int, int] = field(default_factory=dict)
    recent_dead_letters: deque[DeadLetter] = field(
        default_factory=lambda: deque(maxlen=MAX_RECENT_DEAD_LETTERS)
    )
    # How the input is timestamped, by the clock.
    timestamps: Timestamps = field(default_factory=Timestamps)
    # When the newest record of each input topic came here, by elapsed_ms, and at first when it was
    # begun to be read; by topic and platform, which is "" where the events have it.
    heard_ms: dict[tuple[str, str], int] = field(default_factory=dict)
    # Whether a loop stands still until Kafka answers, which is no fault of the process.
    waits_for_kafka: Callable[[], bool] = lambda: False
    # Which partitions have taken no output for so many seconds, in words; "" if all take it.
    stalled_output: Callable[[float], str] = lambda _longer_than_s: ""
    # Whether records are held back until a snapshot is stored; a stop waits for it.
    holds_output: Callable[[], bool] = lambda: False
    # The schema that input waits for while its registry is away, in words; "" if it does not.
    awaited_schema: Callable[[], str] = lambda: ""
    # The offsets and timestamps of the input that earlier runs rejected by their clocks, by topic
    # and partition; read from Kafka when it is called.
    rejected_earlier: Callable[[], RejectedByClock] = dict
    # How far an earlier run has come by its clock, as its output tells; read from Kafka as well.
    published_ms: Callable[[], int] = lambda: 0
    # When sessions of a lane ended for silence, as its output tells beyond what is stored; None as
    # long as that has not been read.
    silent_ends: Callable[[int], Mapping[SessionName, int] | None] = lambda _lane: {}
    # Whether there are other processes.
    in_cluster: bool = False
    # What has ended this one among others, as far as it is known.
    failure: Exception | None = None
    # The other processes without which Bytewax does not begin, in words; "" if there are none.
    awaited_processes: str = ""

    def note_alive(self) -> None:
        """Note that the loop of this worker thread has turned."""
        self.turned_ms[get_ident()] = self.elapsed_ms()

    def still_ms(self) -> int:
        """Return for how long the worker thread has not turned that has been still for longest."""
        turned_ms = min(list(self.turned_ms.values()), default=None)
        return 0 if turned_ms is None else self.elapsed_ms() - turned_ms

    def running_lanes(self) -> list[Lane]:
        """Return the lanes that have begun in this process, in order."""
        return [lane for _, lane in sorted(self.lanes.copy().items())]

    def restoring(self) -> bool:
        """Say whether a lane here still waits for rows of the store."""
        return any(lane.restoring for lane in self.lanes.copy().values())

    def at_end_of_input(self) -> bool:
        """Say whether every input partition is read to its end, as far as a lane here knows."""
        return any(lane.time.clock.live for lane in self.lanes.copy().values())
