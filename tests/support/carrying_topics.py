"""Events of a shape of their own with fields to carry: the table, what is sent, and as facts."""

import json
from collections.abc import Iterator, Mapping

from session_logic.events import Fact
from tests.support.cluster import Cluster
from tests.support.topic import messages

TABLE = """
[inputs.{topic}]
platform = "{platform}"
type = "kind"
start = "start"
end = "end"
device = "device"
session = "session"
carry = {{account = "account", title = "title"}}
end_carry = {{seconds = "seconds"}}
"""


class CarryingTopics(Cluster):
    """Topics with a table each; sessions are numbers, and their events carry fields."""

    def describe(self) -> None:
        """Let runs read the topics by their tables."""
        config = self.folder / "heartwheel.toml"
        tables = [TABLE.format(topic=name, platform=self.inputs[name]) for name in self.inputs]
        config.write_text("".join(tables))
        del self.variables["HEARTWHEEL_INPUT_TOPICS"]
        self.variables["HEARTWHEEL_CONFIG"] = str(config)

    def send(self, kind: str, device: str, session: str, time_ms: int = 0) -> None:
        """Send an event, to the console topic for devices that begin with c."""
        number = int(session.removeprefix("s"))
        fields = f'"seconds":{number % 90}.50'
        if kind == "Start":
            fields = f'"account":"a{number % 1_000}","title":{{"id":{number % 7}.50}}'
        value = f'{{"kind":"{kind.lower()}","device":"{device}","session":{number},{fields}}}'
        self.send_raw(value.encode(), device, time_ms)


def carrying_facts(address: str, inputs: Mapping[str, str], **_tables: object) -> Iterator[Fact]:
    """Yield the facts of input topics (topic -> platform), read in another way than runs do.

    So their tables are not looked at.
    """
    for topic, platform in inputs.items():
        for message in messages(address, topic):
            value = message.value() or b""
            event = json.loads(value)
            is_start = event["kind"] == "start"
            carried = value[value.index(b'"account"' if is_start else b'"seconds"') : -1]
            yield Fact(
                is_start,
                event["device"],
                str(event["session"]),
                platform,
                message.timestamp()[1],
                carried=carried,
            )
