"""Which sessions are wanted: by platform, and by what they carry."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Self

import msgspec
from msgspec import Raw, Struct

from session_logic.errors import ConfigError
from session_logic.rules import CarryingSession, Session

CONTEXT = "context."
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_value = msgspec.json.Decoder().decode


class ChoiceError(ConfigError):
    """A choice names something that sessions do not have: correct it."""


class Choice(Struct, frozen=True):
    """What a session must have, by name; of several values under a name it may have any.

    Text that is carried is compared as text, anything else as it stands in JSON: `7`, `true`.
    """

    platforms: frozenset[str] = frozenset()
    carried: dict[str, set[str]] = {}

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """Return the choice in pairs such as platform and pc, or context.account and x.

        Raises ChoiceError for any other name.
        """
        platforms: set[str] = set()
        carried: defaultdict[str, set[str]] = defaultdict(set)
        for name, value in pairs:
            if name == "platform":
                platforms.add(value)
            elif name.startswith(CONTEXT) and name != CONTEXT:
                carried[name.removeprefix(CONTEXT)].add(value)
            else:
                raise ChoiceError(
                    f"sessions cannot be chosen by {name!r}: write platform=pc, or "
                    f"{CONTEXT}NAME=VALUE for what they carry"
                )
        return cls(frozenset(platforms), dict(carried))

    def takes(self, session: Session) -> bool:
        """Say whether a session has all that it must have."""
        if self.platforms and session.platform not in self.platforms:
            return False
        return not self.carried or self._carries(session)

    def _carries(self, session: Session) -> bool:
        if not isinstance(session, CarryingSession) or not session.context:
            return False
        members = _members(session.context)
        return all(
            name in members and _text(members[name]) in wanted
            for name, wanted in self.carried.items()
        )


def _text(raw: Raw) -> str:
    """Return a carried value as it is asked for."""
    data = bytes(raw)
    return str(_value(data)) if data.startswith(b'"') else data.decode()
