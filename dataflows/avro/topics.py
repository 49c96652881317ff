"""The topics in Avro: what their source waits for, and what reads their records."""

from threading import Event
from typing import TYPE_CHECKING

from dataflows.avro.registry import Ask, Registry
from dataflows.decode import Reads
from dataflows.kafka.partition import Gate
from dataflows.settings import Settings
from session_logic.errors import ConfigError
from session_logic.events import Rejected
from session_logic.mapping import Found, Mapping
from session_logic.record_fields import Headers

if TYPE_CHECKING:  # it needs the extra
    from dataflows.avro.schemas import Schemas


class AvroMapping:
    """Reads the records of a topic in Avro by its table."""

    def __init__(self, mapping: Mapping, schemas: "Schemas") -> None:
        """Read what has one of these schemas."""
        self._mapping = mapping
        self._schemas = schemas

    def read(
        self, key: bytes | None, value: bytes | None, headers: Headers | None, time_ms: int
    ) -> Found:
        """Return what a record is; time_ms is its timestamp."""
        if not value or not self._mapping.needs_value:
            return self._mapping.read(key, value, headers, time_ms)
        fields = self._schemas.read(value, headers)
        if isinstance(fields, Rejected):
            return self._mapping.read_unreadable(fields, key, headers, time_ms)
        return self._mapping.read_decoded(fields, key, headers, time_ms)


def open_schemas(settings: Settings, stop: Event) -> "Schemas | None":
    """Return the schemas of the topics in Avro, None without such a topic.

    Raises ConfigError if the extra is not installed, or certificates cannot be read.
    """
    if not settings.avro_topics:
        return None
    registry = Registry(settings)
    return new_schemas(settings, registry.schema, f"the registry {registry}", stop)


def new_schemas(settings: Settings, ask: Ask, where: str, stop: Event) -> "Schemas":
    """Return schemas that are asked for; raises ConfigError if the extra is not installed."""
    try:
        from dataflows.avro.schemas import Schemas  # noqa: PLC0415  # without the extra it fails
    except ImportError as error:
        msg = (
            f"HEARTWHEEL_INPUTS, {settings.avro_topics[0]} has format avro, for which a package is "
            f"missing ({error.name}): pip install 'heartwheel[avro]'"
        )
        raise ConfigError(msg) from None
    return Schemas(ask, where, stop)


def readers(settings: Settings, schemas: "Schemas | None") -> dict[str, Reads]:
    """Return what reads the topics that have a table, in whichever format they are."""
    found: dict[str, Reads] = {}
    for topic, mapping in settings.mappings().items():
        found[topic] = mapping
        if schemas is not None and topic in settings.avro_topics:
            found[topic] = AvroMapping(mapping, schemas)
    return found


def gates(settings: Settings, schemas: "Schemas | None") -> dict[str, Gate]:
    """Return, for each topic whose records may have to wait, what says that one need not."""
    if schemas is None:
        return {}
    mappings = settings.mappings()
    return {topic: schemas.is_here for topic in settings.avro_topics if mappings[topic].needs_value}
