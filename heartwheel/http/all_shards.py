"""What the status page shows of all shards.

Nobody waits for a shard that does not answer: whoever asks gets what was found last, and has it
looked up again if that is a second old. While nobody asks, no shard is asked.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from heartwheel.http.answers import json_answer
from heartwheel.http.view import ProcessView
from heartwheel.shards import RECENT_MS, Shards, ShardStatus, read_status

# What is older than the second one is not shown any more.
ASK_EVERY_S, FORGET_S = 1.0, 30.0


class AllShards:
    """Asks the other shards for whoever wants to know, once a second for all of them."""

    def __init__(self, view: ProcessView, describe: Callable[[float], dict[str, Any]]) -> None:
        """Ask nobody yet; describe tells the status of this one, with the history since then."""
        self._view = view
        self._describe = describe
        self._shards = Shards(view.settings)
        self._found: list[ShardStatus] = []
        self._asking: Thread | None = None
        self._asked_s = 0.0

    async def answer(self, _request: Request) -> Response:
        """Answer with a list of all shards.

        It is empty where the settings do not tell of others, and until the first look is over.
        """
        if len(self._shards):
            self._look()
        return json_answer(200, {"shards": self._found})

    def _look(self) -> None:
        """Have the shards asked again, unless that is under way or not worth while yet."""
        if self._asking is not None and self._asking.is_alive():
            return
        age_s = time.monotonic() - self._asked_s
        if not self._asking or age_s >= ASK_EVERY_S:
            if age_s > FORGET_S:
                self._found = []
            known: list[ShardStatus] = []
            with suppress(ValueError):
                since_ms = self._view.run.clock.now_ms() - RECENT_MS
                known.append(read_status(self._view.settings.own_shard, self._describe(since_ms)))
            self._asked_s = time.monotonic()
            self._asking = Thread(target=self._ask, args=(known,), name="shards", daemon=True)
            self._asking.start()

    def _ask(self, known: list[ShardStatus]) -> None:
        self._found = self._shards.ask(known)
