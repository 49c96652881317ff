"""What can go wrong that an operator must act on; bad input data is a value, never one of these."""


class HeartwheelError(Exception):
    """Base of every error that Heartwheel raises on purpose: one line that says what to do."""


class ConfigError(HeartwheelError):
    """A setting is missing, wrong, or contradicts what is stored: correct it and start again."""


class SnapshotError(HeartwheelError):
    """Stored state is lost or unreadable: put back a whole copy of the recovery directory."""
