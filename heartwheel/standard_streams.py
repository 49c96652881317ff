"""Standard input, output and error of a command, which may be closed, full, or read by nobody."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

# What a stream that is closed becomes: nothing can be read, writing data fails, and words are lost.
_MISSING = (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))


def prepare() -> None:
    """Open the streams that are closed; else the next file gets the number of one, and is written.

    What the terminal has no letters for is escaped, as on standard error: a path may have any
    bytes. To be called before any other file is opened.
    """
    for name, mode, flags in _MISSING:
        if getattr(sys, name) is None:
            number = os.open(os.devnull, flags)  # the lowest that is free
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def written_out() -> Iterator[None]:
    """Write out what is printed, also where that ends the process; raises OSError if it cannot be.

    Python would do so at its exit, and tell in its own words what is wrong.
    """
    try:
        yield
    finally:
        try:
            _write_out(sys.stdout)
        finally:
            with suppress(OSError):
                _write_out(sys.stderr)


def _write_out(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        # What is left in it is of no more use, but would be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise
