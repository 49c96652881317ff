"""`heartwheel session`: look at the active session of a device, and end it."""

import json
import os
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from dataflows.settings_sources import load_settings
from dataflows.text import is_utf8, printable
from heartwheel.commands.shared import ConfigOption, JsonOption, UrlOption, confirm, print_table
from heartwheel.running_process import Answer, RunningProcess
from heartwheel.text import moment_text
from session_logic.errors import ConfigError, HeartwheelError
from session_logic.mapping import MAX_ID, MappedEvent

FOUND, IDLE = 200, 404
SHOWN = {
    "session_id": "session",
    "platform": "platform",
    "lane": "lane",
    "started_ms": "started",
    "next_heartbeat_ms": "next heartbeat",
    "timeout_ms": "times out",
    "last_seen_ms": "last seen",
    "silent_ms": "goes silent",
    "as_of_ms": "as of",
    "context": "context",
}


class NoSessionError(HeartwheelError):
    """No session is active on the device: there is nothing to show or to end."""


session_app = typer.Typer(
    help="Look at the active session of a device, and end it.", no_args_is_help=True
)

DeviceArgument = Annotated[str, typer.Argument(help="The id of the device.")]


@session_app.command("show")
def show_command(
    device: DeviceArgument,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the active session of a device, as a running process has it.

    Exit code 1 if none is active.
    """
    answer = _active(RunningProcess(load_settings(os.environ, config), url), device)
    if as_json:
        print(answer.text)
        return
    session = answer.value
    print_table(
        [
            {"device": name, printable(device): _text(key, session[key])}
            for key, name in SHOWN.items()
            if key in session
        ]
    )


@session_app.command("end")
def end_command(
    device: DeviceArgument,
    topic: Annotated[
        str | None,
        typer.Option(help="Input topic to send to.", show_default="that of the platform"),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(
            help="Partition that has the device's events.", min=0, show_default="that of the key"
        ),
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
) -> None:
    """End the active session of a device: send its end to the input, as the device would.

    Asks a running process which session it is, shows the event, and asks before it sends it. The
    event is in the format of its topic, and names the session: one that has begun meanwhile goes
    on, unless the topic's table knows no session ids.

    Exit code 1 if none is active, Kafka has not acknowledged the event, or you answer no.
    """
    from heartwheel.session_end import end_of, send, topic_of

    settings = load_settings(os.environ, config)
    session = _active(RunningProcess(settings, url), device).value
    platform, session_id = session["platform"], session["session_id"]
    topic = topic_of(settings, platform, topic)
    event = MappedEvent(False, device, session_id, platform, int(time.time() * 1000))
    record = end_of(settings, topic, event)
    print(f"session {printable(session_id)}, started {moment_text(session['started_ms'])}")
    print(f"its end, to {topic} with the key {printable(record.key)}:")
    print(printable(record.value))
    for name, content in record.headers:
        print(f"header {name}: {printable(content)}")
    if dry_run:
        print("nothing was sent")
        return
    if not confirm("Send it?", yes=yes):
        print("nothing was sent")
        raise typer.Exit(1)
    where = send(settings, topic, record, partition)
    print(f"sent to {where.topic}/{where.partition} offset {where.offset}")


def _active(process: RunningProcess, device: str) -> Answer:
    """Return what a process says of an active session.

    Raises NoSessionError if there is none, ConfigError for an id that cannot be asked for.
    """
    if not (0 < len(device) <= MAX_ID and is_utf8(device)):
        raise ConfigError(
            f"DEVICE: no device has such an id: give 1 to {MAX_ID} characters in UTF-8"
        )
    # A client that is between would take dots for a folder.
    answer = process.ask(f"/devices/{quote(device, safe='').replace('.', '%2E')}")
    if answer.value.get("device_id") != device or answer.status not in (FOUND, IDLE):
        raise process.refused(answer)
    if answer.status == IDLE:
        raise NoSessionError(f"no session is active on device {printable(device)}")
    return answer


def _text(key: str, value: Any) -> str:
    """Return a value as a person reads it."""
    if key.endswith("_ms"):
        return "-" if value is None else moment_text(value)
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    return printable(str(value))
