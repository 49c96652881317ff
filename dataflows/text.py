"""What senders and operators have chosen: as text that is safe to show, and as numbers."""

import re

INT64 = range(-(2**63), 2**63)
_NUMBER = re.compile(r"-?[0-9]{1,19}")


def is_utf8(text: str) -> bool:
    """Say whether text of an argument or a variable was UTF-8; else it stands for other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(data: bytes | str | None) -> str:
    """Return text that cannot steer a terminal: control characters are escaped as in Python."""
    if data is None:
        return "-"
    text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def whole_number(text: str, least: int = 0) -> int | None:
    """Return the number that a text is, None if Kafka has none such: its offsets have 64 bits."""
    number = int(text) if _NUMBER.fullmatch(text) else least - 1
    return number if number >= least and number in INT64 else None
