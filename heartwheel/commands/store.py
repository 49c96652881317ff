"""`heartwheel store`: look at, check, back up or move a store, or go on without what is lost."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from dataflows.text import whole_number
from heartwheel.commands.reshard import reshard_command
from heartwheel.commands.shared import ConfigOption, confirm, print_table
from heartwheel.text import moment_text
from session_logic.errors import ConfigError

if TYPE_CHECKING:
    from heartwheel.store.summary import Summary

store_app = typer.Typer(
    help="Look at, check, back up or migrate a recovery store; go on without what is lost.",
    no_args_is_help=True,
)

FolderArgument = Annotated[
    Path | None, typer.Argument(help="Recovery directory; the default is that of the settings.")
]
SourceArgument = Annotated[Path, typer.Argument(help="Recovery directory of a stopped run.")]
TargetArgument = Annotated[Path, typer.Argument(help="Directory to create; it must not exist.")]


@store_app.command("inspect")
def inspect_command(
    folder: FolderArgument = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,  # noqa: FBT002  # typer's way
) -> None:
    """Show what a store holds: files, epochs, versions, offsets, and sessions per lane."""
    from heartwheel.store.contents import Contents
    from heartwheel.store.recovery_files import Recovery
    from heartwheel.store.summary import summarize

    settings, folder = _where(folder, config)
    with Recovery(folder) as recovery:
        summary = summarize(Contents(recovery, settings.rules()))
    if as_json:
        print(json.dumps(to_builtins(summary)))
        return
    for rows in filter(None, _tables(summary)):
        print_table(rows)
        print()


@store_app.command("check")
def check_command(
    folder: FolderArgument = None,
    config: ConfigOption = None,
    offline: Annotated[  # noqa: FBT002  # typer's way
        bool, typer.Option("--offline", help="Do not compare it with the topics in Kafka.")
    ] = False,
) -> None:
    """Check everything that a start needs and more: one line per fault, exit code 1 if any."""
    from heartwheel.store.contents import Contents
    from heartwheel.store.recovery_files import Recovery
    from heartwheel.store.start import topic_faults

    settings, folder = _where(folder, config)
    with Recovery(folder) as recovery:
        contents = Contents(recovery, settings.rules())
        _report(contents.faults())
        print(f"{folder}: OK, {len(recovery.parts)} files and {len(contents.own_lanes)} lanes")
    if not offline:
        _report(topic_faults(settings, folder))
        print(f"topics: OK, a run with {folder} can go on")


def _report(faults: Iterable[str]) -> None:
    """Print faults, and exit with 1 if there are any."""
    found = False
    for fault in faults:
        found = True
        print(fault)
    if found:
        raise typer.Exit(1)


@store_app.command("skip")
def skip_command(
    folder: FolderArgument = None,
    config: ConfigOption = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="Go on at an offset, as TOPIC/PARTITION=OFFSET; can be given repeatedly."
        ),
    ] = None,
    anew: Annotated[
        list[str] | None,
        typer.Option(help="An input topic that was made anew: read it from its beginning."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002  # typer's way
) -> None:
    """Let a store that a start refuses go on without what is missing; its sessions stay.

    Shows first what is lost. A note about it stays in the store.
    """
    from heartwheel.store.recovery_files import Recovery
    from heartwheel.store.skip import Skipping

    settings, folder = _where(folder, config)
    offsets = _offsets(to or [])
    with Recovery(folder, alone=True) as recovery:
        skipping = Skipping(settings, recovery, anew=anew or [], to=offsets)
        skips = list(skipping.find())
        for skip in skips:
            print(skip.text)
        if not skips:
            print(f"{folder}: nothing is missing")
        elif confirm("Go on without that?", yes=yes, instead="--yes"):
            skipping.apply(skips)
            print(f"skipped in {folder}; the next start goes on from there")
        else:
            raise typer.Exit(1)


def _offsets(given: list[str]) -> dict[str, int]:
    """Return offsets by partition that are given as TOPIC/PARTITION=OFFSET."""
    found = {}
    for one in given:
        name, _, text = one.rpartition("=")
        offset = whole_number(text)
        if not name or offset is None:
            raise ConfigError(f"--to {one}: write it as TOPIC/PARTITION=OFFSET")
        found[name] = offset
    return found


@store_app.command("backup")
def backup_command(
    target: TargetArgument,
    folder: Annotated[
        Path | None,
        typer.Option("--store", help="Recovery directory; the default is that of the settings."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Copy the store of a run that goes on, or of a stopped one, and check the copy."""
    from heartwheel.store.backup import back_up

    settings, folder = _where(folder, config)
    moment = moment_text(back_up(folder, target, settings.rules()))
    print(f"backed up {folder} to {target}, as of {moment}")


