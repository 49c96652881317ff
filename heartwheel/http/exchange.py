"""A request to the HTTP server of another process, and its answer part by part."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self

import h11

READ_BYTES = 65_536
# What tells where a body ends, other than the end of the connection.
FRAMES = {"content-length", "transfer-encoding"}


class Exchange:
    """An answer that is being read; raises h11.ProtocolError if it ends early."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        """Read an answer from here."""
        self._reader = reader
        self.connection = h11.Connection(h11.CLIENT)
        self.status = 0
        self.headers: dict[str, str] = {}

    async def begin(self) -> Self:
        """Read the status and the headers."""
        response = await self._event()
        while isinstance(response, h11.InformationalResponse):
            response = await self._event()
        if not isinstance(response, h11.Response):
            raise h11.RemoteProtocolError("no answer")
        self.status = response.status_code
        self.headers = {name.decode(): value.decode("latin-1") for name, value in response.headers}
        return self

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body, as it comes."""
        if not FRAMES & self.headers.keys():
            raise h11.RemoteProtocolError("no end of its answer is said, so it may be cut off")
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def body(self, most: int) -> bytes:
        """Return the body; raises h11.RemoteProtocolError if it has more bytes than that."""
        read = bytearray()
        async for part in self.parts():
            read += part
            if len(read) > most:
                raise h11.RemoteProtocolError(f"its answer is longer than {most} bytes")
        return bytes(read)

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self.connection.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # it is no other mark
            self.connection.receive_data(await self._reader.read(READ_BYTES))


@asynccontextmanager
async def exchange(
    host: str, port: int, method: str, target: str, headers: Iterable[tuple[str, str]]
) -> AsyncIterator[Exchange]:
    """Send a request, and yield what is answered once its headers are there.

    Raises OSError if nobody answers, h11.ProtocolError if it is not HTTP.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        made = Exchange(reader)
        name = f"[{host}]" if ":" in host else host
        request = h11.Request(
            method=method,
            target=target,
            headers=[("host", f"{name}:{port}"), ("connection", "close"), *headers],
        )
        for event in (request, h11.EndOfMessage()):
            writer.write(made.connection.send(event) or b"")
        await writer.drain()
        yield await made.begin()
    finally:
        writer.close()
