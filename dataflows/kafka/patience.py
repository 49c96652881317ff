"""Asking Kafka again while its brokers change places.

A broker that died keeps its partitions and groups until the others have noticed, which takes
Kafka's `broker.session.timeout.ms` (9 s). Whoever asks meanwhile gets an error, or no answer.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaException

from dataflows.kafka.client import NO_COORDINATOR_YET, TRANSIENT
from dataflows.logs import announced

PATIENCE_S = 60.0
# How long one question may take, so that a broker that hangs is not waited for.
ASK_S = 5.0
AGAIN_S = 0.1
Answer = TypeVar("Answer")


def patiently(ask: Callable[[], Answer], what: str, patience_s: float = PATIENCE_S) -> Answer:
    """Return what Kafka answers, and say what is waited for; ask waits for less at a time.

    Raises KafkaException if it refuses, or does not answer for patience_s.
    """
    deadline_s = time.monotonic() + patience_s
    with announced(f"waiting for Kafka to tell {what}"):
        while True:
            try:
                return ask()
            except KafkaException as error:
                passes = error.args[0].code() in TRANSIENT | NO_COORDINATOR_YET
                if not passes or time.monotonic() > deadline_s:
                    raise
                time.sleep(AGAIN_S)
