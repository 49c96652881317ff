"""The summary of a session: what its end says, in one flat record.

What the session carries stands beside the fixed fields, as the bytes that it was. So a summary is
written as the fixed part, and what is carried in place of its last brace.
"""

from msgspec import UNSET
from msgspec.structs import fields

from session_logic.codec import decode_summary, encode_output
from session_logic.events import SessionEnd, SessionSummary

# No session may carry a field of such a name.
FIELDS = tuple(field.encode_name for field in fields(SessionSummary))


def summary_of(end: SessionEnd) -> bytes:
    """Return the summary of the session that a record ends."""
    fixed = encode_output(_fixed(end))
    return fixed if end.context is UNSET else fixed[:-1] + b"," + bytes(end.context)[1:]


def ended_as(summary: bytes, end: SessionEnd) -> bytes:
    """Return a summary with the time and the reason of an end, and with what it carries itself."""
    carried_from = len(encode_output(decode_summary(summary))) - 1
    return encode_output(_fixed(end))[:-1] + summary[carried_from:]


def _fixed(end: SessionEnd) -> SessionSummary:
    return SessionSummary(
        end.device_id,
        end.session_id,
        end.platform,
        end.started_ms,
        end.time_ms,
        end.duration_ms,
        end.reason,
        end.last_seen_ms,
    )
