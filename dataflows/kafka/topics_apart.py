"""Topics of their own for some kinds of records: where lanes begin in them, and how they change.

What is guaranteed: a record that goes to another topic than before, because the settings have
changed, is neither lost nor in both. A snapshot names the topics to which all has gone that may be
beyond its offsets. So a run may have other topics only if nothing is beyond them: then all that it
makes is new. That is so after a clean stop. In any other case it is refused, before it has sent
anything, and a run with the topics of before finds what is there.

All lanes store that they have other topics before one of them sends anything (HOLD_EPOCHS). Else a
run that is killed then would leave lanes of both kinds, and none could follow it.

A topic that is left out is read no more, and may be deleted.
"""

from collections.abc import Collection

from dataflows.kafka.outbox import Outbox
from dataflows.kafka.reconcile import OutputReader, ReconcileError
from dataflows.settings import VARIABLES_APART, Settings
from session_logic.errors import ConfigError
from session_logic.events import Kind

NOT_SET = "not set"


class TopicsApart:
    """The topics apart of a run, for its lanes."""

    def __init__(self, settings: Settings, reader: OutputReader) -> None:
        """Ask Kafka by this reader."""
        self._settings = settings
        self._reader = reader

    def at_begin(self, lane: int) -> dict[Kind, Outbox]:
        """Return the outboxes of a lane that must know all that is in its partitions."""
        return {
            kind: Outbox(self._reader.bounds(topic, lane)[0], topic=topic)
            for kind, topic in self._settings.topics_apart.items()
        }

    def at_end(self, lane: int, kept: Collection[Kind] = ()) -> dict[Kind, Outbox]:
        """Return the outboxes of a lane that has written nothing there, but for kinds that it has.

        Raises ConfigError if its rows of the table would come between others.
        """
        boxes: dict[Kind, Outbox] = {}
        for kind, topic in self._settings.topics_apart.items():
            if kind in kept:
                continue
            end = self._reader.bounds(topic, lane)[1]
            if kind == "table" and end:
                msg = (
                    f"topic {topic} has had records, and a table begins with none: devices would "
                    "keep rows of before; give HEARTWHEEL_TABLE_TOPIC a new topic"
                )
                raise ConfigError(msg)
            boxes[kind] = Outbox(end, topic=topic)
        return boxes

    def go_over(self, lane: int, outbox: Outbox) -> bool:
        """Let a resumed lane have the topics of this run; say whether they are other ones.

        Raises ReconcileError if it may not.
        """
        now = self._settings.topics_apart
        if outbox.topics_apart == now:
            return False
        if refusal := self.refusal(lane, outbox):
            raise ReconcileError(refusal)
        kept = {kind: box for kind, box in outbox.apart.items() if box.topic == now.get(kind)}
        outbox.apart = self.at_end(lane, kept) | kept
        return True

    def refusal(self, lane: int, outbox: Outbox) -> str:
        """Return why a lane may not have the topics of this run, "" if it may.

        The run before may have more out than its snapshot knows.
        """
        before, now = outbox.topics_apart, self._settings.topics_apart
        if before == now or not (outbox.waits or self._has_more(lane, outbox)):
            return ""
        other = " and ".join(
            f"{variable} is {now.get(kind, NOT_SET)} and was {before.get(kind, NOT_SET)}"
            for kind, variable in VARIABLES_APART.items()
            if before.get(kind) != now.get(kind)
        )
        return (
            f"{other}, and the run before was not stopped cleanly: start it as it was, stop it "
            "with SIGTERM once it is ready, and change the topic then"
        )

    def _has_more(self, lane: int, outbox: Outbox) -> bool:
        """Say whether a partition of the lane has records beyond the offset that is stored."""
        known = {self._settings.output_topic: outbox.end_offset}
        known |= {box.topic: box.end_offset for box in outbox.apart.values()}
        there = self._reader.partition_counts(*known)
        return any(
            0 <= offset != self._reader.bounds(topic, lane)[1]
            for topic, offset in known.items()
            if topic in there
        )
