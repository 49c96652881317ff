"""The records of a lane on their way: acknowledged, waiting, found again after a crash."""

import pytest
from msgspec import UNSET, Raw
from msgspec.structs import replace

from dataflows.formats import APART_VERSION, SINK_VERSION, STRAYS_VERSION
from dataflows.kafka.already_written import AlreadyWritten
from dataflows.kafka.outbox import Outbox
from session_logic.codec import encode_output
from session_logic.errors import SnapshotError
from session_logic.events import EndIfOpen, OutputEvent, SessionEnd
from session_logic.output import OutputBatch, batch_with
from session_logic.summary import end_of, summary_of
from tests.support.clocks import T
from tests.support.events import decoded
from tests.support.output_records import BEAT_MS, active, batch, beat


def written(*events: OutputEvent) -> AlreadyWritten:
    """Return what was found in a partition."""
    found = AlreadyWritten()
    for event in events:
        found.add(event)
    return found


def resumed(*waiting: OutputEvent, end_offset: int = 10) -> Outbox:
    """Return an outbox as a resume makes it, with records in its snapshot."""
    records = batch(*waiting)
    return Outbox.of_state(0, (SINK_VERSION, end_offset, records.keys, records.values))


def test_acknowledged_records_leave_the_snapshot_and_move_its_offset() -> None:
    """An acknowledgement of the last record of a batch is one of all before it."""
    outbox = Outbox(7)
    first, second = batch(active(), beat(1)), batch(beat(2))
    assert (outbox.send(first), outbox.send(second)) == (8, 9)
    assert outbox.state() == (SINK_VERSION, 7, ["d"] * 3, first.values + second.values)
    assert outbox.acknowledge(8, 8)
    assert outbox.state() == (SINK_VERSION, 9, ["d"], second.values)
    assert outbox.acknowledge(9, 9)
    assert outbox.state() == (SINK_VERSION, 10, [], [])


@pytest.mark.parametrize("offset", [7, 9])
def test_acknowledgement_with_another_offset_is_told(offset: int) -> None:
    """A record was lost, or somebody else writes to the partition."""
    outbox = Outbox(7)
    assert outbox.send(batch(active(), beat(1))) == 8
    assert not outbox.acknowledge(8, offset)


def test_held_records_are_in_the_snapshot_and_released_in_order() -> None:
    """A new lane's first records wait until its start offset is stored."""
    outbox = Outbox(0)
    outbox.hold(batch(active()))
    outbox.hold(batch(beat(1)))
    assert outbox.state()[1:3] == (0, ["d", "d"])
    assert decoded(outbox.release()) == [active(), beat(1)]
    assert outbox.state() == (SINK_VERSION, 0, [], [])
    assert not outbox.release()


def test_records_that_are_held_come_after_those_on_their_way_in_the_snapshot() -> None:
    """A lane that has sent may have to hold what comes next."""
    outbox = Outbox(0)
    outbox.send(batch(active()))
    outbox.hold(batch(beat(1)))
    assert outbox.stored().values == batch(active(), beat(1)).values


def test_ends_for_silence_are_told_by_records_and_summaries() -> None:
    """Not other ends, nor a summary that is known to be there and not read."""
    written = AlreadyWritten()
    times_ms = T, T + 9_000, "went_silent", 4_000, UNSET, T + 4_000
    silent = SessionEnd("d", "s", "pc", *times_ms)  # type: ignore[arg-type]
    written.add(silent)
    written.add(end_of(summary_of(replace(silent, device_id="e"))), apart=True)
    written.add(replace(silent, device_id="f", reason="ended", last_seen_ms=UNSET))
    written.note_summary(replace(silent, device_id="g"))
    assert written.silent_ends() == {(one, "s", T): T + 9_000 for one in "de"}


def test_snapshot_without_anything_found_sends_what_waited() -> None:
    """The crashed run had enqueued it, and nothing of it arrived."""
    outbox = resumed(active(), beat(1))
    assert decoded(outbox.reconcile(10, written())) == [active(), beat(1)]
    assert outbox.send(batch(beat(2))) == 10


