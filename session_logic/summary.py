"""The summary of a session: what its end says, in one flat record.

What the session carries stands beside the fixed fields, as the bytes that it was. So a summary is
written as the fixed part, and what is carried in place of its last brace.
"""

from msgspec import UNSET, Raw
from msgspec.structs import fields

from session_logic.codec import decode_summary, encode_output
from session_logic.events import EndOfSummary, SessionEnd, SessionSummary

# No session may carry a field of such a name.
FIELDS = tuple(field.encode_name for field in fields(SessionSummary))


def summary_of(end: SessionEnd) -> bytes:
    """Return the summary of the session that a record ends."""
    fixed = encode_output(_fixed(end))
    return fixed if end.context is UNSET else fixed[:-1] + b"," + bytes(end.context)[1:]


def end_of(summary: bytes) -> EndOfSummary:
    """Return the end of which this is the summary; raises what `decode_summary` raises.

    What it carries is known only if the summary is in the form that `summary_of` gives it.
    """
    fixed = decode_summary(summary)
    before, _, carried = summary.partition(encode_output(fixed)[:-1] + b",")
    return EndOfSummary(
        fixed.device_id,
        fixed.session_id,
        fixed.platform,
        fixed.started_ms,
        fixed.ended_ms,
        fixed.reason,
        fixed.duration_ms,
        Raw(b"{" + carried) if carried and not before else UNSET,
        fixed.last_seen_ms,
    )


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
