"""A start compares what it finds with what the store and the output topic last knew.

A store keeps the name of its output topic, and the topic has a sign of the store that writes to it
(see dataflows/kafka/owner.py). So a wrong store is noticed from either side before it sends
anything, and so is a store that has been lost.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dataflows.kafka.client import MakeConsumer, make_admin, make_consumer
from dataflows.kafka.gaps import input_fault, output_fault
from dataflows.kafka.input_topics import find_inputs
from dataflows.kafka.lane_topics import lane_topic_faults
from dataflows.kafka.lease import Lease
from dataflows.kafka.letter_offsets import LetterOffsets
from dataflows.kafka.outbox import Outbox
from dataflows.kafka.owner import Owner, OwnerSign, owner_in
from dataflows.kafka.reconcile import OutputReader, stray_fault
from dataflows.kafka.topics_apart import TopicsApart
from dataflows.settings import Settings
from heartwheel.store.identity import Identity, Layout, bind, note_begin, read_identity
from heartwheel.store.offsets import StoredOffsets
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.sinks import dead_letter_ends
from session_logic.errors import ConfigError

NEW_STORE = "--new-store (or HEARTWHEEL_NEW_STORE=true)"


class StartCheck:
    """Compares a store with the output topic of the settings."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        identity: Identity,
        make_consumer: MakeConsumer = make_consumer,
    ) -> None:
        """Look at the store; it must not change before the check."""
        self._settings = settings
        self._folder = folder
        self._identity = identity
        self._layout = Layout(settings.route, settings.own_shard)
        self._reader = OutputReader(settings, make_consumer)
        self._sign = OwnerSign(settings, make_consumer)
        self._letters = LetterOffsets(settings, dead_letter_ends(folder), make_consumer)
        self.owner = owner_in(folder, identity.id)
        self.generation, self.ancestors = identity.generation, frozenset(identity.ancestors)
        with Recovery(folder) as recovery:
            self._offsets = StoredOffsets(recovery)

    def begin(self, lease: Lease | None) -> None:
        """Let the store have the output topic, and each of the two know the other.

        Other processes learn from where on they read the dead letters.

        With a lease, that is checked once no other run can write. Raises ConfigError for what a
        start must not pass over, FencedError as `Lease.acquire` does.
        """
        if lease is not None:
            lease.acquire(self.check)
        else:
            self.check()
            self._sign.write(self.owner)
        bind(self._folder, self._identity, self._settings.output_topic, self._layout)
        note_begin(self._folder)
        self._letters.share()

    def check(self) -> None:
        """Raise ConfigError for what a start must not pass over, or if Kafka does not answer."""
        for fault in self.faults():
            raise ConfigError(fault)

    def faults(self) -> Iterator[str]:
        """Yield a line for each thing because of which a run would not start."""
        found = list(self._of_owner())
        yield from found
        if found:
            return  # the offsets are those of another topic, or of another store
        settings, offsets, reader = self._settings, self._offsets, self._reader
        yield from (input_fault(gap) for _, gap in offsets.input_gaps(settings, reader))
        gaps = offsets.output_gaps(settings, reader)
        yield from (output_fault(gap) for _, gap in gaps)
        if not gaps:
            yield from self._of_topics_apart()

    def lane_topics(self) -> Iterator[str]:
        """Yield a line for each topic of the output that does not fit the lanes.

        A run finds them when it opens its output.
        """
        counts = self._reader.partition_counts()
        yield from lane_topic_faults(self._settings, counts, begun=bool(self._offsets.outputs))

    def other_topics(self) -> Iterator[str]:
        """Yield a line for each input topic that is not the one that was read.

        A run finds them when it opens its input.
        """
        found = find_inputs(make_admin(self._settings), self._settings)
        yield from self._offsets.other_topics(found)

    def strays(self) -> Iterator[str]:
        """Yield a line for each partition with records of somebody else.

        A run finds them when it reads its output. No output partition may have a gap.
        """
        for output, strays in self._offsets.strays(self._settings, self._reader):
            yield stray_fault(output.topic(self._settings), output.lane, strays.first)

    def _of_topics_apart(self) -> Iterator[str]:
        """Yield why lanes may not have the topics of this run; one line does for all of them."""
        apart = TopicsApart(self._settings, self._reader)
        refusals = (
            apart.refusal(one.lane, Outbox.of_stored(one.stored))
            for one in self._offsets.outputs
            if one.kind is None and one.lane < self._settings.lanes
        )
        yield from islice(filter(None, refusals), 1)

    def _of_owner(self) -> Iterator[str]:
        topic, bound = self._settings.output_topic, self._identity.output_topic
        if bound not in ("", topic):
            yield (
                f"HEARTWHEEL_OUTPUT_TOPIC is {topic}, but {self.owner} writes to {bound}; set it "
                "back, use the directory that belongs to it, or go on in the other topic after "
                "`heartwheel store skip`"
            )
            return
        stored = self._identity.layout
        if stored != self._layout and (bound or self._offsets.has_lanes):
            yield (
                f"HEARTWHEEL_ROUTE and HEARTWHEEL_SHARD say {self._layout}, but {self.owner} has "
                f"{stored}: set them back, or use a directory of its own for each"
            )
            return
        if not self._settings.new_store:
            found = self._sign.read()
            if found is None or found.id not in {self.owner.id, *self.ancestors}:
                yield from self._of_another(found)

    def _of_another(self, found: Owner | None) -> Iterator[str]:
        """Yield why this store may not write to a topic that does not have its sign."""
        topic = self._settings.output_topic
        named = found is not None and found.id != ""
        if self._offsets.outputs:  # a lane is there once it may have sent something
            # Kafka has forgotten the sign, or a version without one has left it.
            if named:
                yield (
                    f"output topic {topic} was last written by {found}, not by {self.owner}: use "
                    f"the directory of that store, or let this one go on there with {NEW_STORE}"
                )
        elif any(self._reader.bounds(topic, lane)[1] for lane in self._settings.own_lanes):
            whose = found or "a store that Kafka has forgotten"
            yield (
                f"output topic {topic} was written by {whose}, and {self.owner} has written none "
                "of it: correct HEARTWHEEL_RECOVERY_DIR, or restore a copy of that store; "
                f"{NEW_STORE} reads all input and sends its output again"
            )


def topic_faults(settings: Settings, folder: Path) -> Iterator[str]:
    """Yield because of what in the topics a run with the store in a directory would not start.

    Changes nothing. Raises ConfigError, ReconcileError or SourceError if Kafka does not answer.
    """
    with Recovery(folder) as recovery:
        identity = read_identity(recovery)
    check = StartCheck(settings, folder, identity or Identity(""))
    # Without a partition for each lane there is nothing to compare the store with.
    found = [*check.lane_topics()] or [*check.faults(), *check.other_topics()]
    yield from found
    if not found:
        yield from check.strays()