@store_app.command("copy")
def copy_command(source: SourceArgument, target: TargetArgument) -> None:
    """Copy the store of a stopped run to a new directory."""
    from heartwheel.store.copying import copy_store

    copy_store(source, target)
    print(f"copied {source} to {target}")


@store_app.command("migrate")
def migrate_command(
    source: SourceArgument,
    target: TargetArgument,
    lanes: Annotated[int, typer.Option(help="New number of lanes: a power of two up to 256.")],
    config: ConfigOption = None,
) -> None:
    """Write the sessions of a stopped run to a new store with another number of lanes."""
    from heartwheel.store.migration import migrate_store

    by_hash = {"HEARTWHEEL_ROUTE": "hash", "HEARTWHEEL_SHARD": ""}
    lanes_set = {"HEARTWHEEL_LANES": str(lanes)}
    settings = load_settings({**os.environ, **by_hash, **lanes_set}, config)
    count = migrate_store(source, target, settings.lanes, settings.rules())
    print(f"migrated {count} sessions from {source} to {target}")
    print(
        f"Next: create a new output topic with {lanes} partitions, then start with "
        f"HEARTWHEEL_LANES={lanes}, HEARTWHEEL_RECOVERY_DIR={target} and HEARTWHEEL_OUTPUT_TOPIC "
        "set to it. Consumers switch to it once they have read the old topic to its end."
    )


store_app.command("reshard")(reshard_command)


def _where(folder: Path | None, config: str | None) -> tuple[Settings, Path]:
    settings = load_settings(os.environ, config)
    return settings, folder or settings.recovery_path()


def _tables(summary: "Summary") -> list[list[dict[str, Any]]]:
    """Return the tables to print: rows with a text for each column."""
    whole = {
        "directory": summary.directory,
        "id, output topic": f"{summary.store_id[:8] or '-'}, {summary.output_topic or '-'}",
        "lanes, groups": f"{summary.lane_count}, {summary.groups}",
        "devices": summary.layout,
        "resumes from epoch": summary.resume_epoch,
        "last epoch": summary.last_epoch,
        "executions": f"{summary.executions}, the last with {summary.workers} workers",
        "versions": (
            f"Bytewax tables {summary.tables_version}, lanes {_list(summary.state_versions)}, "
            f"rows {_list(summary.row_versions)}, sink {_list(summary.sink_versions)}"
        ),
        "values": ", ".join(f"{step} {count}" for step, count in summary.values.items()),
    }
    return [
        [{"store": name, "": value} for name, value in whole.items()],
        [
            {"file": file.file, "bytes": f"{file.bytes:,}", "committed epoch": file.committed_epoch}
            for file in summary.files
        ],
        [
            {
                "lane": lane.lane,
                "active": f"{lane.active:,}",
                "ended": f"{lane.remembered:,}",
                "fired up to": moment_text(lane.fired_ms),
                "segments": f"{lane.first_segment} to {lane.last_segment}",
                "bases": lane.base_rows,
                "journals": lane.journal_rows,
                "bytes": f"{lane.bytes:,}",
            }
            for lane in summary.lanes
        ],
        [{"source": part, "next offset": state} for part, state in summary.source.items()],
        [
            {
                "sink": part,
                "end offset": _list(list(state.end_offsets.values())),
                "not acknowledged": state.waiting,
            }
            for part, state in summary.sink.items()
        ],
        [{"noted": moment_text(one.noted_ms), "": one.note} for one in summary.notes],
    ]


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values)) or "-"
