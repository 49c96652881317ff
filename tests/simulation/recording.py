"""What a simulated history has left in its log, as a recording."""

from pathlib import Path

from heartwheel.recording.format import Header, Line, Preface, format_of, stored_settings
from heartwheel.recording.reader import Recording
from heartwheel.recording.writer import Writer
from heartwheel.text import text_or_bytes
from tests.simulation.flow import Simulation
from tests.support.fake_kafka import Record


def record_history(simulation: Simulation, path: Path) -> Recording:
    """Write all topics of a history that is over; offsets stay, and what was hidden is left out."""
    world = simulation.world
    topics = world.log.topics
    starts = {f"{topic}/{n}": 0 for topic, parts in topics.items() for n in range(len(parts))}
    settings = stored_settings(world.settings)
    head = Preface(format_of(world.settings), "0", settings, starts)
    path.unlink(missing_ok=True)
    writer = Writer(path, lambda: head, settings)
    latest_ms = world.now_ms
    for topic, parts in topics.items():
        for partition, records in enumerate(parts):
            for offset, record in enumerate(records):
                if not record.hidden:
                    writer.add(_line(topic, partition, offset, record))
                    if topic not in world.settings.all_input_topics:
                        latest_ms = max(latest_ms, record.time_ms)
    writer.finish(latest_ms)
    return Recording(path)


def _line(topic: str, partition: int, offset: int, record: Record) -> Line:
    key, key_base64 = text_or_bytes(record.key)
    value, value_base64 = text_or_bytes(record.value)
    headers = record.headers or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Line(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=record.time_ms,
        timestamp_type="create" if record.created else "append",
        key=key,
        key_base64=key_base64,
        value=value,
        value_base64=value_base64,
        headers=[Header(name, *text_or_bytes(content)) for name, content in pairs],
    )
