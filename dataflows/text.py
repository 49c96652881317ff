"""What senders have chosen, as text that is safe to show."""


def printable(data: bytes | str | None) -> str:
    """Return text that cannot steer a terminal: control characters are escaped as in Python."""
    if data is None:
        return "-"
    text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
