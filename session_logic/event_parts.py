"""The parts of an event: where a table says that they are, and what gets them out of a record."""

from msgspec import Struct

from session_logic.carried_json import member_name
from session_logic.event_table import EventTable, FromField, Some, Source, sources
from session_logic.record_fields import FastFields, Fields, Get, carried_of, value_of


class Part(Struct, frozen=True):
    """A part of an event: where its table says that it is, and what gets it."""

    sources: tuple[Source, ...]
    get: Get

    @property
    def name(self) -> str:
        """Where it is, in words."""
        return " or ".join(source.name for source in self.sources)


class CarriedPart(Struct, frozen=True):
    """A value that is carried: its name in a context, where it is, and what gets it."""

    begins: bytes
    part: Part
    get: Get


class Parts(Struct, frozen=True, kw_only=True):
    """Every part of an event, in one of the two ways to get it; None if the table has it not."""

    type: Part | None
    device: Part
    session: Part | None
    time: Part | None
    platform: Part | None
    carry: tuple[CarriedPart, ...]
    end_carry: tuple[CarriedPart, ...]


def fast_fields(table: EventTable) -> FastFields:
    """Return the fields that a table needs."""
    platform = table.platform.field if isinstance(table.platform, FromField) else ()
    values = (table.type, table.device, table.session, table.time, platform)
    carry = (*table.carry.values(), *table.end_carry.values())
    return FastFields(
        [source for some in values for source in sources(some)],
        [source for some in carry for source in sources(some)],
    )


def parts_of(table: EventTable, fields: Fields) -> Parts:
    """Return the parts of an event that a table has, as these fields give them."""

    def part(some: Some) -> Part:
        return Part(sources(some), value_of(sources(some), fields))

    def members(carry: dict[str, Some]) -> tuple[CarriedPart, ...]:
        parts = {
            name: Part(sources(some), carried_of(sources(some), fields))
            for name, some in carry.items()
        }
        return tuple(CarriedPart(member_name(name), part, part.get) for name, part in parts.items())

    return Parts(
        type=part(table.type) if table.type else None,
        device=part(table.device),
        session=part(table.session) if table.session else None,
        time=part(table.time) if table.time else None,
        platform=part(table.platform.field) if isinstance(table.platform, FromField) else None,
        carry=members(table.carry),
        end_carry=members(table.end_carry),
    )
