"""A Kafka of three brokers, each behind a proxy; one at a time may be killed, paused or cut off."""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from tests.support.ports import free_port
from tests.support.proxy import ProxiedBroker

COUNT = 3
WHOLE_S = 90
PROPERTIES = """
node.id={node}
controller.quorum.voters={voters}
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
"""


class ThreeBrokers:
    """Three brokers that are controllers as well; topics with three replicas need two of them."""

    def __init__(self, folder: Path) -> None:
        """Format the storage; `start` starts them."""
        self._folder = folder
        controllers = [free_port() for _ in range(COUNT)]
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(controllers, 1))
        self.brokers = [
            ProxiedBroker(
                folder / str(node),
                "384m",
                PROPERTIES.format(node=node, voters=voters),
                controller,
            )
            for node, controller in enumerate(controllers, 1)
        ]
        self.proxies = [broker.proxy for broker in self.brokers]

    @property
    def address(self) -> str:
        """Where clients reach them directly."""
        return ",".join(broker.address for broker in self.brokers)

    @property
    def proxied_address(self) -> str:
        """Where clients reach them through their proxies."""
        return ",".join(proxy.address for proxy in self.proxies)

    def start(self) -> None:
        """Start all, and wait until all answer."""
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_for_answer()

    def wait_until_whole(self) -> None:
        """Wait until every replica of every partition is in sync, so that the next one may go."""
        deadline = time.monotonic() + WHOLE_S
        while not self._whole():
            assert time.monotonic() < deadline, "replicas do not come back into sync"
            time.sleep(0.2)

    def move(self, topics: Iterable[str], shift: int) -> None:
        """Give each partition of topics two replicas, on other brokers with each shift.

        Returns once they are in sync there.
        """
        found, parts = self.brokers[0].admin().list_topics(timeout=5).topics, []
        for topic in topics:
            for number in found[topic].partitions:
                replicas = [(number + shift + n) % COUNT + 1 for n in range(2)]
                parts.append({"topic": topic, "partition": number, "replicas": replicas})
        plan = self._folder / "plan.json"
        plan.write_text(json.dumps({"version": 1, "partitions": parts}))
        self.brokers[0].run_tool(
            "org.apache.kafka.tools.reassign.ReassignPartitionsCommand", "--execute",
            "--bootstrap-server", self.address, "--reassignment-json-file", str(plan),
        )  # fmt: skip
        deadline = time.monotonic() + WHOLE_S
        while not self._is_moved(parts):
            assert time.monotonic() < deadline, "partitions do not move"
            time.sleep(0.2)

    def _is_moved(self, parts: list[dict[str, Any]]) -> bool:
        found = self.brokers[0].admin().list_topics(timeout=5).topics
        return all(
            sorted(part["replicas"]) == sorted(now.replicas) == sorted(now.isrs)
            for part in parts
            for now in [found[part["topic"]].partitions[part["partition"]]]
        )

    def _whole(self) -> bool:
        with suppress(KafkaException):
            found = self.brokers[0].admin().list_topics(timeout=5)
            return len(found.brokers) == COUNT and all(
                len(partition.isrs) == len(partition.replicas)
                for topic in found.topics.values()
                for partition in topic.partitions.values()
            )
        return False

    def stop(self) -> None:
        """Stop all."""
        for proxy in self.proxies:
            proxy.close()
        for broker in self.brokers:
            if broker.process is not None:
                broker.process.kill()
                broker.process.wait()
