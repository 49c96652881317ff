"""Make the parts of the documentation that follow from the code: settings, keys, transitions.

`python -m docs.generate` writes them between the markers of their pages; a test compares.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Meta

from dataflows.settings import OPTION_TABLES, Settings
from dataflows.settings_file import PREFIX
from session_logic.event_table import EventTable
from session_logic.transitions import TRANSITIONS, Input, State

FOLDER = Path(__file__).parent
END = "<!-- end -->"


def main() -> None:
    """Write every generated part into its page."""
    for page in pages():
        path = FOLDER / page
        path.write_text(renewed(page, path.read_text()))


def pages() -> dict[str, tuple[str, str]]:
    """Return, for each page, the name of its generated part and what belongs there."""
    return {
        "settings.md": ("settings", settings_table()),
        "events.md": ("keys", keys_table()),
        "design.md": ("transitions", transitions_table()),
    }


def renewed(page: str, text: str) -> str:
    """Return the text of a page with its generated part as it must be now."""
    name, table = pages()[page]
    begin = f"<!-- {name}: made by docs/generate.py -->"
    before, _, rest = text.partition(begin)
    assert rest, f"{page} has no line {begin}"
    return f"{before}{begin}\n{table}{END}{rest.partition(END)[2]}"


def settings_table() -> str:
    """Return a table with a row for each setting: variable, default, allowed values, meaning."""
    lines = ["| variable | default | allowed | meaning |", "|---|---|---|---|"]
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        hint = hints[field.name]
        options = "_*" if field.name in OPTION_TABLES else ""
        name = f"`{PREFIX}{field.name.upper()}{options}`"
        if field.name == "inputs":
            name = "`[inputs.TOPIC]`, in TOML only"
        cells = (name, _default(field), _allowed(hint), _description(hint))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def keys_table() -> str:
    """Return a table with a row for each key of an input table."""
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    hints = get_type_hints(EventTable, include_extras=True)
    for field in msgspec.structs.fields(EventTable):
        hint = hints[field.name]
        default = "required" if field.required else _default(field) if field.default else ""
        lines.append(f"| `{field.name}` | {default} | {_allowed(hint)} | {_description(hint)} |")
    return "\n".join(lines) + "\n"


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default_factory() if field.default is NODEFAULT else field.default
    if isinstance(value, dict):
        value = ",".join(f"{key}={value[key]}" for key in value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text and f"`{text}`"


def _meta(hint: Any) -> list[Meta]:
    return [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]


def _description(hint: Any) -> str:
    return " ".join(meta.description for meta in _meta(hint) if meta.description)


def _allowed(hint: Any) -> str:
    """Return what a value may be, in words; a Meta's `extra` says it where the type does not."""
    for meta in _meta(hint):
        if meta.extra and "allowed" in meta.extra:
            return str(meta.extra["allowed"])
    kind = get_args(hint)[0] if _meta(hint) else hint
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    bounds: dict[str, Any] = {}
    for meta in _meta(hint):
        found = {"ge": meta.ge, "gt": meta.gt, "le": meta.le, "lt": meta.lt}
        bounds |= {name: bound for name, bound in found.items() if bound is not None}
    if kind is not int or not bounds:
        return ""
    low, high = bounds.get("ge", bounds.get("gt", -1) + 1), bounds.get("le")
    return f"{low} to {high}" if high is not None else f"from {low}"


def transitions_table() -> str:
    """Return a table of what each input does in each state, by the rules' own functions."""
    states = {state: state.name for state in State}
    lines = [
        f"| | {' | '.join(states.values())} |",
        f"|---{'|---' * len(states)}|",
    ]
    described: defaultdict[str, str] = defaultdict(str)
    for event in Input:
        cells = []
        for state in State:
            rule = TRANSITIONS[state, event]
            name = rule.__name__.strip("_")
            described[name] = (rule.__doc__ or "").strip().partition("\n")[0]
            cells.append(f"`{name}`")
        lines.append(f"| {event.name} | {' | '.join(cells)} |")
    lines += ["", *(f"- `{name}`: {text}" for name, text in described.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
