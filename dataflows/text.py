"""What senders have chosen, as text that is safe to show."""


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
