"""Bytes of records as text: for JSON, and for a terminal."""


def text_or_bytes(data: bytes | str | None) -> tuple[str | None, bytes | None]:
    """Return bytes as text if they are UTF-8, else as bytes; None for what is not there."""
    if data is None or isinstance(data, str):
        return data, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, data


def printable(data: bytes | str | None) -> str:
    """Return text that cannot steer a terminal: control characters are escaped as in Python."""
    if data is None:
        return "-"
    text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
