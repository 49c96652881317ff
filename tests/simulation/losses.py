"""What topics lose while no run is there, and a start with the wrong store.

The rules are those of docs/guarantees.md and docs/recovery-store.md. A start is refused where
something may be lost or doubled, with one line; `heartwheel store skip` then goes on, keeps the
sessions, and is noted. What happens to the dead-letter topic refuses no start. The check of a
start and the skip are the product's, and look at a real store with what the simulation has.
"""

import pickle
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bytewax.recovery import init_db_dir
from confluent_kafka import TopicPartition
from msgspec.structs import replace

from dataflows.formats import read_outbox, read_position, read_waiting_letters
from dataflows.messages import DEAD_LETTER_KEY, RecordId
from dataflows.settings import Settings
from heartwheel.store.identity import identify, read_notes
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.skip import Skipping
from heartwheel.store.start import StartCheck
from session_logic.codec import encode_output
from session_logic.errors import ConfigError
from session_logic.keys import key_group_of, lane_of
from tests.simulation.cluster import World
from tests.support.fake_kafka import Consumer, Log, Record, Where
from tests.support.output_records import active

STEPS = ("source", "restored", "sessions", "sink", "store")
DEVICE = "stray"


class Group(Consumer):
    """A consumer whose commits stay with the log."""

    def __init__(self, log: Log, world: World, offsets: dict[Where, TopicPartition]) -> None:
        super().__init__(log, world.elapsed_ms)
        self._offsets = offsets
        self.committed = self._found  # type: ignore[assignment]

    def _found(self, parts: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        nothing = [TopicPartition(part.topic, part.partition) for part in parts]
        return [self._offsets.get((part.topic, part.partition), part) for part in nothing]

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert not asynchronous
        self._offsets |= {(part.topic, part.partition): part for part in offsets}


class Losses:
    """The topics of a world between two runs, and its store as a directory."""

    def __init__(self, world: World, seed: int) -> None:
        """Lose something in half of the histories, each kind as often."""
        self._world = world
        self._random = random.Random(f"losses {seed}")
        self.step = self._random.randrange(100) if seed // 3 % 2 else None
        self._kind = seed + seed // 10
        self._offsets: dict[Where, TopicPartition] = {}
        self._strayed: Where | None = None
        self._stray_record: Record | None = None
        self.counts: Counter[str] = Counter()

    @property
    def _settings(self) -> Settings:
        return replace(self._world.settings, new_store=False)

    @contextmanager
    def _store(self) -> Iterator[Path]:
        """Give the store as a directory, and take back what was changed in it."""
        database = self._world.database
        with TemporaryDirectory() as folder:
            path = _make(Path(folder))
            with closing(sqlite3.connect(path / "part-0.sqlite3")) as db, db:
                db.executemany(
                    "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, ?, ?, 0, ?)",
                    [
                        (f"heartwheel.{step}", key, pickle.dumps(value))
                        for step in STEPS
                        for key, value in database.load(step).items()
                    ],
                )
            check = self._check(path)
            check._sign.write(check.owner)  # as the run did that was before
            yield path
            with Recovery(path) as recovery:
                found = recovery.entries()
                values = {name: entry.value() for name, entry in found.items()}
        database.replace({(step.partition(".")[2], key): v for (step, key), v in values.items()})

    def _consumer(self, _options: dict[str, Any]) -> Any:
        return Group(self._world.log, self._world, self._offsets)

    def _check(self, folder: Path) -> StartCheck:
        return StartCheck(self._settings, folder, identify(folder), self._consumer)

    def befall(self) -> bool:
        """Let something happen after a clean stop of a run that had read everything.

        Says whether it is something that a run finds, and not the check before it.
        """
        kinds = [
            self._wrong_store,
            self._lose_letters,
            self._expire_input,
            self._cut_output,
            self._stray,
        ]
        self._strayed = None
        kinds[self._kind % len(kinds)]()
        return self._strayed is not None

    def _wrong_store(self) -> None:
        """Start with an empty store, which would send everything again."""
        if not any(self._world.log.topics[self._settings.output_topic]):
            return
        with self._store() as store, TemporaryDirectory() as folder:
            empty = _make(Path(folder))
            names = [self._check(path).owner.id[:8] for path in (store, empty)]
            line = self._refused(empty)
            assert all(name in line for name in names), line
        self.counts["wrong stores"] += 1

    def _refused(self, folder: Path) -> str:
        """Return the line that refuses a start; raises AssertionError if none does."""
        try:
            self._check(folder).check()
        except ConfigError as error:
            return str(error)
        raise AssertionError("a start is not refused")

    def _lose_letters(self) -> None:
        """Empty the dead-letter topic, or make it anew, with other partitions.

        What the store does not know to be written may come a second time.
        """
        stored = self._world.database.load("sink").get(DEAD_LETTER_KEY, (0, {}))
        self._world.history.letters_at_loss = stored
        self._world.history.doubled_letters += Counter(
            RecordId(letter.topic, letter.partition, letter.message[0])
            for letter in read_waiting_letters(stored)
        )
        log, topic = self._world.log, self._settings.dead_letter_topic
        if self._random.random() < 0.5:
            for number, records in enumerate(log.topics[topic]):
                log.expire((topic, number), len(records))
        else:
            log.make(topic, self._random.choice([1, 2, 3]))
        with self._store() as store:
            assert list(self._check(store).faults()) == []
        self.counts["letters lost"] += 1

    def _expire_input(self) -> None:
        """Let records expire that nobody has read."""
        log, lost = self._world.log, 0
        for part, state in self._world.database.load("source").items():
            topic, _, number = part.rpartition("/")
            where, offset = (topic, int(number)), read_position(part, state).offset
            if topic not in self._settings.input_topics or offset < 0:
                continue
            unread = log.at(where)[offset:]
            lost += len(unread)  # markers of transactions as well: an offset of one is gone, too
            for record in unread:
                record.hidden = True
            log.expire(where, len(log.at(where)))
        if lost:
            self.skip("expired unread")
            self.counts["input expired"] += 1

    def _cut_output(self) -> None:
        """Let the last records of the output be gone."""
        log, lost = self._world.log, 0
        for where, offset in self._outputs():
            cut = self._random.choice([0, 1, 3])
            if 0 < cut <= len(log.at(where)) == offset:
                del log.at(where)[-cut:]
                lost += cut
        if lost:
            self.skip("was cut or made anew")
            self.counts["output cut"] += 1

    def _outputs(self) -> Iterator[tuple[Where, int]]:
        """Yield the partitions of each lane that is stored, and up to where they are known."""
        for key, state in self._world.database.load("sink").items():
            if key != DEAD_LETTER_KEY:
                lane = int(key.removeprefix("lane-"))
                outbox = read_outbox(lane, state)
                for box in (outbox, *outbox.apart.values()):
                    topic = box.topic or self._settings.output_topic
                    if topic in self._settings.lane_topics:
                        yield (topic, lane), box.end_offset

    def _stray(self) -> None:
        """Let somebody else write to the output topic: what is no record, or is of another lane."""
        # What is in the table is sent again, so nobody looks there.
        lanes = [where for where, _ in self._outputs() if where[0] != self._settings.table_topic]
        if lanes:
            self._strayed = self._random.choice(lanes)
            device = next(
                name
                for name in (f"{DEVICE}-{n}" for n in range(99))
                if lane_of(key_group_of(name), self._settings.lanes) != self._strayed[1]
            )
            value = self._random.choice([b"", b"\xff", encode_output(active(device))])
            now_ms = self._world.now_ms
            record = Record(now_ms, None, value, None, now_ms)
            self._world.log.at(self._strayed).append(record)
            self._stray_record = record
            self.counts["strays"] += 1

    def stray_is_last(self) -> bool:
        """Say whether nothing has been written behind the stray record."""
        assert self._strayed is not None
        return self._world.log.at(self._strayed)[-1] is self._stray_record

    def skip(self, because: str) -> None:
        """Go on without what is lost; a start is refused before, and not after."""
        with self._store() as store:
            check = self._check(store)
            faults = list(check.faults()) or list(check.strays())
            assert faults, "nothing is refused"
            assert all(because in fault for fault in faults), faults
            with Recovery(store, alone=True) as recovery:
                skipping = Skipping(self._settings, recovery, make_consumer=self._consumer)
                skips = list(skipping.find())
                skipping.apply(skips)
            with Recovery(store) as recovery:
                noted = [note.note for note in read_notes(recovery)]
            assert noted == [skip.text for skip in skips]
            check = self._check(store)
            assert list(check.faults()) + list(check.strays()) == []


def _make(folder: Path) -> Path:
    init_db_dir(folder, 1)  # type: ignore[no-untyped-call]
    identify(folder)
    return folder
