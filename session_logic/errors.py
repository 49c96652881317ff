"""What can go wrong that an operator must act on; bad input data is a value, never one of these.

HeartwheelError
|-- ConfigError      a setting is wrong
|   `-- StateMismatchError  a setting contradicts the stored state
`-- SnapshotError    stored state is lost or unreadable
"""

RESTORE_COPY = "restore an intact copy of the recovery directory"


class HeartwheelError(Exception):
    """Base of every error that Heartwheel raises on purpose: one line that says what to do."""


class ConfigError(HeartwheelError):
    """A setting is missing, wrong, or contradicts what is stored: correct it and start again."""


class StateMismatchError(ConfigError):
    """The state was stored for another number of lanes: use that number, or migrate the state."""

    def __init__(self, stored: int, wanted: int) -> None:
        """Say how many lanes the state was stored for, and how many are wanted."""
        super().__init__(f"the recovery store was made for {stored} lanes, not {wanted}")
        self.stored = stored
        self.wanted = wanted


class SnapshotError(HeartwheelError):
    """Stored state is lost or unreadable: restore an intact copy of the recovery directory."""


def check_version(what: str, found: int, known: int) -> None:
    """Raise SnapshotError if what was stored has a newer version than this program knows."""
    if found > known:
        msg = (
            f"{what}: version {found} is newer than this program knows ({known}); run the version "
            "of Heartwheel that wrote it, or a later one"
        )
        raise SnapshotError(msg)
