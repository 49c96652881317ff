"""Headers of Kafka records: those of the sender, and Heartwheel's own."""

from confluent_kafka import Message

from dataflows.messages import Headers

# Names that begin so are Heartwheel's own, whoever has written them.
OWN = "heartwheel."


def headers_of(message: Message) -> Headers | None:
    """Return the headers of a record; none if a name is not UTF-8, which no client must send."""
    try:
        return message.headers()  # type: ignore[return-value]  # a list of pairs
    except (SystemError, UnicodeDecodeError):  # the Python client has no word for it
        return None


def senders(headers: Headers | None) -> Headers:
    """Return the headers that are not Heartwheel's own."""
    return [header for header in headers or () if not header[0].startswith(OWN)]


def size_of(headers: Headers) -> int:
    """Return how many bytes headers have."""
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)
