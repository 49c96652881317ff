"""What a lane counts for those who look on: outcomes by platform, and heartbeats.

No rule looks at it, and nothing of it is stored. A platform may be a field of the events, so there
may be any number of them. Those that are known beforehand and the first few others are counted by
their names, and the rest together.
"""

from collections import defaultdict
from collections.abc import Iterable

# So many platforms that are found in events are counted by their names; the rest are OTHER.
MAX_FOUND = 20
OTHER = "other"


class PlatformNames(dict[str, str]):
    """The name by which each platform is counted, in all lanes that share it.

    A platform keeps its name, so what is counted up by it is counted down by it as well.
    """

    def __init__(self) -> None:
        """Begin with no name."""
        super().__init__()
        self._room = MAX_FOUND

    def know(self, platforms: Iterable[str]) -> None:
        """Give platforms their own names, whatever is found in events; before anything is counted.

        They take no room from those that are found.
        """
        for platform in platforms:
            self.setdefault(platform, platform)

    def __missing__(self, platform: str) -> str:
        if self._room <= 0:  # less where worker threads have taken the last place together
            return OTHER
        self._room -= 1
        self[platform] = platform
        return platform


class Counts:
    """How often each outcome came about on each platform, and how many heartbeats fell due."""

    def __init__(self, platforms: PlatformNames | None = None) -> None:
        """Count nothing yet."""
        self.platforms = PlatformNames() if platforms is None else platforms
        # No Counter: its entries are set by a slower way, because it can delete what is not there.
        self.outcomes: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.heartbeats = 0
        self.are_sent = False  # whether ends come about that an earlier run has sent of silence

    def add(self, outcome: str, platform: str) -> None:
        """Count an outcome."""
        if self.are_sent and outcome == "unknown_end":
            return  # silence has ended it here as well, and that was counted
        if self.are_sent and outcome == "ended":
            outcome = "went_silent"
        self.outcomes[outcome, self.platforms[platform]] += 1

    def clear(self) -> None:
        """Count from nothing again."""
        self.outcomes.clear()
        self.heartbeats = 0
