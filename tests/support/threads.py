"""What Linux tells of threads."""

from pathlib import Path
from threading import get_native_id


def slack_ns(native_id: int | None = None) -> int:
    """Return how late a thread may be woken up, by default the calling one."""
    return int(Path(f"/proc/{native_id or get_native_id()}/timerslack_ns").read_text())
