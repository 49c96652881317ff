"""A proxy in front of a real broker that loses or delays single requests, or cuts the network.

The broker needs a listener that advertises the proxy, else clients would go past it.
"""

import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path

from tests.support.broker import Broker
from tests.support.ports import free_port

# Length of the frame, API key, version, correlation id.
HEADER = struct.Struct(">ihhi")
BUFFER = 1 << 16
ALL = 1 << 30
PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},\
PROXIED://127.0.0.1:{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"""


class Api(IntEnum):
    """The requests that tests lose, by their keys in Kafka's protocol."""

    PRODUCE = 0
    OFFSET_FETCH = 9
    INIT_PRODUCER_ID = 22
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Proxy:
    """Forwards every connection to a port, request by request."""

    def __init__(self, port: int, target: int) -> None:
        """Listen on loopback."""
        self._target = target
        self._to_lose: Counter[Api] = Counter()
        self._delays_s: dict[Api, float] = {}
        self._cut_at: Api | None = None
        self.lost: Counter[int] = Counter()
        self._connected = threading.Event()
        self._connected.set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, *requests: Api) -> None:
        """Let the next request of each kind get lost: nobody answers it, and others pass."""
        self.lost.clear()
        self._to_lose.update(requests)

    @contextmanager
    def losing(self, *requests: Api) -> Iterator[None]:
        """Let every request of these kinds get lost."""
        self.lost.clear()
        self._to_lose.update(dict.fromkeys(requests, ALL))
        try:
            yield
        finally:
            self._to_lose.clear()

    def delay(self, request: Api, seconds: float) -> None:
        """Let the next request of a kind arrive so much later, and others pass."""
        self._delays_s[request] = seconds

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Cut the network: connections stay, and what is sent arrives once it is whole again.

        What a sender has reset meanwhile does not arrive, because it was never taken from it.
        """
        self._connected.clear()
        try:
            yield
        finally:
            self._connected.set()

    def cut_at(self, request: Api) -> None:
        """Let the next request of this kind be on its way when the network is cut.

        It waits for `cut` to end, and so does everything after it.
        """
        self._cut_at = request

    @property
    def whole(self) -> bool:
        """Whether the network is not cut."""
        return self._connected.is_set()

    def close(self) -> None:
        """Take no more connections."""
        self._connected.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._connected.wait()
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as to:
            threading.Thread(target=self._answer, args=(to, client), daemon=True).start()
            while frame := self._frame(client):
                if self._cut_at is not None and _kind(frame) == self._cut_at:
                    self._cut_at = None
                    self._connected.clear()
                self._connected.wait()
                if _is_reset(client):
                    break
                self._forward(frame, to)
            to.shutdown(socket.SHUT_RDWR)

    def _frame(self, client: socket.socket) -> bytes:
        """Return the next request; nothing if there is none."""
        head = client.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            return b""
        return head + client.recv(int.from_bytes(head), socket.MSG_WAITALL)

    def _forward(self, frame: bytes, to: socket.socket) -> None:
        request = _kind(frame)
        if request is not None and self._to_lose[request]:
            self._to_lose[request] -= 1
            self.lost[request] += 1
        elif request is not None and (delay_s := self._delays_s.pop(request, None)) is not None:
            self.lost[request] += 1
            threading.Timer(delay_s, self._send_late, (frame,)).start()
        else:
            to.sendall(frame)

    def _send_late(self, frame: bytes) -> None:
        """Let a request arrive whose client has given it up, with its connection."""
        with socket.create_connection(("127.0.0.1", self._target)) as to:
            to.sendall(frame)
            to.recv(BUFFER)

    def _answer(self, broker: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := broker.recv(BUFFER):
                self._connected.wait()
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


def _kind(frame: bytes) -> Api | None:
    _, key, _, _ = HEADER.unpack_from(frame)
    return Api(key) if key in set(Api) else None


def _is_reset(client: socket.socket) -> bool:
    """Say whether the other end has reset a connection; one that it has closed is not."""
    poll = select.poll()
    poll.register(client, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


class ProxiedBroker(Broker):
    """A broker that is reached directly and through a proxy."""

    def __init__(
        self,
        folder: Path,
        heap: str = "512m",
        properties: str = "",
        controller: int | None = None,
    ) -> None:
        """Make the broker and its proxy."""
        proxy, behind = free_port(), free_port()
        properties = PROPERTIES.format(proxy=proxy, behind=behind) + properties
        super().__init__(folder, heap, properties, controller=controller)
        self.proxy = Proxy(proxy, behind)
