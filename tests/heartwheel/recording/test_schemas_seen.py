"""The schemas of recorded records: each once, waited for, and only of topics in Avro."""

import pytest

from dataflows.avro.registry import RegistryAwayError, SchemaId, SchemaText, UnknownSchemaError
from dataflows.settings import Settings
from heartwheel.recording import schemas_seen
from heartwheel.recording.format import Line
from heartwheel.recording.schemas_seen import SchemasSeen
from session_logic.event_table import read_table

TABLE = {
    "platform": "pc", "type": "t", "start": "on", "end": "off", "device": "d", "session": "s",
    "format": "avro",
}  # fmt: skip


def line(topic: str, value: bytes | None) -> Line:
    """Return a record of a topic."""
    return Line(topic, 0, 0, 0, value_base64=value)


def test_schemas_are_asked_for_until_the_registry_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not have is left out, as the run that was recorded did without it."""
    monkeypatch.setattr(schemas_seen, "AGAIN_S", 0.01)
    seen = SchemasSeen(
        Settings(input_topics={}, inputs={"a": read_table(TABLE)}, registry_url="http://x.invalid")
    )
    asked: list[SchemaId] = []

    def ask(schema_id: SchemaId) -> SchemaText:
        asked.append(schema_id)
        if schema_id == 2:
            raise UnknownSchemaError
        if len(asked) < 4:
            raise RegistryAwayError
        return SchemaText("text")

    monkeypatch.setattr(seen._registry, "schema", ask)
    seen.note([line("a", b"\0\0\0\0\1x"), line("a", None), line("b", b"\0\0\0\0\3x")])
    seen.note([line("a", b"\0\0\0\0\2x"), line("a", b"\0\0\0\0\1y"), line("a", b"{}")])
    assert seen.texts() == {"1": SchemaText("text")}
    assert asked == [1, 1, 1, 1, 2]
