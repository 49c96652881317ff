"""The consumer group of a run: offsets for tools that show lag; the run itself reads none."""

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from dataflows.kafka.client import make_client
from dataflows.logs import log
from dataflows.settings import Settings

CLOSE_S = 1.0
POLL_S = 0.01


class Monitor:
    """Commits how far the snapshots have come, one request at a time, and never waits for it.

    It has a client of its own, so that nothing that goes wrong here reaches source or sink: a
    consumer that reads nothing. An admin client, whose requests may time out while Kafka is
    away, aborts the process when Kafka comes back (an assertion of librdkafka 2.16).
    """

    def __init__(self, settings: Settings) -> None:
        """Commit to the group of the settings."""
        self._group = settings.monitor_group
        options = {
            **settings.kafka,
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": self._group,
            "enable.auto.commit": "false",
            "on_commit": self._done,
        }
        self._consumer = make_client(Consumer, options)
        self._waiting = False
        self._failing = False

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit the next offset of each partition, unless the last commit is still on its way."""
        self._consumer.poll(0)  # brings out what the client has logged, and the answer
        where = [TopicPartition(*name, offset) for name, offset in offsets.items() if offset >= 0]
        if where and not self._waiting:
            self._waiting = True
            self._consumer.commit(offsets=where, asynchronous=True)

    def _done(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Log a failure, but not another one before a commit has succeeded."""
        self._waiting = False
        error = error or next((part.error for part in partitions if part.error is not None), None)
        if error is not None and not self._failing:
            log.warning(
                "offsets for monitoring cannot be committed, and the run goes on without; let it "
                "commit to the group, or change HEARTWHEEL_MONITOR_GROUP",
                group=self._group,
                error=error.str(),
            )
        self._failing = error is not None

    def close(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit the last offsets; waits for a moment at most."""
        self._wait()
        self.commit(offsets)
        self._wait()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + CLOSE_S
        while self._waiting and time.monotonic() < deadline_s:
            self._consumer.poll(POLL_S)
