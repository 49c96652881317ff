"""The log of a run on standard error: JSON lines, or text where a person looks on.

Everything that logs through Python comes out alike: Heartwheel, librdkafka (as `kafka`), the
libraries, and what Bytewax writes to standard output, which at the level debug is its own log. What
Rust says in a panic stays as it is, but for its backtrace: it must not get lost in a process that
dies.
"""

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import structlog
from bytewax.tracing import setup_tracing
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from dataflows.settings import Settings
from dataflows.settings_sources import TRACEBACK_VARIABLE
from dataflows.text import printable


def _logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose lines go through Python's own logging, with their fields."""
    wrapped: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return wrapped


log = _logger("heartwheel")
# When a wait is announced.
FIRST_WAIT_S, NEXT_WAIT_S = 1.0, 10.0
# How Bytewax's worker threads are named; Linux tells.
_THREAD = Path("/proc/thread-self/comm")
_WORKER = re.compile(r"timely:work-(\d+)")
# What has Rust show where in Bytewax a panic comes from, which tells an operator nothing.
_BACKTRACES = ("RUST_BACKTRACE", "RUST_LIB_BACKTRACE")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Time, level, thread, spans, module, file and line, text.
_BYTEWAX = re.compile(r"\S+ +(\w+) (\S+) .*?(bytewax::[\w:]+): [\w./]+:\d+: (.*)")


class _JsonLines(logging.StreamHandler):  # type: ignore[type-arg]
    """The handler while the log is JSON; a type of its own so that it can be told."""


def start_logs(settings: Settings, process: int | None = None) -> None:
    """Log to standard error from now on, as the settings say."""
    text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler() if text else _JsonLines()
    handler.setFormatter(_formatter(_text() if text else _json(), process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(True)
    if not text:
        sys.excepthook = _log_exception
        threading.excepthook = lambda failed: _log_exception(
            failed.exc_type, failed.exc_value, failed.exc_traceback
        )
    hide_backtraces()
    _bring_in_bytewax(traced=settings.log_level == "debug")


def hide_backtraces() -> None:
    """Have Rust show no backtrace of a panic from now on, unless one is wanted."""
    if not traceback_wanted():
        for name in _BACKTRACES:
            os.environ.pop(name, None)


def traceback_wanted() -> bool:
    """Say whether an error is to be shown with where in the code it comes from."""
    return os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0", "false")


def report_fatal(problem: str) -> None:
    """Say what ends the run: in the log if it is JSON, else as a line of its own.

    If that is asked for, the traceback of the error that is being handled comes first.
    """
    if sys.exc_info()[0] and traceback_wanted():
        traceback.print_exc()
    if any(isinstance(handler, _JsonLines) for handler in logging.getLogger().handlers):
        log.critical(problem)
    else:  # one line, also if it names a file or a key with a line break
        print(f"heartwheel: {printable(problem)}", file=sys.stderr, flush=True)


@contextmanager
def announced(text: str) -> Iterator[None]:
    """Announce what is entered if it takes longer than a second, and every 10 s as a warning."""
    done = threading.Event()

    def watch() -> None:
        wait_s, level = FIRST_WAIT_S, logging.INFO
        while not done.wait(wait_s):
            announce(text, level)
            wait_s, level = NEXT_WAIT_S, logging.WARNING

    threading.Thread(target=watch, name="announced", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def announce(text: str, level: int = logging.WARNING) -> None:
    """Say what is being waited for: in the log of a run, else as a line on standard error."""
    if logging.getLogger().handlers:
        log.log(level, text)
    else:
        print(f"heartwheel: {text}", file=sys.stderr, flush=True)


def _formatter(render: Iterable[Processor], process: int | None) -> ProcessorFormatter:
    def add_place(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Say which process, and which of its worker threads, if there is a choice."""
        if process is not None:
            event["process"] = process
        with suppress(OSError):  # not on Linux, or too many files are open
            if worker := _WORKER.match(_THREAD.read_text()):
                event.setdefault("worker", int(worker[1]))
        return event

    return ProcessorFormatter(
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            _split_kafka,
            add_place,
            ProcessorFormatter.remove_processors_meta,
            *render,
        ],
        pass_foreign_args=True,
    )


def _text() -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        _put_in_order,
        structlog.processors.JSONRenderer(),
    ]


def _put_in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put what every line has first, under the names that log collectors look for."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger")}
    return {**first, "message": event.pop("event"), **event}


def _split_kafka(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Give what librdkafka logs fields: which client, and about what."""
    arguments = event.pop("positional_args", None)
    if event["logger"] == "kafka" and arguments and len(arguments) == 3:  # noqa: PLR2004
        event["facility"], event["client"], event["event"] = arguments
    return event


def _log_exception(
    kind: type[BaseException], error: BaseException | None, at: TracebackType | None
) -> None:
    log.critical("unexpected error", exc_info=(kind, error, at))


def _bring_in_bytewax(*, traced: bool) -> None:
    """Log what Bytewax and timely write to standard output, which nothing else does in a run."""
    read_end, write_end = os.pipe()
    os.dup2(write_end, sys.stdout.fileno())
    os.close(write_end)
    tracer = setup_tracing(log_level="info") if traced else None  # type: ignore[no-untyped-call]
    threading.Thread(
        target=_log_lines, args=(read_end, tracer), name="bytewax lines", daemon=True
    ).start()


def _log_lines(read_end: int, _tracer: object) -> None:
    """Log the lines of a pipe; the tracer works for as long as it is kept."""
    lines = _logger("bytewax")
    with os.fdopen(read_end) as output:
        for line in output:
            text = _COLOUR.sub("", line).strip()
            if found := _BYTEWAX.fullmatch(text):
                level, thread, module, text = found.groups()
                worker = _WORKER.match(thread)
                place = {"worker": int(worker[1])} if worker else {}
                lines.log(logging.getLevelNamesMapping()[level], text, module=module, **place)
            elif text:
                lines.info(text)
