"""Three set-ups in which silence ends sessions, as tables; docs/presence.md tells of them."""

import re

from msgspec import Struct

from heartwheel.fleet import Names


class SetUp(Struct, frozen=True):
    """The settings of a set-up, what its devices are called, and its timeout in a demonstration."""

    settings: str
    names: Names
    shown_timeout_ms: int

    def shown(self) -> str:
        """Return the settings with a timeout that one can wait for."""
        return re.sub(
            r"idle_timeout_ms = \S+", f"idle_timeout_ms = {self.shown_timeout_ms}", self.settings
        )


SET_UPS = {
    "iot": SetUp(
        """\
input_topics = {}

[inputs.mqtt-presence]
platform = {field = "site"}
type = "event"
start = "connected"
end = ["disconnected", "takenover"]
ping = "alive"
device = "clientid"
session = "connection"
time = "ts"
time_unit = "ms"
idle_timeout_ms = 90_000
""",
        Names("meter-{}".format, "{}".format),
        12_000,
    ),
    "web": SetUp(
        """\
input_topics = {}
heartbeat_ms = 0
max_session_ms = 86_400_000

[inputs.page-views]
platform = "web"
device = "visitor"
time = "at"
carry = {landing_page = "url"}
idle_timeout_ms = 1_800_000
open_on_ping = true
""",
        Names("visitor-{}".format),
        8_000,
    ),
    "machines": SetUp(
        """\
input_topics = {}

[inputs.machine-reports]
platform = "machine"
device = "key"
carry = {line = "header:line"}
idle_timeout_ms = 25_000
open_on_ping = true
""",
        Names("press-{}".format),
        12_000,
    ),
}
