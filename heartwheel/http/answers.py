"""Answers in JSON."""

import msgspec
from starlette.responses import Response

# When it is worth while to ask again for what is not there yet.
RETRY_S = 1
UNAVAILABLE = 503
_encode = msgspec.json.Encoder().encode


def json_answer(status: int, value: object) -> Response:
    """Return a value with an HTTP status."""
    headers = {"retry-after": str(RETRY_S)} if status == UNAVAILABLE else None
    return Response(_encode(value), status, headers, "application/json")
