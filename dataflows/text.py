"""What senders have chosen, as text that is safe to show."""

# As long as a device id can be.
MAX_SHOWN_LENGTH = 128


def shown(text: str) -> str:
    """Return text that cannot steer a terminal, of bounded length."""
    text = text[:MAX_SHOWN_LENGTH]
    return text if text.isprintable() else ascii(text)