def test_record_in_the_snapshot_and_in_the_topic_is_not_sent_again() -> None:
    """What arrived is a prefix of what was enqueued."""
    outbox = resumed(active(), beat(1), beat(2))
    assert decoded(outbox.reconcile(12, written(active(), beat(1)))) == [beat(2)]
    assert outbox.send(batch(beat(2))) == 12


def test_record_only_in_the_topic_is_not_sent_when_it_is_made_again() -> None:
    """The crashed run made it after its last snapshot."""
    outbox = resumed()
    assert not outbox.reconcile(12, written(active(), beat(1)))
    assert not outbox.admit(batch(active()))
    assert decoded(outbox.admit(batch(beat(1), beat(2), active("other")))) == [
        beat(2),
        active("other"),
    ]


def test_record_before_one_that_was_found_is_not_sent() -> None:
    """The crashed run skipped it, and now it would be out of order."""
    outbox = resumed()
    outbox.reconcile(11, written(beat(3)))
    assert decoded(outbox.admit(batch(beat(2), beat(3), beat(4)))) == [beat(4)]


def test_session_with_the_same_id_after_an_end_is_another_one() -> None:
    """Its start tells them apart."""
    outbox = resumed()
    outbox.reconcile(11, written(beat(3)))
    again = active(started_ms=T + 90_001)
    assert decoded(outbox.admit(batch(again))) == [again]


def ignored(device: str = "d") -> OutputBatch:
    """Return a batch with the end for a session of which the start was ignored."""
    records = OutputBatch()
    records.add(EndIfOpen(device, "s", "pc", T, T, "replaced", 0), b"")
    return records


def test_session_that_was_found_and_is_ignored_now_ends_after_its_last_heartbeat() -> None:
    """Input of two partitions came in another order: nothing else would ever end it."""
    outbox = resumed()
    outbox.reconcile(12, written(active(), beat(1)))
    end = SessionEnd("d", "s", "pc", T, T + BEAT_MS, "replaced", BEAT_MS)
    assert decoded(outbox.admit(ignored())) == [end]
    assert not outbox.admit(ignored())


def test_end_that_is_moved_after_a_heartbeat_keeps_the_context_as_it_was() -> None:
    """It is encoded again, and neither a space nor a zero of what is carried may change."""
    outbox, context = resumed(), Raw(b'{"title": 1.50}')
    carrying = [replace(event, context=context) for event in (active(), beat(1))]
    outbox.reconcile(12, written(*carrying))
    end = SessionEnd("d", "s", "pc", T, T + 1, "ended", 1, context)
    (value,) = outbox.admit(batch(end)).values
    assert value.endswith(b'"duration_ms":%d,"context":{"title": 1.50}}' % BEAT_MS)


def test_session_that_is_ignored_now_ends_with_the_context_that_it_had() -> None:
    """The start that is ignored carries what the one did by which it was announced."""
    outbox, context = resumed(), Raw(b'{"title": 1.50}')
    outbox.reconcile(11, written(replace(active(), context=context)))
    records = OutputBatch()
    records.add(EndIfOpen("d", "s", "pc", T, T, "replaced", 0, context), b"")
    end = SessionEnd("d", "s", "pc", T, T, "replaced", 0, context)
    assert decoded(outbox.admit(records)) == [end]


def test_session_that_was_not_found_or_has_its_end_gets_none_from_an_ignored_start() -> None:
    """A repeated start is no end, and no session has two."""
    outbox = resumed()
    outbox.reconcile(12, written(active(), SessionEnd("d", "s", "pc", T, T, "ended", 0)))
    assert not outbox.admit(ignored())
    assert not outbox.admit(ignored("other"))


def test_stored_offset_stays_until_all_that_was_found_is_made_again() -> None:
    """After a second crash the same records must be found."""
    outbox = resumed(end_offset=10)
    outbox.reconcile(12, written(active(), beat(1)))
    outbox.send(outbox.admit(batch(active("other"))))
    assert outbox.acknowledge(12, 12)
    assert outbox.state()[1] == 10
    outbox.admit(batch(complete_up_to_ms=beat(1).time_ms - 1))
    assert outbox.state()[1] == 10
    outbox.admit(batch(complete_up_to_ms=beat(1).time_ms))
    assert outbox.state()[1] == 13


