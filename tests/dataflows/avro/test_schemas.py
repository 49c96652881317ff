"""Schemas that are asked for: once, without anybody waiting, and for as long as it takes."""

import json
from collections.abc import Callable, Iterator
from threading import Event
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from dataflows.avro import schemas as module
from dataflows.avro.framing import schema_of
from dataflows.avro.registry import RegistryAwayError, SchemaId, SchemaText, UnknownSchemaError
from dataflows.avro.schemas import Schemas
from dataflows.messages import Headers, Message
from session_logic.events import Rejected
from tests.support.waiting import wait_for

TEXT = SchemaText(
    json.dumps({"type": "record", "name": "R", "fields": [{"name": "f", "type": "string"}]})
)
GUID = UUID("6fb86ebc-3d88-4e31-b913-ea939acacf56")
WRITTEN = b"\x02x"


def framed(number: int) -> bytes:
    """Return a value with a schema's number in front."""
    return b"\0" + number.to_bytes(4, "big") + WRITTEN


def message(value: bytes | None, headers: Headers | None = None) -> Message:
    """Return a message with a value."""
    return 0, 0, b"key", value, True, headers


class Asked:
    """A registry that answers as it is told to, and counts."""

    def __init__(self) -> None:
        self.answers: dict[SchemaId, SchemaText | Exception] = {}
        self.asked: list[SchemaId] = []

    def __call__(self, schema_id: SchemaId) -> SchemaText:
        self.asked.append(schema_id)
        answer = self.answers.get(schema_id, UnknownSchemaError())
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def registry() -> Asked:
    """Return a registry that has one schema."""
    asked = Asked()
    asked.answers[7] = TEXT
    return asked


@pytest.fixture
def schemas(registry: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[Schemas]:
    """Return the schemas of that registry, which is asked again soon."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    stop = Event()
    yield Schemas(registry, "the registry", stop)
    stop.set()


def here(schemas: Schemas, value: bytes) -> Callable[[], bool]:
    """Return what says whether a value need not wait."""
    return lambda: schemas.is_here(message(value))


def test_schema_is_asked_for_once_and_nobody_waits(schemas: Schemas, registry: Asked) -> None:
    """The first look says no at once."""
    assert not schemas.is_here(message(framed(7)))
    wait_for(here(schemas, framed(7)))
    assert schemas.read(framed(7), None) == {"f": "x"}
    assert schemas.is_here(message(framed(7)))
    assert registry.asked == [7]
    assert schemas.wait() == ""


def test_records_wait_while_the_registry_is_away(
    schemas: Schemas, registry: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked again and again, said once, counted, and what is awaited is named."""
    caplog.set_level("INFO")
    registry.answers[7] = RegistryAwayError("no route")
    count = REGISTRY.get_sample_value("heartwheel_registry_failures_total") or 0
    assert not schemas.is_here(message(framed(7)))
    wait_for(lambda: len(registry.asked) > 3)
    assert not schemas.is_here(message(framed(7)))
    assert schemas.wait() == "schema 7 of the registry"
    assert REGISTRY.get_sample_value("heartwheel_awaited_schemas") == 1
    assert (REGISTRY.get_sample_value("heartwheel_registry_failures_total") or 0) >= count + 3
    registry.answers[7] = TEXT
    wait_for(here(schemas, framed(7)))
    wait_for(lambda: schemas.wait() == "")
    assert sum("waiting for the schema registry" in line for line in caplog.messages) == 1
    assert sum("answers again" in line for line in caplog.messages) == 1


def test_schema_that_fails_does_not_hold_up_another(schemas: Schemas, registry: Asked) -> None:
    """A registry may be broken for one of them only."""
    registry.answers[6] = RegistryAwayError("500")
    assert not schemas.is_here(message(framed(6)))
    assert not schemas.is_here(message(framed(7)))
    wait_for(here(schemas, framed(7)))
    assert not schemas.is_here(message(framed(6)))


def test_unknown_schema_is_rejected_and_asked_for_again_later(
    schemas: Schemas, registry: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry may learn of it later than the first record came."""
    assert not schemas.is_here(message(framed(8)))
    wait_for(here(schemas, framed(8)))
    found = schemas.read(framed(8), None)
    assert found == Rejected("unknown_schema", "the registry has no schema 8")
    assert registry.asked == [8]
    monkeypatch.setattr(module, "UNKNOWN_S", 0)
    assert schemas.is_here(message(framed(8)))
    schemas._unknown[8] = 0  # as if that time had passed
    registry.answers[8] = TEXT
    assert not schemas.is_here(message(framed(8)))
    wait_for(here(schemas, framed(8)))
    assert schemas.read(framed(8), None) == {"f": "x"}


def test_unknown_schemas_take_bounded_memory(
    schemas: Schemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage has other numbers in each record."""
    monkeypatch.setattr(module, "MAX_UNKNOWN", 3)
    for number in range(100, 110):
        wait_for(here(schemas, framed(number)))
    assert len(schemas._unknown) == 3


def test_schema_of_another_kind_rejects_its_records(schemas: Schemas, registry: Asked) -> None:
    """What a registry has once, it has for ever."""
    registry.answers[9] = SchemaText("{}", "JSON")
    wait_for(here(schemas, framed(9)))
    found = schemas.read(framed(9), None)
    assert found == Rejected("not_avro", "schema 9 cannot be used: it is JSON, not AVRO")


def test_value_without_an_id_does_not_wait(schemas: Schemas, registry: Asked) -> None:
    """It is rejected, whatever the registry has."""
    for value in (None, b"", b"\0\0\0\0", b'{"type":"on"}', b"\1short"):
        assert schemas.is_here(message(value))
    found = schemas.read(b'{"type":"on"}', None)
    assert isinstance(found, Rejected)
    assert found.reason == "not_avro"
    assert registry.asked == []


def test_id_may_be_a_number_or_a_uuid_in_front_or_in_a_header(
    schemas: Schemas, registry: Asked
) -> None:
    """As Confluent's serializers write it; the value is bare then."""
    guid = b"\1" + GUID.bytes
    registry.answers[str(GUID)] = TEXT
    assert schema_of(framed(7), None) == (7, 5)
    assert schema_of(guid + WRITTEN, None) == (str(GUID), 17)
    headers: Headers = [("other", b"\0" * 5), ("__value_schema_id", guid)]
    assert schema_of(WRITTEN, headers) == (str(GUID), 0)
    assert schema_of(WRITTEN, [("__value_schema_id", framed(7)[:5])]) == (7, 0)
    assert schema_of(framed(7), [("__value_schema_id", None)]) == (7, 5)
    wait_for(lambda: schemas.is_here(message(WRITTEN, headers)))
    assert schemas.read(WRITTEN, headers) == {"f": "x"}
