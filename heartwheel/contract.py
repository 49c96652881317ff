"""The contract's files, generated from the Structs that encode and decode it.

JSON Schema for input and output, and an AsyncAPI 3 document of topics, keys and messages.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
from msgspec.json import schema_components

from dataflows.metrics import REASONS
from dataflows.settings import Settings
from session_logic.errors import ConfigError
from session_logic.events import (
    ActiveSession,
    GameEnd,
    GamePing,
    GameStart,
    Heartbeat,
    SessionActive,
    SessionEnd,
    SessionSummary,
)

CONTRACT_VERSION = "1.2.0"
BINDING = "0.5.0"  # of AsyncAPI to Kafka
INPUT, OUTPUT = (GameStart, GameEnd, GamePing), (SessionActive, Heartbeat, SessionEnd)
APART = (SessionSummary, ActiveSession)  # Heartbeat is one of the output as well
KEY = {"type": "string", "description": "The device id."}
ORDER = (
    "Per device in order: SessionActive, heartbeats in sequence, SessionEnd. The partition is "
    "crc32(device id) mod partitions. A record is named by device_id, session_id, started_ms, type "
    "and sequence, and comes once."
)
DIALECT = "https://json-schema.org/draft/2020-12/schema"
DRAFT_07 = "http://json-schema.org/draft-07/schema#"
TOPICS: dict[str, tuple[str, tuple[type, ...]]] = {
    "input": ("What devices send", INPUT),
    "output": ("What Heartwheel sends", OUTPUT),
}


class _Titled(msgspec.Struct):
    """What tells whose a file is."""

    title: str | None = None
    info: "_Titled | None" = None


def schemas() -> dict[str, dict[str, Any]]:
    """Return what each file holds, by its name: JSON Schema, and an AsyncAPI document of all."""
    files = {"asyncapi.json": asyncapi()}
    for name, (title, types) in TOPICS.items():
        references, components = schema_components(list(types), ref_template="#/$defs/{name}")
        files[f"{name}.schema.json"] = {
            "$schema": DIALECT,
            "title": title,
            "oneOf": list(references),
            "$defs": components,
        }
    _, components = schema_components([SessionSummary])
    # Older than the others, and without references: so brokers read it that make tables of topics.
    files["summary.schema.json"] = {"$schema": DRAFT_07, **components["SessionSummary"]}
    return files


def write_schemas(folder: Path) -> None:
    """Write every file into a folder, in the place of an older one, but of no other file.

    Raises ConfigError if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = schemas()
    for name, schema in files.items():
        path = folder / name
        if path.exists() and _title(path.read_bytes()) != _title(json.dumps(schema)):
            raise ConfigError(f"{path} is none of Heartwheel's: move it, or name another folder")
    for name, schema in files.items():
        (folder / name).write_text(json.dumps(schema, indent=2) + "\n")


def _title(text: bytes | str) -> str | None:
    """Return the title of a schema or of an AsyncAPI document, None for anything else."""
    try:
        titled = msgspec.json.decode(text, type=_Titled)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return titled.title or (titled.info.title if titled.info else None)


def asyncapi() -> dict[str, Any]:
    """Return the document; topics have the names that the default settings give them."""
    settings = Settings()
    _, schemas = schema_components(
        [*INPUT, *OUTPUT, *APART], ref_template="#/components/schemas/{name}"
    )
    letter = {
        "summary": "Input that is no event, key and value as they came.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Heartwheel",
            "version": CONTRACT_VERSION,
            "description": "Device sessions and heartbeats from Kafka to Kafka.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "input": {
                "address": "{topic}",
                "description": "All records of a device are in one partition. The event's time is "
                "the record's timestamp. Unknown fields are ignored.",
                "parameters": {
                    "topic": {
                        "description": "One of HEARTWHEEL_INPUT_TOPICS. Topics that have a table "
                        "([inputs.TOPIC]) have messages of the shape that it describes.",
                        "enum": list(settings.input_topics),
                    }
                },
                "messages": _references(INPUT),
            },
            "output": {
                "address": settings.output_topic,
                "description": ORDER,
                "messages": _references(OUTPUT),
            },
            "heartbeats": {
                "address": None,
                "description": "The topic of HEARTWHEEL_HEARTBEAT_TOPIC, which is off by default. "
                "Heartbeats are there then, and not in the output. Per device in sequence; across "
                "both topics the order is that of time_ms.",
                "messages": _references((Heartbeat,)),
            },
            "summaries": {
                "address": None,
                "description": "The topic of HEARTWHEEL_SUMMARY_TOPIC, which is off by default: "
                "one record of each session that has ended, named by device_id, session_id and "
                "started_ms. What the session carries are further fields.",
                "messages": _references((SessionSummary,)),
            },
            "table": {
                "address": None,
                "description": "The compacted topic of HEARTWHEEL_TABLE_TOPIC, which is off by "
                "default: the active session of each device under its id, no value once it has "
                "ended. In order, at least once.",
                "messages": _references((ActiveSession,)),
            },
            "deadLetters": {
                "address": settings.dead_letter_topic,
                "messages": {"DeadLetter": {"$ref": "#/components/messages/DeadLetter"}},
            },
        },
        "operations": {
            "readEvents": _operation("receive", "input"),
            "sendSessions": _operation("send", "output"),
            "sendHeartbeats": _operation("send", "heartbeats"),
            "sendSummaries": _operation("send", "summaries"),
            "sendTable": _operation("send", "table"),
            "sendDeadLetters": _operation("send", "deadLetters"),
        },
        "components": {
            "messages": {
                **{one.__name__: _message(one) for one in (*INPUT, *OUTPUT, *APART)},
                "DeadLetter": letter,
            },
            "schemas": {**schemas, "DeadLetterHeaders": _headers()},
        },
    }


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _references(types: tuple[type, ...]) -> dict[str, Any]:
    return {one.__name__: {"$ref": f"#/components/messages/{one.__name__}"} for one in types}


def _message(one: type) -> dict[str, Any]:
    return {
        "summary": one.__doc__,
        "payload": {"$ref": f"#/components/schemas/{one.__name__}"},
        "bindings": {"kafka": {"key": KEY, "bindingVersion": BINDING}},
    }


def _headers() -> dict[str, Any]:
    number = {"type": "string", "pattern": "^-?[0-9]+$"}
    properties = {
        "heartwheel.topic": {"type": "string"},
        "heartwheel.partition": number,
        "heartwheel.offset": number,
        "heartwheel.timestamp": number,
        "heartwheel.reason": {"type": "string", "enum": list(REASONS)},
        "heartwheel.detail": {"type": "string"},
    }
    return {"type": "object", "required": list(properties), "properties": properties}
