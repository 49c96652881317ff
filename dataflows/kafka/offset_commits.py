"""The consumer group of a run: offsets for tools that show lag; the run itself reads none."""

import time
from collections.abc import Mapping
from threading import Lock

from confluent_kafka import KafkaError, TopicPartition

from dataflows.kafka.client import PASSING, MakeConsumer, consumer_options, make_consumer
from dataflows.logs import log
from dataflows.settings import Settings

CLOSE_S = 1.0


class OffsetCommitter:
    """Commits how far the snapshots have come, one request at a time, and never waits for it.

    It has a client of its own, so that nothing that goes wrong here reaches source or sink: a
    consumer that reads nothing, because librdkafka's admin client ends the process when it loses
    the group's coordinator in the middle of such a request.
    """

    def __init__(self, settings: Settings, make_consumer: MakeConsumer = make_consumer) -> None:
        """Commit to the group of the settings."""
        self._group = settings.monitor_group
        options = consumer_options(
            settings,
            {
                "group.id": self._group,
                "enable.auto.commit": "false",
                "on_commit": self._on_commit,
            },
            tuned=False,
        )
        self._consumer = make_consumer(options)
        self._using = Lock()  # worker threads share it
        self._closed = False
        self._under_way = False
        self._failing = False

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit the next offset of each partition, unless the last commit is still under way."""
        with self._using:
            if not self._closed:
                self._commit(offsets)

    def _commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._serve(0)
        where = [TopicPartition(*name, offset) for name, offset in offsets.items() if offset >= 0]
        if where and not self._under_way:
            self._under_way = True
            self._consumer.commit(offsets=where, asynchronous=True)

    def _serve(self, wait_s: float) -> None:
        message = self._consumer.poll(wait_s)
        if message is not None and (error := message.error()) is not None:
            self._note(error)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._under_way = False
        errors = [part.error for part in partitions if part.error is not None]
        self._note(error or (errors[0] if errors else None))

    def _note(self, error: KafkaError | None) -> None:
        """Log a failure that does not pass by itself, once until a commit has succeeded."""
        if error is not None and error.code() in PASSING:
            return
        if error is not None and not self._failing:
            log.warning(
                "offsets for monitoring cannot be committed, and the run goes on without; let it "
                "commit to the group, or change HEARTWHEEL_MONITOR_GROUP",
                group=self._group,
                error=error.str(),
            )
        self._failing = error is not None

    def close(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit the last offsets, and wait for a moment at most."""
        with self._using:
            if self._closed:
                return
            self._closed = True
            deadline_s = time.monotonic() + CLOSE_S
            self._await_answer(deadline_s)
            self._commit(offsets)
            self._await_answer(deadline_s)
            if not self._under_way:  # else it would wait for Kafka
                self._consumer.close()

    def _await_answer(self, deadline_s: float) -> None:
        while self._under_way and time.monotonic() < deadline_s:
            self._serve(0.01)
