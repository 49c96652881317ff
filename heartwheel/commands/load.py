"""`heartwheel load`: the fleet simulator against any broker."""

import os
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from heartwheel.commands.shared import ConfigOption, duration_ms
from session_logic.errors import ConfigError, HeartwheelError

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from heartwheel.fleet import Fleet, Mix

SLICE_S = 0.02
LINE_S = 2.0  # between the plain lines that are shown without a terminal
# From here on the line says it: the machine or Kafka is too slow for the rate.
BEHIND_S = 0.5
FLUSH_S = 30


class LoadError(HeartwheelError):
    """Kafka has not accepted some of the events: see the message."""


class _Asked:
    """Whether Ctrl-C or SIGTERM has asked for the end; the second time it ends at once."""

    def __init__(self) -> None:
        self.stop = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True


def load_command(
    devices: Annotated[int, typer.Option(help="How many devices there are.", min=1)] = 1_000,
    rate: Annotated[float, typer.Option(help="Events per second.", min=0.1, max=1_000_000)] = 100.0,
    seconds: Annotated[
        float, typer.Option(help="End after this many seconds; 0: at Ctrl-C.", min=0)
    ] = 60.0,
    churn: Annotated[
        float,
        typer.Option(
            help="Share of the devices whose sessions end and begin again; the others begin one "
            "and keep it.",
            min=0,
            max=1,
        ),
    ] = 0.75,
    skew: Annotated[
        float,
        typer.Option(
            help="0: all devices equally active; higher: activity concentrates on fewer devices.",
            min=0,
        ),
    ] = 0.0,
    late: Annotated[
        float,
        typer.Option(
            help="Share of events with a timestamp in the past, by up to --late-by.", min=0, max=1
        ),
    ] = 0.0,
    late_by: Annotated[str, typer.Option(help="How late at most: 30s, 5m.")] = "60s",
    duplicates: Annotated[
        float, typer.Option(help="Share of events that repeat one just sent.", min=0, max=1)
    ] = 0.0,
    bad: Annotated[
        float, typer.Option(help="Share of records that are no valid events.", min=0, max=1)
    ] = 0.02,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same devices in the same order.")
    ] = 1,
    config: ConfigOption = None,
) -> None:
    """Send the events of a simulated fleet to the input topics of the settings.

    Open loop: each event has its planned moment, whatever Kafka does. If the load falls behind its
    plan, it sends as fast as it can, and the summary says how far behind it was. Ctrl-C ends the
    load with the summary. Exit code 1 if Kafka has not acknowledged every event.

    They are real records, some of them faulty on purpose: do not send them to topics in use.

    A topic that has an input table gets events as the table describes them.

    In topics with LogAppendTime the broker timestamps the events: then none is late, unless an
    input table has their time in a field.
    """
    from heartwheel.fleet import Mix

    settings = load_settings(os.environ, config)
    if bad + duplicates > 1:
        raise ConfigError(f"--bad {bad:g} and --duplicates {duplicates:g} are more than 1 together")
    late_ms = duration_ms("--late-by", late_by)
    if late_ms < 0:
        raise ConfigError(f"--late-by {late_by}: write it as 30s or 5m")
    mix = Mix(
        devices=devices,
        churn=churn,
        skew=skew,
        late=late,
        late_ms=late_ms,
        duplicates=duplicates,
        bad=bad,
    )
    _run(settings, mix, seed, rate, seconds)


def _run(settings: Settings, mix: "Mix", seed: int, rate: float, seconds: float) -> None:
    from dataflows.kafka.client import make_producer, producer_options
    from heartwheel.event_writer import writers_of
    from heartwheel.fleet import Fleet, Names

    writers = writers_of(settings)
    options = producer_options(
        settings,
        defaults={
            "linger.ms": "5",
            "compression.type": "lz4",
            "message.timeout.ms": str(FLUSH_S * 1000),
        },
    )
    producer = make_producer(options)
    _check(producer, settings, mix)
    begin_s = time.time()
    # Two loads with the same seed must not have the same session ids.
    names = Names(session=f"session-{int(begin_s):x}-{{}}".format)
    fleet = Fleet(producer, writers, mix, seed, names)
    asked = _Asked()
    behind_s, took_s = _send(fleet, asked, rate, seconds)
    left = producer.flush(FLUSH_S)
    a_second = fleet.sent / max(took_s, SLICE_S)
    print(
        f"{fleet.sent} events in {took_s:.1f} s ({a_second:.0f} a second), "
        f"{fleet.sessions} sessions open, at most {behind_s:.2f} s behind the plan"
    )
    if left or fleet.failed:
        cause = f": {fleet.failure.str()}" if fleet.failure else ""
        msg = (
            f"Kafka at {settings.bootstrap_servers} has not acknowledged {left + fleet.failed} of "
            f"{fleet.sent} events{cause}; check the broker, then start the load again"
        )
        raise LoadError(msg)


def _check(producer: "Producer", settings: Settings, mix: "Mix") -> None:
    """Raise ConfigError if an input topic is missing; warn if no event can be late."""
    from dataflows.kafka.metadata import describe
    from heartwheel.kafka.topics import Topics

    found = describe(producer, settings).topics
    missing = [topic for topic in settings.all_input_topics if topic not in found]
    if missing:
        msg = (
            f"input topic {', '.join(missing)} does not exist on {settings.bootstrap_servers}, or "
            "this user may not see it; create it with `heartwheel topics create`"
        )
        raise ConfigError(msg)
    stamped = [topic for topic, table in settings.inputs.items() if not table.time]
    for topic in (*settings.input_topics, *stamped) if mix.late else ():
        state = Topics(settings).state(topic)
        if state is not None and state.timestamps == "append":
            print(f"{topic} has LogAppendTime: none of its events will be late")


def _send(fleet: "Fleet", asked: _Asked, rate: float, seconds: float) -> tuple[float, float]:
    """Send what is planned; return how far behind it was at most, and how long it took, in s."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    begin_s = last_line_s = time.monotonic()
    planned, behind_s = 0, 0.0
    end_s = begin_s + seconds if seconds else float("inf")
    with Progress(*columns, transient=True) as progress:
        progress.disable = not progress.console.is_terminal
        task = progress.add_task("", total=seconds or None)
        slice_ = 0
        while not asked.stop and begin_s + slice_ * SLICE_S < end_s:
            slice_ += 1
            due_s = begin_s + slice_ * SLICE_S
            time.sleep(max(0, due_s - time.monotonic()))
            due = round(slice_ * SLICE_S * rate)
            fleet.step(due - planned, lambda: asked.stop)
            planned = due
            now_s = time.monotonic()
            behind_s = max(behind_s, now_s - due_s)
            line = _line(fleet, now_s - begin_s, now_s - due_s)
            progress.update(task, completed=now_s - begin_s, description=line)
            if progress.disable and now_s - last_line_s >= LINE_S:
                last_line_s = now_s
                print(line, flush=True)
    return behind_s, time.monotonic() - begin_s


def _line(fleet: "Fleet", passed_s: float, behind_s: float) -> str:
    behind = f", {behind_s:.1f} s behind the plan" if behind_s > BEHIND_S else ""
    return (
        f"{fleet.sent} events ({fleet.sent / passed_s:.0f} a second), "
        f"{fleet.sessions} sessions open{behind}"
    )
