"""The address at which a process answers HTTP: bound before anything is served there."""

import contextlib
import socket
from ipaddress import ip_address

from dataflows.settings import Settings
from session_logic.errors import ConfigError


def bind(settings: Settings) -> socket.socket | None:
    """Take the address of the settings, or return None if they want no server.

    Raises ConfigError if it cannot be had.
    """
    host, port = settings.http_host, settings.http_port
    if not port:
        return None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        msg = (
            f"HEARTWHEEL_HTTP_HOST and HEARTWHEEL_HTTP_PORT: {host}:{port} cannot be bound "
            f"({error.strerror}); choose a host of this machine and a port that is free, or "
            "HEARTWHEEL_HTTP_PORT=0 for none"
        )
        raise ConfigError(msg) from None
    # asyncio does not, because this socket does not say that it is TCP: an answer in two parts, and
    # all are, would wait 40 ms until the client acknowledges the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(settings: Settings) -> str:
    """Return where a browser on this machine finds the page."""
    host = settings.http_host
    with contextlib.suppress(ValueError):
        if ip_address(host).is_unspecified:
            host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}/"
