"""The contract's files, generated from the Structs that encode and decode it."""

import json
from pathlib import Path
from typing import Any

from msgspec.json import schema_components

from dataflows.asyncapi import document
from session_logic.events import (
    GameEnd,
    GameStart,
    Heartbeat,
    SessionActive,
    SessionEnd,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TOPICS: dict[str, tuple[str, list[type]]] = {
    "input": ("What devices send", [GameStart, GameEnd]),
    "output": ("What Heartwheel sends", [SessionActive, Heartbeat, SessionEnd]),
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return what each file holds, by its name: JSON Schema, and an AsyncAPI document of all."""
    files = {"asyncapi.json": document()}
    for name, (title, types) in TOPICS.items():
        references, components = schema_components(types, ref_template="#/$defs/{name}")
        files[f"{name}.schema.json"] = {
            "$schema": DIALECT,
            "title": title,
            "oneOf": list(references),
            "$defs": components,
        }
    return files


def write_schemas(folder: Path) -> None:
    """Write every file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2) + "\n")