def test_accepted_strays_are_stored_until_the_offset_is_behind_them() -> None:
    """After another crash they are met again; then the state is one that earlier programs read."""
    state = (STRAYS_VERSION, 4, ["d"], [b"value"], 7)
    outbox = Outbox.of_state(0, state)
    assert outbox.state() == state
    outbox.reconcile(8, AlreadyWritten())
    assert outbox.state() == (SINK_VERSION, 8, [], [])


def test_batch_is_given_back_as_it_is_once_nothing_is_to_be_found() -> None:
    """The hot path decodes nothing."""
    records = OutputBatch(["d"], [b"no json"])
    assert Outbox(0).admit(records) is records


@pytest.mark.parametrize("state", [(), (2, None, [], []), (2, 0), ("x", 0, [], [])])
def test_unreadable_state_is_one_line_with_the_lane(state: tuple[object, ...]) -> None:
    """The line says what to do."""
    with pytest.raises(SnapshotError, match=r"sink of lane 3 cannot be read .*; restore an intact"):
        Outbox.of_state(3, state)


def test_state_of_version_1_has_an_offset_and_no_records() -> None:
    """It waited for every acknowledgement."""
    assert Outbox.of_state(0, (1, 5)).state() == (SINK_VERSION, 5, [], [])


def beside(*waiting: OutputEvent) -> Outbox:
    """Return an outbox as a resume makes it, of a lane whose heartbeats have their own topic."""
    records = apart(*waiting)
    beats = records.apart["heartbeats"]
    topics = {"heartbeats": ("beats", 3, beats.keys, beats.values, 0)}
    return Outbox.of_state(0, (APART_VERSION, 10, records.keys, records.values, 0, topics))


def apart(*events: OutputEvent) -> OutputBatch:
    """Return a batch in which heartbeats are apart."""
    records = batch_with(["heartbeats"])
    for event in events:
        records.add(event, encode_output(event))
    return records


def end(time_ms: int) -> SessionEnd:
    """Return the end of the session of these tests."""
    return SessionEnd("d", "s", "pc", T, time_ms, "ended", time_ms - T)


def found(output: list[OutputEvent], beats: list[OutputEvent]) -> AlreadyWritten:
    """Return what was found in the output topic and in that of heartbeats."""
    both = AlreadyWritten()
    for event in output:
        both.add(event)
    for event in beats:
        both.add(event, apart=True)
    return both


def admitted(records: OutputBatch) -> tuple[list[OutputEvent], list[OutputEvent]]:
    """Return what goes to the output topic, and what to that of heartbeats."""
    return decoded(records), decoded(records.apart["heartbeats"])


def test_heartbeats_apart_have_an_offset_and_records_of_their_own_in_the_snapshot() -> None:
    """Each topic is acknowledged for itself."""
    outbox = beside()
    records = apart(active(), beat(1), beat(2))
    beats = records.apart["heartbeats"]
    assert outbox.send(records) == 10
    assert outbox.apart["heartbeats"].send(beats) == 4
    topics = {"heartbeats": ("beats", 3, beats.keys, beats.values, 0)}
    assert outbox.state() == (APART_VERSION, 10, records.keys, records.values, 0, topics)
    assert outbox.apart["heartbeats"].acknowledge(4, 4)
    topics = {"heartbeats": ("beats", 5, [], [], 0)}
    assert outbox.state() == (APART_VERSION, 10, records.keys, records.values, 0, topics)
    assert Outbox.of_state(0, outbox.state()).state() == outbox.state()


def test_held_records_apart_are_released_with_the_others() -> None:
    """A lane that is new to a topic sends nothing before its offset there is stored."""
    outbox = beside()
    outbox.hold(apart(active(), beat(1)))
    assert outbox.waits
    assert admitted(outbox.release()) == ([active()], [beat(1)])
    assert not outbox.waits


