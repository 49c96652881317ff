"""Which store writes to an output topic: a sign that is kept by Kafka beside the topic.

What it is for: a start with a store that did not write the topic would send everything again. The
topic must say whose it is, because the wrong store, an empty one above all, cannot know.

Where it is. The sign is in the metadata of the committed offset that is also the lease (see
lease.py). A header would cost bytes on every record and change what consumers read, and a record
of its own would reach them as well. This offset costs nothing: the lease renews it every second,
and so Kafka keeps it for as long as a run lives. It goes when the topic is deleted.

What it does not tell. Kafka forgets it some days after the last run (`offsets.retention.minutes`),
and without the lease it is written at a start only. The records are still there then, and a store
that has not written any of them is refused because of that; it just cannot be said whose they are.
A store of earlier versions has no name in it.
"""

import json
import socket
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from msgspec import Struct

from dataflows.kafka.client import MakeConsumer, consumer_options, make_consumer
from dataflows.kafka.lease import TIMEOUT_S
from dataflows.kafka.patience import commit, committed
from dataflows.settings import Settings
from session_logic.errors import ConfigError

# Kafka keeps 4 KB with an offset.
MAX_PLACE = 1_000


class Owner(Struct, frozen=True):
    """A store by its id, "" in the sign of an earlier version, and where it was last used."""

    id: str
    place: str

    def said(self) -> dict[str, str]:
        """Return what the lease says of it."""
        return {"owner": self.id, "place": self.place}

    def __str__(self) -> str:
        """Return it in words."""
        return f"store {self.id[:8]} ({self.place})" if self.id else f"a store ({self.place})"


def owner_in(folder: Path, store_id: str) -> Owner:
    """Return the owner that a store in a directory of this machine is."""
    return Owner(store_id, f"{socket.gethostname()}:{folder.absolute()}"[:MAX_PLACE])


class OwnerSign:
    """Reads the sign; writes it where there is no lease that does."""

    def __init__(self, settings: Settings, make_consumer: MakeConsumer = make_consumer) -> None:
        """Connect on first use."""
        self._settings = settings
        self._make_consumer = make_consumer
        self._where = TopicPartition(settings.output_topic, settings.own_shard.number)

    def _open(self) -> Consumer:
        required = {
            "group.id": f"heartwheel-{self._settings.output_topic}",
            "enable.auto.commit": "false",
            "isolation.level": "read_uncommitted",
        }
        return self._make_consumer(consumer_options(self._settings, required, tuned=False))

    def read(self) -> Owner | None:
        """Return whose the output topic is, None if Kafka does not know.

        Raises ConfigError if it does not answer, or does not let this user ask.
        """
        consumer = self._open()
        try:
            (found,) = committed(consumer, [self._where], TIMEOUT_S)
        except KafkaException as error:
            raise self._refused(error) from None
        finally:
            consumer.close()
        return read_owner(found.metadata or "") if found.offset >= 0 else None

    def write(self, owner: Owner) -> None:
        """Say whose the topic is from now on; raises ConfigError as `read` does."""
        consumer = self._open()
        said = json.dumps(owner.said() | {"released": True})
        sign = TopicPartition(self._where.topic, self._where.partition, 0, said)
        try:
            commit(consumer, [sign], TIMEOUT_S)
        except KafkaException as error:
            raise self._refused(error) from None
        finally:
            consumer.close()

    def _refused(self, error: KafkaException) -> ConfigError:
        return ConfigError(
            f"Kafka does not tell which store writes to {self._settings.output_topic}: "
            f"{error.args[0].str()}; docs/security.md lists the rights that a run needs"
        )


def read_owner(metadata: str) -> Owner | None:
    """Return whose a topic is by the metadata of its offset, None if they do not tell."""
    try:
        said = json.loads(metadata)
        if "owner" in said:
            return Owner(str(said["owner"]), str(said["place"]))
        return Owner("", f"its lock is {said['store']}")
    except (ValueError, TypeError, KeyError):
        return None
