"""All shards of a run as one of them, or a command, sees them: each is asked for its status.

What is guaranteed: asking takes ASK_S at most, whatever there is at an address, and a shard that
does not answer as the one that it should be is there without numbers.

How. Each is asked in a thread that dies with the process. One that has not come back is left alone,
and its shard is not asked again until it has.
"""

import time
from collections.abc import Sequence
from threading import Thread
from typing import Any

import msgspec
from msgspec import Struct

from dataflows.settings import Settings
from dataflows.shard import Shard
from heartwheel.running_process import NoAnswerError, RunningProcess

ASK_S = 3.0
# Of the history, only its end is of use. Where clocks differ by more than that, all of it is read.
RECENT_MS = 10_000
OK = 200
# Values of a column of the history, oldest first.
Column = list[float | None]


class _History(Struct):
    active: Column
    heartbeats: Column
    heartbeat_p99_s: Column


class _Lane(Struct):
    lag_s: float | None = None


class _Status(Struct):
    """What is read of a status; another version may tell more."""

    shard: str
    ready: bool
    reason: str
    lanes: list[_Lane]
    history: _History


class ShardStatus(Struct, frozen=True, kw_only=True):
    """How a shard is doing; None is what it has not told. Rates are per second, times in s."""

    shard: int
    answers: bool = False
    ready: bool = False
    reason: str = ""
    active: float | None = None
    heartbeats: float | None = None
    heartbeat_p99_s: float | None = None
    lag_s: float | None = None


def read_status(shard: Shard, said: dict[str, Any]) -> ShardStatus:
    """Return what a shard says of itself in short; raises ValueError if it does not say that."""
    status = msgspec.convert(said, _Status)
    if status.shard != str(shard):
        raise ValueError(f"it is shard {status.shard}")
    lags = [lane.lag_s for lane in status.lanes if lane.lag_s is not None]
    return ShardStatus(
        shard=shard.number,
        answers=True,
        ready=status.ready,
        reason=status.reason,
        active=_last(status.history.active),
        heartbeats=_last(status.history.heartbeats),
        heartbeat_p99_s=_last(status.history.heartbeat_p99_s),
        lag_s=max(lags, default=None),
    )


class Shards:
    """Asks all shards at once, as far as the settings say where they are."""

    def __init__(self, settings: Settings) -> None:
        """Ask nobody yet."""
        places = settings.http_places if settings.shard else []
        self._count = settings.own_shard.shards
        self._shards = [RunningProcess(settings, f"http://{place}") for place in places]
        self._asking: dict[int, Thread] = {}

    def __len__(self) -> int:
        """Return how many there are, 0 if the settings do not say where."""
        return len(self._shards)

    def ask(self, known: Sequence[ShardStatus] = ()) -> list[ShardStatus]:
        """Return the status of each, from number 0 on; those that are known are not asked."""
        found = {status.shard: status for status in known}
        for shard in range(len(self)):
            before = self._asking.get(shard)
            if shard not in found and not (before and before.is_alive()):
                thread = Thread(target=self._ask, args=(shard, found), daemon=True)
                self._asking[shard] = thread
                thread.start()
        deadline_s = time.monotonic() + ASK_S
        for thread in self._asking.values():
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return [found.get(shard, ShardStatus(shard=shard)) for shard in range(len(self))]

    def _ask(self, shard: int, found: dict[int, ShardStatus]) -> None:
        recent_ms = int(time.time() * 1000) - RECENT_MS
        for since_ms in (recent_ms, 0):
            try:
                answer = self._shards[shard].ask(f"/status.json?after={since_ms}")
                if answer.status != OK:
                    return
                found[shard] = read_status(Shard(shard, self._count), answer.value)
            except (NoAnswerError, ValueError):
                return  # then it is there without numbers
            if found[shard].active is not None:
                return


def _last(column: Column) -> float | None:
    return column[-1] if column else None
