"""What another process answers about a device; nothing of it is believed unread.

Another version of the program may say more than is known here, and that is passed on as it came.
"""

import msgspec
from msgspec import Struct

from heartwheel.http.split_devices import Found, SplitSession

FOUND, IDLE, NOT_YET = 200, 404, 503


class _Unknown(Struct):
    """The least that an answer without a session says."""

    device_id: str
    active: bool | None
    error: str


class DeviceAnswer(Struct, frozen=True):
    """An answer as it came, and the session that it tells of if there is one."""

    status: int
    body: bytes
    session: Found | None


def read_answer(status: int, body: bytes, device_id: str) -> DeviceAnswer:
    """Return what was answered about a device; raises ValueError if that is no such answer."""
    if status not in (FOUND, IDLE, NOT_YET):
        raise ValueError(f"it answers {status}")
    said: SplitSession | _Unknown
    try:
        if status == FOUND:
            said = msgspec.json.decode(body, type=SplitSession)
        else:
            said = msgspec.json.decode(body, type=_Unknown)
    except RecursionError:
        raise ValueError("its answer is nested too deep") from None
    if said.device_id != device_id:
        raise ValueError("it answers about another device")
    return DeviceAnswer(status, body, said if isinstance(said, SplitSession) else None)