@pytest.mark.parametrize(
    ("output", "beats", "missing"),
    [
        ([], [], ([active(), end(T + 70_000)], [beat(1), beat(2)])),
        ([active(), end(T + 70_000)], [], ([], [beat(1), beat(2)])),
        ([active()], [beat(1)], ([end(T + 70_000)], [beat(2)])),
        ([], [beat(1), beat(2)], ([active(), end(T + 70_000)], [])),
        ([active(), end(T + 70_000)], [beat(2)], ([], [])),
    ],
    ids=["nothing", "no heartbeat", "half", "heartbeats", "all"],
)
def test_each_topic_gets_what_it_lacks(
    output: list[OutputEvent],
    beats: list[OutputEvent],
    missing: tuple[list[OutputEvent], list[OutputEvent]],
) -> None:
    """Brokers take the records of the two in any order, whether made again or in the snapshot."""
    events = (active(), beat(1), beat(2), end(T + 70_000))
    waited = beside(*events).reconcile(10, found(output, beats), {"heartbeats": 3})
    assert admitted(waited) == missing
    outbox = beside()
    outbox.reconcile(10, found(output, beats), {"heartbeats": 3})
    assert admitted(outbox.admit(apart(*events))) == missing


def test_heartbeat_after_an_end_that_was_found_is_not_sent() -> None:
    """The crashed run had read the end in time, and this one came to the heartbeat first."""
    outbox = beside()
    outbox.reconcile(12, found([active(), end(T + 40_000)], [beat(1)]), {"heartbeats": 3})
    assert admitted(outbox.admit(apart(beat(2), end(T + 60_000)))) == ([], [])


def test_end_is_not_before_a_heartbeat_that_was_found_in_the_other_topic() -> None:
    """The crashed run had sent it before it read the end."""
    outbox = beside()
    outbox.reconcile(11, found([active()], [beat(2)]), {"heartbeats": 4})
    want = replace(end(T + 2 * BEAT_MS), time_ms=T + 2 * BEAT_MS)
    assert admitted(outbox.admit(apart(end(T + 40_000)))) == ([want], [])


def test_session_that_is_ignored_now_is_whole_where_only_a_heartbeat_of_it_was_found() -> None:
    """Its start was on the way to another topic, and came to nothing."""
    outbox = beside()
    outbox.reconcile(10, found([], [beat(1)]), {"heartbeats": 4})
    records = batch_with(["heartbeats"])
    records.add(EndIfOpen("d", "s", "pc", T, T, "replaced", 0), b"")
    last = SessionEnd("d", "s", "pc", T, T + BEAT_MS, "replaced", BEAT_MS)
    assert admitted(outbox.admit(records)) == ([active(), last], [])
    assert admitted(outbox.admit(records)) == ([], [])


def test_offsets_of_both_topics_stay_until_all_that_was_found_is_made_again() -> None:
    """A heartbeat alone is something that was found."""
    outbox = beside()
    outbox.reconcile(10, found([], [beat(1)]), {"heartbeats": 4})
    assert outbox.state()[5] == {"heartbeats": ("beats", 3, [], [], 0)}
    outbox.admit(batch(complete_up_to_ms=beat(1).time_ms))
    assert outbox.state()[5] == {"heartbeats": ("beats", 4, [], [], 0)}


def summarizing(*waiting: OutputEvent, summaries: list[bytes]) -> Outbox:
    """Return an outbox as a resume makes it, of a lane whose sessions have summaries."""
    records = batch(*waiting)
    topics = {"summaries": ("sums", 3, ["d"] * len(summaries), summaries, 0)}
    return Outbox.of_state(0, (APART_VERSION, 10, records.keys, records.values, 0, topics))


def with_summaries(*events: OutputEvent) -> OutputBatch:
    """Return a batch in which each end has a summary."""
    records = batch_with(["summaries"])
    for event in events:
        records.add(event, encode_output(event))
    return records


def found_with(output: list[OutputEvent], *summaries: SessionEnd) -> AlreadyWritten:
    """Return what was found in the output topic, and the ends of which there were summaries."""
    both = AlreadyWritten()
    for event in output:
        both.add(event)
    for one in summaries:
        both.add(end_of(summary_of(one)), apart=True)
    return both


def summed(records: OutputBatch) -> tuple[list[OutputEvent], list[bytes]]:
    """Return what goes to the output topic, and what to that of summaries."""
    return decoded(records), records.apart["summaries"].values


END = SessionEnd("d", "s", "pc", T, T + 70, "ended", 70, Raw(b'{"a": 1.50}'))
LATER = replace(END, time_ms=T + 90, duration_ms=90, reason="replaced")
RACED = replace(END, time_ms=T + BEAT_MS, duration_ms=BEAT_MS)
CARRYING_MORE = replace(END, context=Raw(b'{"a": 1.50,"score":7}'))
CARRYING_NOTHING = replace(END, context=UNSET)


