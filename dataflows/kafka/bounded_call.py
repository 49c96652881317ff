"""Calls of Kafka's client that may never return, and must.

Some wait for an answer in librdkafka itself, without a limit of their own (RD_POLL_INFINITE in its
rdkafka_txnmgr.c). Where a broker died, 22 of 72 calls of `send_offsets_to_transaction` with a
limit of 5 s had not returned after 14 s, and one not after 98 s.
"""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from threading import Thread
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

Answer = TypeVar("Answer")


def bounded(call: Callable[[], Answer], limit_s: float) -> Answer:
    """Return what a call returns; raises KafkaException, _TIMED_OUT, if it does not within limit_s.

    Then its thread is left, and with it the client, which must not be used any more.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001  # whoever waits for the answer raises it
            answer.set_exception(error)

    Thread(target=run, name="bounded call", daemon=True).start()
    try:
        return answer.result(limit_s)
    except LateError:
        what = f"a call of Kafka's client has not returned for {limit_s:g} s"
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, what, retriable=True)) from None
