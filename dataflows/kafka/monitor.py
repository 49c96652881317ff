"""The consumer group of a run: offsets for tools that show lag; the run itself reads none."""

from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedError

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflows.kafka.client import make_client
from dataflows.logs import log
from dataflows.settings import Settings

REQUEST_S = 10.0
CLOSE_S = 1.0


class Monitor:
    """Commits how far the snapshots have come, one request at a time, and never waits for it.

    It has a client of its own, so that nothing that goes wrong here reaches source or sink.
    """

    def __init__(self, settings: Settings) -> None:
        """Commit to the group of the settings."""
        self._group = settings.monitor_group
        options = {**settings.kafka, "bootstrap.servers": settings.bootstrap_servers}
        self._admin = make_client(AdminClient, options)
        self._request: Future[ConsumerGroupTopicPartitions] | None = None
        self._failing = False

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit the next offset of each partition, unless the last commit is still on its way."""
        self._admin.poll(0)  # brings out what the client has logged
        if self._request is not None and not self._request.done():
            return
        where = [TopicPartition(*name, offset) for name, offset in offsets.items() if offset >= 0]
        if where:
            wanted = [ConsumerGroupTopicPartitions(self._group, where)]
            requests = self._admin.alter_consumer_group_offsets(wanted, request_timeout=REQUEST_S)
            self._request = requests[self._group]
            self._request.add_done_callback(self._done)

    def _done(self, request: Future[ConsumerGroupTopicPartitions]) -> None:
        """Log a failure, but not another one before a commit has succeeded."""
        try:
            found = request.result().topic_partitions or []
            error = next((part.error for part in found if part.error is not None), None)
        except KafkaException as failure:
            error = failure.args[0]
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
        try:
            if self._request is not None:
                self._request.exception(CLOSE_S)
            self.commit(offsets)
            if self._request is not None:
                self._request.exception(CLOSE_S)
        except WaitedError:
            pass