@pytest.mark.parametrize("waited", [False, True])
@pytest.mark.parametrize(
    ("output", "summaries", "missing"),
    [
        ([], [], ([END], [summary_of(END)])),
        ([END], [], ([], [summary_of(END)])),
        ([], [END], ([END], [])),
        ([END], [END], ([], [])),
        ([LATER], [], ([], [summary_of(LATER)])),
        ([], [LATER], ([LATER], [])),
        ([active(), beat(1)], [], ([RACED], [summary_of(RACED)])),
        ([CARRYING_MORE], [], ([], [summary_of(CARRYING_MORE)])),
        ([], [CARRYING_MORE], ([CARRYING_MORE], [])),
        ([], [CARRYING_NOTHING], ([CARRYING_NOTHING], [])),
    ],
    ids=[
        "nothing",
        "end",
        "summary",
        "both",
        "another end",
        "another summary",
        "a heartbeat that came first",
        "an end that carries more",
        "a summary that carries more",
        "a summary that carries nothing",
    ],
)
def test_end_and_summary_are_each_there_once_and_say_the_same(
    output: list[OutputEvent],
    summaries: list[SessionEnd],
    missing: tuple[list[OutputEvent], list[bytes]],
    *,
    waited: bool,
) -> None:
    """What is there counts, though this run would say another time, or reason, or carry another."""
    records = with_summaries(END)
    waiting = summarizing(END, summaries=records.apart["summaries"].values)
    outbox = waiting if waited else summarizing(summaries=[])
    sent = outbox.reconcile(10, found_with(output, *summaries), {"summaries": 3})
    assert summed(sent if waited else outbox.admit(records)) == missing


def test_summary_that_was_acknowledged_before_its_end_is_not_made_again() -> None:
    """The snapshot has the end alone; a repeated start of the session changes nothing of that."""
    outbox = summarizing(END, summaries=[])
    assert summed(outbox.reconcile(11, found_with([END]), {"summaries": 3})) == ([], [])
    records = batch_with(["summaries"])
    records.add(EndIfOpen("d", "s", "pc", T, T, "replaced", 0), b"")
    assert summed(outbox.admit(records)) == ([], [])


def test_session_that_is_ignored_now_has_a_summary_of_the_end_that_is_there() -> None:
    """Or of that which it gets now."""
    records = batch_with(["summaries"])
    records.add(EndIfOpen("d", "s", "pc", T, T, "replaced", 0), b"")
    ended, opened = summarizing(summaries=[]), summarizing(summaries=[])
    ended.reconcile(12, found_with([active(), END]), {"summaries": 3})
    assert summed(ended.admit(records)) == ([], [summary_of(END)])
    assert summed(ended.admit(records)) == ([], [])
    opened.reconcile(11, found_with([active()]), {"summaries": 3})
    last = SessionEnd("d", "s", "pc", T, T, "replaced", 0)
    assert summed(opened.admit(records)) == ([last], [summary_of(last)])


def test_heartbeat_after_the_end_of_a_summary_that_was_found_is_not_sent() -> None:
    """The end itself was not taken by the broker, and the next run reads it late."""
    written = AlreadyWritten()
    end = SessionEnd("d", "s", "pc", T, T + BEAT_MS, "ended", BEAT_MS)
    written.add(end_of(summary_of(end)), apart=True)
    assert not written.has(beat(1))
    assert written.has(beat(2))


def test_rows_of_the_table_are_sent_again_whatever_is_there() -> None:
    """What comes twice does no harm; what is left out would."""
    topics = {"table": ("table", 3, ["d"], [b"row"], 0)}
    outbox = Outbox.of_state(0, (APART_VERSION, 10, [], [], 0, topics))
    waited = outbox.reconcile(12, found([active(), end(T + 9)], []), {"table": 5})
    assert (waited.values, waited.apart["table"].values) == ([], [b"row"])
    records = batch_with(["table"])
    for event in (active(), end(T + 9)):
        records.add(event, encode_output(event))
    assert len(outbox.admit(records).apart["table"]) == 2
    assert outbox.apart["table"].send(waited.apart["table"]) == 5
