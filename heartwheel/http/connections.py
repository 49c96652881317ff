"""The connections of the HTTP server: how many there may be, and for how long one may say nothing.

What is guaranteed: a request that comes is answered, whatever other connections do, and the server
never has more than MAX_CONNECTIONS files open for long. So a client that opens connections and
neither asks nor reads takes nothing from the probes, nor the files that Kafka needs.

How. Each connection is at one of three things: it waits for a request, it answers one, or it waits
for the next. For each it has PATIENCE_S; then it is cut, whether something was left to send or not.
An answer that is sent in parts, without an end that is known, has that time for each part: whoever
sends it finds the connection in the state of its scope, and renews it.
A new connection is always taken. If there are too many then, the one that has been at its thing for
longest is cut. A probe needs milliseconds, so it is not that one.

What would break it: bytes that prolong the time, because a client can send one every few seconds; a
part of an answer that counts as sent before the client has made room for it in what is buffered; a
limit at which new connections are refused, because the probes are new connections; a `backlog` of
the server that is not below MAX_CONNECTIONS, because so many are taken before any is read from.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dataflows.metrics import HTTP_CROWDED_OUT

MAX_CONNECTIONS = 256
PATIENCE_S = 30
CONNECTION = "connection"  # in the state of a scope


class BoundedConnection(H11Protocol):
    """A connection of uvicorn with an end."""

    patience_s: float = PATIENCE_S
    _began_s = 0.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in the place of another one if there are too many."""
        super().connection_made(transport)
        self.renew()
        if len(self.connections) > MAX_CONNECTIONS:
            oldest = min(self.connections, key=lambda one: one._began_s)  # type: ignore[union-attr]  # noqa: SLF001
            self.connections.discard(oldest)
            oldest.transport.abort()
            HTTP_CROWDED_OUT.inc()

    def handle_events(self) -> None:
        """Begin to answer if the bytes that have come complete a request."""
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self.renew()
            self.scope["state"][CONNECTION] = self

    def _should_upgrade(self) -> bool:
        """Answer a request that wants another protocol as any other; uvicorn would log advice."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless there is an answer already, and end the connection."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # it could send only a second answer
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request; what was answered may still be on its way."""
        super().on_response_complete()
        self.renew()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def break_off(self) -> None:
        """End an answer where it is; what was sent of it still goes out."""
        self.transport.close()

    def renew(self) -> None:
        """Give what comes now its time."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._began_s = self.loop.time()
        self._deadline = self.loop.call_later(self.patience_s, self.transport.abort)
