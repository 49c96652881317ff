"""The version of this program."""

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """Return the version that is installed."""
    try:
        return version("heartwheel")
    except PackageNotFoundError:
        return "not installed"
