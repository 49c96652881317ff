"""What an operator accepts as lost: the store goes on behind it, with its sessions."""

import pickle
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir
from msgspec.structs import replace

from dataflows.formats import read_outbox
from dataflows.settings import Settings
from heartwheel.store.identity import Layout, bind, identify, read_notes
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.skip import Skipping
from heartwheel.store.start import StartCheck
from session_logic.errors import ConfigError
from tests.support.fake_start import StartKafka
from tests.support.flow import SETTINGS
from tests.support.stores import execute

PC, OUT = ("pc-events", 0), ("session-events", 2)
KEYS, VALUES = ["d"], [b"not acknowledged"]


class Loss:
    """A store that has read and written up to offset 10, and topics that no longer fit."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.store.mkdir()
        init_db_dir(self.store, 2)
        self._put("source", "pc-events/0", 10)
        self._put("sink", "lane-002", (2, 10, KEYS, VALUES))
        self.kafka = StartKafka()
        self.kafka.bounds = {PC: (0, 20), OUT: (0, 10)}
        bind(self.store, identify(self.store), OUT[0], Layout())

    def _put(self, step: str, key: str, value: object) -> None:
        statement = "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, ?, ?, 0, ?)"
        part = self.store / "part-1.sqlite3"
        execute(part, statement, f"heartwheel.{step}", key, pickle.dumps(value))

    def faults(self, settings: Settings = SETTINGS) -> list[str]:
        """Return because of what a start is refused."""
        check = StartCheck(settings, self.store, identify(self.store), self.kafka.consumer)
        found = list(check.faults())
        return found or list(check.strays())

    def skip(
        self,
        settings: Settings = SETTINGS,
        *,
        anew: tuple[str, ...] = (),
        to: dict[str, int] | None = None,
    ) -> list[str]:
        """Skip what is missing; return what is said about it."""
        with Recovery(self.store, alone=True) as recovery:
            make = self.kafka.consumer
            skipping = Skipping(settings, recovery, anew=anew, to=to, make_consumer=make)
            skips = list(skipping.find())
            skipping.apply(skips)
        return [skip.text for skip in skips]

    def stored(self) -> tuple[int, tuple[object, ...]]:
        """Return where input and output go on."""
        with Recovery(self.store) as recovery:
            entries = recovery.entries()
        with Recovery(self.store) as recovery:
            entries = recovery.entries()
            return (
                entries["heartwheel.source", "pc-events/0"].value(),
                read_outbox(2, entries["heartwheel.sink", "lane-002"].value())[1:5],
            )

    def notes(self) -> list[str]:
        """Return the notes in the store."""
        with Recovery(self.store) as recovery:
            return [note.note for note in read_notes(recovery)]


@pytest.fixture
def loss(tmp_path: Path) -> Loss:
    """Return a store whose topics are as it knows them."""
    return Loss(tmp_path)


def test_where_nothing_is_missing_nothing_is_skipped(loss: Loss) -> None:
    """The store stays as it is."""
    assert loss.faults() == []
    assert loss.skip() == []
    assert loss.stored() == (10, (10, KEYS, VALUES, 0))
    assert loss.notes() == []


@pytest.mark.parametrize(
    ("bounds", "line", "text", "stored"),
    [
        (
            {PC: (15, 20)},
            (
                "input pc-events/0 begins at offset 15, but this store has read up to 10: records, "
                "or markers of transactions, have expired unread (5 from offset 10 to 14); "
            ),
            (
                "input pc-events/0: records, or markers of transactions, have expired unread "
                "(5 from offset 10 to 14)"
            ),
            (15, 10),
        ),
        (
            {PC: (0, 4)},
            "input pc-events/0 ends at offset 4, but this store has read up to 10",
            (
                "input pc-events/0 is read on at its end, offset 4; if the topic was made anew, "
                "give --anew pc-events"
            ),
            (4, 10),
        ),
        (
            {OUT: (12, 14)},
            "session-events/2 begins at offset 12, but what was written from 10 on must be known",
            (
                "output session-events/2: what a killed run has written there has expired unknown "
                "(2 from offset 10 to 11); as many records may come twice"
            ),
            (10, 12),
        ),
        (
            {OUT: (0, 7)},
            "session-events/2 ends at offset 7, but this store has written up to 10",
            (
                "output session-events/2: records are gone from the topic, and are not sent again "
                "(3 from offset 7 to 9)"
            ),
            (10, 7),
        ),
    ],
    ids=["input expired", "input cut", "output expired", "output cut"],
)
def test_gap_is_refused_then_skipped_and_noted(
    loss: Loss,
    bounds: dict[tuple[str, int], tuple[int, int]],
    line: str,
    text: str,
    stored: tuple[int, int],
) -> None:
    """The line of the refusal names the command; what was not acknowledged is still to be sent."""
    loss.kafka.bounds |= bounds
    (fault,) = loss.faults()
    assert fault.startswith(line)
    assert "`heartwheel store skip` goes on" in fault
    assert "keeps the sessions" in fault
    (said,) = loss.skip()
    assert said.startswith(text)
    assert loss.stored() == (stored[0], (stored[1], KEYS, VALUES, 0))
    assert loss.faults() == []
    assert loss.notes() == [said]


def test_records_of_somebody_else_are_refused_then_passed_over(loss: Loss) -> None:
    """What is Heartwheel's before and between them must still be found."""
    loss.kafka.bounds[OUT] = 0, 15
    loss.kafka.strays = {(*OUT, 11), (*OUT, 13)}
    (fault,) = loss.faults()
    assert fault.startswith("session-events/2: the record at offset 11 is not Heartwheel's")
    (said,) = loss.skip()
    assert "2 records that are not Heartwheel's" in said
    assert "from offset 11 to 13" in said
    assert loss.stored()[1] == (10, KEYS, VALUES, 14)
    assert loss.faults() == []
    loss.kafka.strays.add((*OUT, 14))
    (fault,) = loss.faults()
    assert "the record at offset 14" in fault


