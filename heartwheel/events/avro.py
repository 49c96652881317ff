"""Values in Avro: their schemas are asked for while a person waits, each once."""

from importlib.util import find_spec
from threading import Event
from typing import Any

from dataflows.avro.framing import schema_of
from dataflows.avro.registry import Registry, RegistryAwayError, UnknownSchemaError
from dataflows.avro.topics import new_schemas
from dataflows.settings import Settings
from heartwheel.events.fields import Writing, read_json
from heartwheel.events.records import SeenRecord
from session_logic.errors import HeartwheelError
from session_logic.events import Rejected


class NoSchemaError(HeartwheelError):
    """The schema registry does not answer: correct its address, or start it."""


class AvroValues:
    """Reads values in Avro, by the schemas of the registry that the settings name."""

    def __init__(self, settings: Settings) -> None:
        """Know no schema; raises ConfigError if the extra is not installed."""
        self._registry = Registry(settings)
        where = f"the registry {self._registry}"
        self.schemas = new_schemas(settings, self._registry.schema, where, Event())
        self._asked: set[int | str] = set()

    def learn(self, record: SeenRecord) -> None:
        """Have the schema of a record known, if there is one; raises NoSchemaError."""
        found = schema_of(record.value, record.headers) if record.value else None
        if found is None or found[0] in self._asked:
            return
        schema_id, _ = found
        try:
            self.schemas.add({schema_id: self._registry.schema(schema_id)})
        except UnknownSchemaError:
            pass  # what is read then says so
        except RegistryAwayError as error:
            msg = (
                f"no answer from the registry {self._registry} about schema {schema_id} ({error}); "
                "check HEARTWHEEL_REGISTRY_URL, and that it runs"
            )
            raise NoSchemaError(msg) from None
        self._asked.add(schema_id)

    def read(self, record: SeenRecord) -> tuple[Writing, dict[str, Any]]:
        """Return how a value is written, and its fields."""
        self.learn(record)
        fields = self.schemas.read(record.value, record.headers) if record.value else None
        if fields is None or isinstance(fields, Rejected):
            return read_json(record)
        return "avro", fields


def avro_values(settings: Settings) -> AvroValues | None:
    """Return what reads Avro; None without a registry, or without the extra."""
    if not settings.registry_url or find_spec("fastavro") is None:
        return None
    return AvroValues(settings)
