"""A file that a command makes: whole or not at all, and never in the place of another one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dataflows.errors import make_room
from session_logic.errors import ConfigError, HeartwheelError


class FileError(HeartwheelError):
    """The file cannot be written: make room for it."""


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Yield a file to write to, which appears at a path when it is complete.

    Raises ConfigError if there is one already and it is not to be replaced, or if none can be made,
    FileError if it cannot be written.
    """
    if overwrite and path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file; name one, or leave --output out")
    path = path.resolve()  # a link goes on naming what it names
    unfinished = path.with_name(f"{path.name}-unfinished-{os.getpid()}")
    try:
        if not overwrite:
            path.open("xb").close()  # it is ours from now on, and empty until all is there
        file = unfinished.open("xb")
    except FileExistsError:
        raise ConfigError(f"{path} exists: name another file, or give --overwrite") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}") from None
    try:
        with file:
            yield file
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if not overwrite:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            msg = f"{path} cannot be written ({error.strerror}); {make_room()}"
            raise FileError(msg) from None
        raise