def test_topic_that_was_made_anew_is_read_from_its_beginning(loss: Loss) -> None:
    """Offsets do not tell it from one that was cut, so the operator says so."""
    loss.kafka.bounds[PC] = 0, 4
    assert loss.skip(anew=("pc-events",)) == [
        "input pc-events/0 is read from its beginning, offset 0"
    ]
    assert loss.stored()[0] == 0


def test_offset_can_be_given(loss: Loss) -> None:
    """A batch that is damaged in the broker is there, and cannot be read."""
    assert loss.skip(to={"pc-events/0": 13, "session-events/2": 10}) == [
        "input pc-events/0: from offset 10 to 12 nothing is read",
        "output session-events/2 is not read before offset 10",
    ]
    assert loss.stored() == (13, (10, KEYS, VALUES, 0))


def test_offset_before_the_stored_one_is_told_as_such(loss: Loss) -> None:
    """The input is read a second time from there on, and nothing of it is left out."""
    assert loss.skip(to={"pc-events/0": 3}) == [
        "input pc-events/0 is read again from offset 3 on, which is before 10"
    ]


def test_offset_can_be_given_for_a_partition_of_which_nothing_was_read(loss: Loss) -> None:
    """The first batch of a topic may be damaged; where nothing is read, nothing is missing."""
    loss._put("source", "pc-events/1", -2)
    loss.kafka.bounds["pc-events", 1] = 5, 9
    assert loss.faults() == []
    assert loss.skip(to={"pc-events/1": 7}) == [
        "input pc-events/1: from offset 0 to 6 nothing is read"
    ]


@pytest.mark.parametrize("wrong", [{"to": {"pc-events/7": 1}}, {"anew": ("pc",)}])
def test_what_the_store_does_not_know_is_one_line(loss: Loss, wrong: dict[str, object]) -> None:
    """With what it knows."""
    with pytest.raises(ConfigError, match=r"has no offset of pc.*; it has .*pc-events"):
        loss.skip(**wrong)  # type: ignore[arg-type]


def test_output_goes_on_in_another_topic(loss: Loss) -> None:
    """The old topic keeps what it has; the offsets are those of the new one."""
    elsewhere = replace(SETTINGS, output_topic="elsewhere")
    loss.kafka.bounds["elsewhere", 2] = 0, 0
    (fault,) = loss.faults(elsewhere)
    assert "HEARTWHEEL_OUTPUT_TOPIC is elsewhere" in fault
    (said,) = loss.skip(elsewhere)
    assert said == (
        "output of lane 2 goes on in elsewhere/2 at offset 0; session-events keeps what it has, "
        "and 1 records may be in both"
    )
    assert loss.stored()[1] == (0, KEYS, VALUES, 0)
    assert loss.faults(elsewhere) == []
    assert identify(loss.store).output_topic == ""


def test_store_that_a_run_has_open_is_not_changed(loss: Loss) -> None:
    """A skip needs it alone."""
    with Recovery(loss.store, alone=True), pytest.raises(Exception, match="open in another"):
        loss.skip()
