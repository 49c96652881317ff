"""What an operator accepts as lost, so that a store can go on with its sessions.

A start is refused where input or output is not there from the stored offset on. Here that offset
is set behind what is missing. Nothing else of the store changes, and a note about it stays there.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from msgspec import Struct

from dataflows.kafka.client import MakeConsumer, make_consumer
from dataflows.kafka.gaps import Gap, expired_unread
from dataflows.kafka.reconcile import OutputReader
from dataflows.settings import Settings
from heartwheel.store.identity import note_down, read_identity, unbind
from heartwheel.store.offsets import Output, StoredOffsets
from heartwheel.store.part_file import Entry
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError


class Skip(Struct, frozen=True):
    """A stored value to replace, by what, and what that means, in words.

    One value may be replaced twice, so the new one is made of what is there then.
    """

    entry: Entry
    value: Callable[[], Any]
    text: str


class Skipping:
    """What is missing for a store, and how it goes on without it.

    Input topics in anew were made anew, and are read from their beginning. to gives offsets by
    topic/partition that are skipped to, whatever is there.
    """

    def __init__(
        self,
        settings: Settings,
        recovery: Recovery,
        *,
        anew: Iterable[str] = (),
        to: dict[str, int] | None = None,
        make_consumer: MakeConsumer = make_consumer,
    ) -> None:
        """Look at a store that is open alone; raises SnapshotError if it is damaged."""
        recovery.check_values()
        self._settings = settings
        self._recovery = recovery
        self._anew = set(anew)
        self._to = to or {}
        self._reader = OutputReader(settings, make_consumer)
        self._offsets = StoredOffsets(recovery)
        identity = read_identity(recovery)
        self._bound = "" if identity is None else identity.output_topic
        self._check()

    def _check(self) -> None:
        places = {one.entry.key for one in self._offsets.inputs}
        places |= {self._name(one) for one in self._offsets.outputs}
        topics = {one.topic for one in self._offsets.inputs}
        for name, known in [(n, places) for n in self._to] + [(n, topics) for n in self._anew]:
            if name not in known:
                has = ", ".join(sorted(known)) or "none: no run has taken a snapshot there yet"
                msg = f"{self._recovery.folder} has no offset of {name}; it has {has}"
                raise ConfigError(msg)

    def find(self) -> Iterator[Skip]:
        """Yield what must be skipped, partition by partition."""
        yield from self._inputs()
        if self._moves:
            yield from self._outputs_elsewhere()
            return
        gaps = self._offsets.output_gaps(self._settings, self._reader)
        for output, gap in gaps:
            yield self._output(output, gap.next, _output_text(gap))
        given = [one for one in self._offsets.outputs if self._given(one) is not None]
        for one in given:
            offset = self._given(one) or 0
            text = f"output {self._name(one)} is not read before offset {offset}"
            yield self._output(one, offset, text)
        if not gaps and not given:
            yield from self._strays()

    @property
    def _moves(self) -> bool:
        """Whether the output goes on in another topic than it was in."""
        return self._bound not in ("", self._settings.output_topic)

    def _name(self, output: Output) -> str:
        return f"{output.topic(self._settings)}/{output.lane}"

    def _given(self, output: Output) -> int | None:
        return self._to.get(self._name(output))

    def _inputs(self) -> Iterator[Skip]:
        settings, offsets, reader = self._settings, self._offsets, self._reader
        gaps = {one.entry.key: gap for one, gap in offsets.input_gaps(settings, reader)}
        counts = reader.partition_counts() if self._anew else {}
        for one in offsets.inputs:
            key, offset = one.entry.key, self._to.get(one.entry.key)
            if offset is not None:
                begin = max(0, one.offset)
                text = (
                    f"input {key} is read again from offset {offset} on, which is before {begin}"
                    if offset < begin
                    else f"input {key}: from offset {begin} to {offset - 1} nothing is read"
                )
                yield Skip(one.entry, partial(int, offset), text)
            elif one.topic in self._anew and one.partition < counts.get(one.topic, 0):
                low = reader.bounds(one.topic, one.partition)[0]
                text = f"input {key} is read from its beginning, offset {low}"
                yield Skip(one.entry, partial(int, low), text)
            elif key in gaps:
                yield Skip(one.entry, partial(int, gaps[key].next), _input_text(gaps[key]))

    def _outputs_elsewhere(self) -> Iterator[Skip]:
        for one in self._offsets.outputs:
            if one.kind is not None:
                continue
            end = self._reader.bounds(self._settings.output_topic, one.lane)[1]
            text = (
                f"output of lane {one.lane} goes on in {self._name(one)} at offset {end}; "
                f"{self._bound} keeps what it has"
            )
            if one.stored.keys:
                text += f", and {len(one.stored.keys)} records may be in both"
            yield self._output(one, end, text)

    def _strays(self) -> Iterator[Skip]:
        for output, strays in self._offsets.strays(self._settings, self._reader):
            text = (
                f"output {self._name(output)}: {strays.count} records that are not Heartwheel's "
                f"stay there and are passed over, from offset {strays.first} to {strays.last}"
            )
            yield self._output(output, output.offset, text, strays.last + 1)

    @staticmethod
    def _output(output: Output, offset: int, text: str, strays_before: int = 0) -> Skip:
        return Skip(output.entry, partial(output.moved, offset, strays_before), text)

    def apply(self, skips: list[Skip]) -> None:
        """Change the store, and note down in it what was skipped."""
        for skip in skips:
            skip.entry.replace(skip.value())
            note_down(self._recovery, skip.text)
        if self._moves:
            unbind(self._recovery)
        self._recovery.commit()


def _input_text(gap: Gap) -> str:
    if gap.expired:
        return (
            f"input {gap.where}: {expired_unread(gap)}; a session whose end was among them times "
            "out, and one whose start was among them is missing"
        )
    return (
        f"input {gap.where} is read on at its end, offset {gap.high}; if the topic was made anew, "
        f"give --anew {gap.topic}"
    )


def _output_text(gap: Gap) -> str:
    if gap.expired:
        return (
            f"output {gap.where}: what a killed run has written there has expired unknown "
            f"({gap.missing}); as many records may come twice"
        )
    return (
        f"output {gap.where}: records are gone from the topic, and are not sent again "
        f"({gap.missing})"
    )
