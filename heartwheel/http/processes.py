"""The other processes of a cluster, or other shards, asked over HTTP for what their lanes have.

What is guaranteed: an answer is from the process that has the lanes and is whole, or it is an error
that names that process. Nobody waits for longer than ASK_S for a process that does not answer, and
no request goes round in circles.

How. A request to another process names it, with the output topic, in the header NAME. Whoever is
called otherwise refuses, so an address that is wrong, or somebody else's by now, is found. Who is
called so answers from its own lanes and asks nobody. Its answer has the header as well.

What would break it: a request that is passed on although it names a process.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import h11

from dataflows.text import printable
from heartwheel.http.device_answer import DeviceAnswer, read_answer
from heartwheel.http.exchange import Exchange, exchange
from heartwheel.http.view import NAME, ProcessView
from session_logic.errors import ConfigError, HeartwheelError

ASK_S = 3.0
# How long the next part of an answer may take, for which the other process may have to wait.
PART_S = 10.0
# How many processes are asked at once for a device, or whether they can list.
MAX_ASKED = 16
# An answer about a device has some kB, and so has a line of a listing.
MOST_BYTES = 1 << 20
LINES = "application/x-ndjson"
OK, UNAUTHORIZED = 200, 401


class AbsentError(HeartwheelError):
    """Another process does not answer as it should: see whether it runs, and what is there."""


class Processes:
    """Asks the other processes of a cluster."""

    def __init__(self, view: ProcessView) -> None:
        """Take their places from the settings; raises ConfigError if some are missing."""
        settings, addresses = view.settings, view.cluster.addresses
        self._view = view
        self._asked = asyncio.Semaphore(MAX_ASKED)
        # A shard knows of the others only if it is told where they are.
        shards = settings.own_shard.shards if settings.shard and settings.http_places else 0
        self._places = [_place(one) for one in settings.http_places]
        if not self._places:
            self._places = [(_place(one)[0], settings.http_port) for one in addresses]
        self._names = [
            *(f"process {number} ({address})" for number, address in enumerate(addresses)),
            *(f"shard {number}/{shards}" for number in range(shards)),
        ]
        if len(self._places) != len(self._names):
            raise ConfigError(
                f"HEARTWHEEL_HTTP_ADDRESSES has {len(self._places)} addresses, and there are "
                f"{max(1, len(self._names))} processes: give one for each of a cluster, in the "
                "order of --addresses, or for each shard, from 0 on"
            )

    @property
    def others(self) -> list[int]:
        """The numbers of the other processes."""
        number = self._view.number
        return [other for other in range(len(self._places)) if other != number]

    def named(self, number: int) -> str:
        """Return a process as it is called in messages."""
        return self._names[number]

    async def look_up(self, number: int, target: str, device_id: str) -> DeviceAnswer:
        """Return another process's answer about a device; raises AbsentError."""
        with self._absence(number):
            async with asyncio.timeout(ASK_S), self._asked, self._ask(number, "GET", target) as got:
                return read_answer(got.status, await got.body(MOST_BYTES), device_id)

    async def status(self, number: int, target: str) -> int:
        """Return the status that another process would answer with; raises AbsentError."""
        with self._absence(number):
            async with (
                asyncio.timeout(ASK_S),
                self._asked,
                self._ask(number, "HEAD", target) as got,
            ):
                return got.status

    async def parts(self, number: int, target: str) -> AsyncIterator[bytes]:
        """Yield another process's lines as they come, each of them whole; raises AbsentError."""
        async with AsyncExitStack() as stack:
            with self._absence(number):
                async with asyncio.timeout(ASK_S):
                    got = await stack.enter_async_context(self._ask(number, "GET", target))
                if got.status == OK and (kind := got.headers.get("content-type")) != LINES:
                    raise ValueError(f"it lists {kind}")
            if got.status != OK:
                raise AbsentError(f"{self.named(number)} has answered {got.status}: ask again")
            parts = _whole_lines(got.parts())
            while True:
                with self._absence(number):
                    async with asyncio.timeout(PART_S):
                        part = await anext(parts, None)
                if part is None:
                    return
                yield part

    @asynccontextmanager
    async def _ask(self, number: int, method: str, target: str) -> AsyncIterator[Exchange]:
        host, port = self._places[number]
        name, token = self._view.name_of(number), self._view.settings.http_token
        headers = [(NAME, name)]
        if token:
            headers.append(("authorization", f"Bearer {token}"))
        async with exchange(host, port, method, target, headers) as got:
            if got.status == UNAUTHORIZED:
                raise AbsentError(
                    f"{self.named(number)} does not take the HEARTWHEEL_HTTP_TOKEN of "
                    f"{self.named(self._view.number)}: give all processes the same"
                )
            if got.headers.get(NAME) != name:
                raise AbsentError(
                    f"{self.named(number)} is not at {_text(host, port)}: another program answers "
                    "there; set HEARTWHEEL_HTTP_ADDRESSES"
                )
            yield got

    @contextmanager
    def _absence(self, number: int) -> Iterator[None]:
        """Say which process does not answer, and where."""
        try:
            yield
        except (OSError, ValueError, h11.ProtocolError) as error:
            why = getattr(error, "strerror", None) or str(error) or "it takes too long"
            as_one = " as one of Heartwheel" if isinstance(error, ValueError) else ""
            raise AbsentError(
                f"{self.named(number)} does not answer{as_one} at "
                f"{_text(*self._places[number])} ({printable(why)}); "
                "does it run there? If not, set HEARTWHEEL_HTTP_ADDRESSES"
            ) from None


async def _whole_lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what comes, each part with whole lines; raises ValueError if one has no end."""
    rest = b""
    async for part in parts:
        whole, end, rest = (rest + part).rpartition(b"\n")
        if len(rest) > MOST_BYTES:
            raise ValueError(f"a line of it is longer than {MOST_BYTES} bytes")
        if end:
            yield whole + end
    if rest:
        raise ValueError("its last line is cut off")


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
