"""What an operator reads of errors that the rules, Bytewax or SQLite have found."""

import re
from pathlib import Path

from session_logic.errors import (
    RESTORE_COPY,
    ConfigError,
    HeartwheelError,
    SnapshotError,
    StateMismatchError,
)

# How Bytewax words what SQLite says.
_FAILURE = re.compile(r'SqliteFailure\(.*?Some\("(.*?)"\)')


class ClusterError(HeartwheelError):
    """Another process of the cluster is gone: all stop, and all must be started again."""


def lanes_mismatch(error: StateMismatchError) -> ConfigError:
    """Return the error for a store that was made for another number of lanes than is set."""
    return ConfigError(
        f"HEARTWHEEL_LANES is {error.wanted}, but the recovery store was made for {error.stored}; "
        f"set it back to {error.stored}, or move to {error.wanted} lanes with "
        f"`heartwheel store migrate --lanes {error.wanted}` and a new output topic"
    )


def unwrap_error(
    error: BaseException | None, recovery_dir: Path | None = None
) -> HeartwheelError | None:
    """Return the error of ours inside one of Bytewax's, or the one to tell in its place, or None.

    With a recovery directory, that is also what SQLite says of the store.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, HeartwheelError):
            return error
        if recovery_dir is not None and (failure := _FAILURE.search(str(error))):
            return SnapshotError(
                f"recovery store {recovery_dir} cannot be written ({failure[1]}); make room on "
                f"its disk, or {RESTORE_COPY}, and start again"
            )
        if type(error).__name__ == "PanicException":  # of the threads that talk to the others
            return ClusterError(
                "the connection to another process of the cluster is lost; start all of them "
                "again: they resume from the last snapshot"
            )
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
