"""The records of a lane on their way: acknowledged, waiting, found again after a crash."""

import pytest
from msgspec import Raw
from msgspec.structs import replace

from dataflows.formats import SINK_VERSION, STRAYS_VERSION
from dataflows.kafka.outbox import AlreadyWritten, Outbox
from session_logic.errors import SnapshotError
from session_logic.events import EndIfOpen, OutputEvent, SessionEnd
from session_logic.output import OutputBatch
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
