"""What an operator reads of errors that the rules, which know no settings, have found."""

from session_logic.errors import ConfigError, StateMismatchError


def lanes_mismatch(error: StateMismatchError) -> ConfigError:
    """Return the error for a store that was made for another number of lanes than is set."""
    return ConfigError(
        f"HEARTWHEEL_LANES is {error.wanted}, but the recovery store was made for {error.stored}; "
        f"set it back to {error.stored}, or move to {error.wanted} lanes with "
        f"`heartwheel store migrate --lanes {error.wanted}` and a new output topic"
    )
