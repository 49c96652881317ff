"""The page about presence has the set-ups that are shown."""

from heartwheel.presence import SET_UPS
from tests.support.pages import page


def test_set_ups_of_the_demonstration_are_those_of_the_page() -> None:
    """What it runs with can be copied, but for the timeouts."""
    assert page("presence.md").blocks("toml") == [one.settings for one in SET_UPS.values()]
