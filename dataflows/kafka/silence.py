"""How long the brokers have been silent: a reader without input hears nothing else of them."""

from msgspec import Struct
from msgspec.json import Decoder


class _Broker(Struct):
    rxidle: int
    toppars: dict[str, object]


class _Statistics(Struct):
    brokers: dict[str, _Broker]


_DECODER = Decoder(_Statistics)


def silence_ms(statistics: str) -> int:
    """Return the longest time in ms that a broker which is read from has sent nothing.

    statistics are those of librdkafka. A connection that is new, and has heard nothing yet, counts
    as 0. One that waits for records hears an empty answer every `fetch.wait.max.ms`.
    """
    brokers = _DECODER.decode(statistics).brokers.values()
    return max([0, *(broker.rxidle // 1000 for broker in brokers if broker.toppars)])
