"""The schemas of recorded records, so that a replay needs no registry."""

import time

from dataflows.avro.framing import schema_of
from dataflows.avro.registry import (
    Registry,
    RegistryAwayError,
    SchemaId,
    SchemaText,
    UnknownSchemaError,
)
from dataflows.logs import announced
from dataflows.settings import Settings
from heartwheel.recording.format import Line

AGAIN_S = 1.0


class SchemasSeen:
    """The schemas that records of the topics in Avro name."""

    def __init__(self, settings: Settings) -> None:
        """Have seen none yet; raises ConfigError for certificates that cannot be read."""
        self._topics = set(settings.avro_topics)
        self._registry = Registry(settings)
        self._seen: set[SchemaId] = set()

    def note(self, lines: list[Line]) -> None:
        """Take in which schemas these records name."""
        for line in lines:
            if line.topic in self._topics and (value := line.value_bytes()):
                found = schema_of(value, line.header_bytes())
                self._seen |= {found[0]} if found else set()

    def texts(self) -> dict[str, SchemaText]:
        """Return them all, but for those that the registry does not have; wait until it answers."""
        texts = {}
        for schema_id in sorted(self._seen, key=str):
            with announced(f"waiting for schema {schema_id} of the registry {self._registry}"):
                if (text := self._text(schema_id)) is not None:
                    texts[str(schema_id)] = text
        return texts

    def _text(self, schema_id: SchemaId) -> SchemaText | None:
        while True:
            try:
                return self._registry.schema(schema_id)
            except UnknownSchemaError:
                return None
            except RegistryAwayError:
                time.sleep(AGAIN_S)
