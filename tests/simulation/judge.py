"""Compares the output of a simulation with the model, record for record and device for device.

The model knows the input and what happened: when runs began and ended, when a source was given a
record, and which time a lane made up for after an outage. From this follows which heartbeats may
be sent before an end with an earlier timestamp is read (raced), and which `latest` may skip.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain, pairwise

from msgspec import UNSET
from msgspec.json import Decoder

from dataflows.messages import RecordId
from dataflows.settings import Settings
from session_logic.clock import END_VALID_MS
from session_logic.codec import decode_output, decode_summary
from session_logic.events import (
    ActiveSession,
    Fact,
    Heartbeat,
    OutputEvent,
    Rejected,
    SessionActive,
    SessionEnd,
)
from session_logic.keys import key_group_of, lane_of
from session_logic.rules import as_context
from session_logic.summary import summary_of
from tests.simulation.explanation import NEVER_MS, Explanation, Life, Read, life_of, life_of_fact
from tests.simulation.facts import Facts
from tests.simulation.history import Change, Ended, Event, Heard, History, Skip, is_record
from tests.support.fake_kafka import Log, Record, Where
from tests.support.heartbeats import with_heartbeats
from tests.support.model import Life as ModelLife

decode_row = Decoder(ActiveSession).decode


class Judge:
    """The output of a simulation that is over; `check` raises AssertionError where it is wrong."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        history: History,
        *,
        facts: Facts,
    ) -> None:
        self._facts = facts
        self._rules = [past.rules for past in history.pasts]
        self._skips = any(rules.catch_up == "latest" for rules in self._rules)
        self._undone_ms = {
            event.watermark_ms + 1
            for order in history.orders.values()
            for undone in order.undone
            for event in undone.events
            if isinstance(event, Change) and not event.sets_back
        }
        self._max_skew_ms = settings.max_clock_skew_ms
        self._log = log
        self._topics = settings.input_topics
        self._has_summaries = bool(settings.summary_topic)
        self._history = history
        self._latest_ms = max(past.clock_ms(past.ended_ms) for past in history.pasts)
        self.counts: Counter[str] = Counter()
        self._by_clock: set[RecordId] = set()  # what is no event because of its timestamp
        self._devices: defaultdict[str, list[OutputEvent]] = defaultdict(list)
        self._lives: defaultdict[Life, list[OutputEvent]] = defaultdict(list)
        self._scattered: set[str] = set()  # devices with events in several partitions
        self._route = settings.route
        self._lanes_of: defaultdict[str, set[int]] = defaultdict(set)  # that have its records
        self._appended_ms: defaultdict[Life, list[int]] = defaultdict(list)
        # By device and session: when each end is, and when it was read first.
        self._read_ends: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)

    def check(self, output: str, beats: str, letters: str, end_ms: int) -> None:
        """Check every record of the topics for output, heartbeats apart and dead letters."""
        self._read_output(output, beats)
        self._by_clock = {
            letter_of(record)
            for record in self._written(letters)
            if dict(record.headers or {})["heartwheel.reason"] == "in_the_future"
        }
        come_to_ms = self._come_to_ms()
        orders = self._orders()
        reordered = self._reordered()
        for device, places in orders.items():
            reads = [
                self._read(place, come_to_ms[place]) if is_record(place) else place
                for place in places
            ]
            if len({place[:2] for place in places if is_record(place)}) > 1:
                self._scattered.add(device)
            records = self._devices.pop(device, [])
            if device in reordered:
                self._check_reordered(reads, records)
            else:
                self._check_device(places, reads, records, end_ms)
            self.counts["devices"] += 1
        for life, records in self._lives.items():
            self._check_unheard(life)
            self.counts["silent ends"] += _is_silent(records[-1])
        assert not self._devices, f"records of unknown devices: {self._devices}"
        self._check_letters(letters)

    def _read_output(self, topic: str, beats: str) -> None:
        for lane in range(self._lanes):
            output, apart = (
                [(decode_output(record.value or b""), record) for record in records]
                for records in (self._log.written[topic, lane], self._log.written[beats, lane])
            )
            self.counts["heartbeats apart"] += len(apart)
            for event, record in with_heartbeats(output, apart):
                assert record.key == event.device_id.encode()
                if self._route == "hash":
                    assert lane_of(key_group_of(event.device_id), self._lanes) == lane
                self._lanes_of[event.device_id].add(lane)
                self._devices[event.device_id].append(event)
                self._lives[life_of(event)].append(event)
                self._appended_ms[life_of(event)].append(record.appended_ms)
                self.counts["records"] += 1

    def check_summaries(self, output: str, summaries: str) -> None:
        """Check that each end in the output has one summary, which says the same.

        A crashed run may have written that of a session which the next one ignores, because it
        reads several partitions in another order.
        """
        for lane in range(self._lanes):
            events = [decode_output(r.value or b"") for r in self._log.written[output, lane]]
            wanted = Counter(summary_of(one) for one in events if isinstance(one, SessionEnd))
            found = Counter(record.value or b"" for record in self._log.written[summaries, lane])
            ended = {life_of(one) for one in events if isinstance(one, SessionEnd)}
            for summary in list(found - wanted):
                one = decode_summary(summary)
                name = one.device_id, one.session_id, one.started_ms
                if one.device_id in self._scattered and name not in ended:
                    del found[summary]
            assert found == wanted, f"missing: {wanted - found}; too many: {found - wanted}"
            self.counts["summaries"] += found.total()

    def check_table(self, output: str, table: str) -> None:
        """Check that each session of the output has a row, and no device has one at the end.

        A session that a crashed run has announced and the next one ignores may have none. That is
        with another order of the events of several partitions.
        """
        for lane in range(self._lanes):
            events = [decode_output(r.value or b"") for r in self._log.written[output, lane]]
            started = {
                (one.device_id, one.session_id)
                for one in events
                if isinstance(one, SessionActive) and one.device_id not in self._scattered
            }
            rows = [
                ((record.key or b"").decode(), record.value and decode_row(record.value))
                for record in self._log.written[table, lane]
            ]
            assert started <= {(key, row.session_id) for key, row in rows if row}
            left = {key: row for key, row in dict(rows).items() if row}
            assert not left, f"rows of sessions that have ended: {left}"
            self.counts["rows"] += len(rows)

    def _written(self, topic: str) -> Iterator[Record]:
        """Yield what runs have written to a topic, whatever has become of it."""
        return chain(
            *(records for (name, _), records in self._log.written.items() if name == topic)
        )

    def _input(self) -> Iterator[tuple[RecordId, Record]]:
        """Yield the records of the input, partition by partition."""
        for topic in self._topics:
            for partition, records in enumerate(self._log.topics[topic]):
                for offset, record in enumerate(records):
                    if not record.hidden:
                        yield RecordId(topic, partition, offset), record

    def _come_to_ms(self) -> dict[RecordId, int]:
        """Return the latest timestamp before each record in its partition.

        A partition that is behind has come to it when the record is read.
        """
        come_to_ms = {}
        latest_ms = defaultdict[Where, int](int)
        for place, record in self._input():
            where = place[:2]
            come_to_ms[place] = latest_ms[where]
            latest_ms[where] = max(latest_ms[where], record.time_ms)
        return come_to_ms

    def _orders(self) -> dict[str, list[Event]]:
        """Return the events of each device in the order in which its lane took them in.

        Every event of the input is in it, once and in the order of its partition.
        """
        orders: dict[str, list[Event]] = {}
        taken = [place for order in self._history.orders.values() for place in order.records()]
        wanted = [
            place
            for place, record in self._input()
            if self._can_be_fact(place, record) and place not in self._by_clock
        ]
        assert sorted(taken) == sorted(wanted)
        for order in self._history.orders.values():
            for device, events in self._by_device(order.taken).items():
                orders.setdefault(device, []).extend(events)
        for device, events in orders.items():
            places = list(filter(is_record, events))
            for where in {place[:2] for place in places}:
                offsets = [place.offset for place in places if place[:2] == where]
                assert offsets == sorted(offsets), f"{device}: {where} {offsets}"
        return orders

    def _by_device(self, events: list[Event]) -> dict[str, list[Event]]:
        """Return the events of a lane by device; what is no fact is of all devices."""
        found: dict[str, list[Event]] = {}
        changes: list[Event] = []
        for event in events:
            if is_record(event):
                found.setdefault(self._fact(event).device_id, [*changes]).append(event)
                continue
            changes.append(event)
            for of_device in found.values():
                of_device.append(event)
        return found

    def _can_be_event(self, place: RecordId, record: Record) -> bool:
        """Say whether a record is no dead letter, unless its time makes it one."""
        is_ping = self._found(place, record) is None  # of nobody's, whatever its time
        return is_ping or self._can_be_fact(place, record)

    def _can_be_fact(self, place: RecordId, record: Record) -> bool:
        return isinstance(self._found(place, record), Fact) and record.time_ms >= 0

    def _found(self, place: RecordId, record: Record) -> Fact | Rejected | None:
        topic, created = place.topic, record.created
        platform = self._topics[topic]
        return self._facts.read(record.value, topic, platform, record.time_ms, created=created)

    def _fact(self, place: RecordId) -> Fact:
        """Return the fact that a record is."""
        fact = self._found(place, self._log.at(place[:2])[place.offset])
        assert isinstance(fact, Fact)
        return fact

    def _read(self, place: RecordId, come_to_ms: int) -> Read:
        """Return the fact that a record is, and how far time may have come when it was read."""
        record = self._log.at(place[:2])[place.offset]
        assert record.time_ms <= self._latest_ms + self._max_skew_ms, f"{record} is in the future"
        fact, given_ms = self._fact(place), self._given(place)
        self.counts["pings"] += fact.ping
        if not (fact.is_start or fact.ping):
            ends = self._read_ends[fact.device_id, fact.session_id]
            ends.append((fact.time_ms, min(given_ms)))
        late_ms = max(self._known_by(place, record), min(come_to_ms, max(given_ms)))
        return Read(fact, late_ms)

    def _reordered(self) -> set[str]:
        """Return the devices of which a crashed run has taken in events in another order.

        Its events are in several partitions; or the crashed run has rejected one by its clock, and
        has not published that; or it has taken one in by other rules.
        """
        reordered = set()
        for order in self._history.orders.values():
            for undone in order.undone:
                again, before = (
                    [event for event in events if not _is_no_fact(event)]
                    for events in (order.taken[undone.kept :], undone.events)
                )
                changes = [event for event in before if not is_record(event)]
                first = self._by_device(before)
                for device, events in self._by_device(again).items():
                    known = first.get(device, changes)
                    if events[: len(known)] != known:
                        reordered.add(device)
        return reordered

    def _check_unheard(self, life: Life) -> None:
        """Check that no session has ended for silence while it could not be heard of."""
        until_ms, end = self._history.unheard_until_ms.get(life[1]), self._lives[life][-1]
        if until_ms is not None and _is_silent(end):
            assert end.time_ms > until_ms, f"{end} while it could not be heard"

    def _lanes_with(self, device: str) -> set[int]:
        """Return the lanes that a device is in, by the route that it has taken."""
        if self._route == "partition":
            return self._lanes_of[device]
        return {lane_of(key_group_of(device), self._lanes)}

    def _is_redone_late(
        self, places: list[Event], reads: list[Read | Change | Heard | Ended]
    ) -> bool:
        """Say whether a crashed run has taken in an event that came after an end is forgotten.

        Time may have come further when the next run takes it in again. So that run may have
        forgotten an end that the crashed run remembered, and take a start for that of a session of
        its own; another session that the crashed run has announced is still active then.
        """
        undone = {
            event
            for order in self._history.orders.values()
            for undone in order.undone
            for event in undone.events
            if is_record(event)
        }
        kept_ms = min(rules.deduplication_window_ms + min(rules.turns_ms) for rules in self._rules)
        return any(
            isinstance(read, Read)
            and place in undone
            and read.late_ms - read.fact.time_ms >= kept_ms
            for place, read in zip(places, reads, strict=True)
        )

    def _check_device(
        self,
        places: list[Event],
        reads: list[Read | Change | Heard | Ended],
        records: list[OutputEvent],
        end_ms: int,
    ) -> None:
        """Check that a device's sessions are there, each whole, one after the other."""
        explanation = Explanation(reads, records, self._undone_ms, end_ms)
        try:
            lives = explanation.find()
        except AssertionError:
            if not self._is_redone_late(places, reads):
                raise
            self.counts["devices redone late"] += 1
            self._check_reordered(reads, records)
            return
        for life in lives:
            self._check_life(life, _opened(reads))
        self.counts["raced facts"] += explanation.raced

    def _check_reordered(
        self, events: list[Read | Change | Heard | Ended], records: list[OutputEvent]
    ) -> None:
        """Check that each session is whole, though two of the device may be active at once.

        What the crashed run has published stays, and the next run may see another order.
        """
        reads = [event for event in events if isinstance(event, Read)]
        starts = {life_of_fact(read.fact): read.fact for read in reads if read.fact.is_start}
        found = {life_of(record) for record in records}
        assert found <= starts.keys(), f"no input names {found - starts.keys()}"
        rules = self._rules[-1]
        intervals_ms = {some.heartbeat_ms for some in self._rules}
        for life in found:
            known = ModelLife(starts[life], rules.heartbeat_ms)
            mixed = len(intervals_ms) > 1
            if life[0] in self._scattered and self._leave_out_revoked_end(life):
                mixed = True  # what was due while the end was known to be out is not there
            self._check_life(known, _opened(events), mixed=mixed)
            self._check_reason(life, [read.fact for read in reads])
        # A ping begins no session where one is active.
        begun = {life_of_fact(read.fact) for read in reads if not read.fact.ping} & starts.keys()
        for life in begun - found:
            others = starts.keys() - {life}
            assert any(other[1] == life[1] or other[2] >= life[2] for other in others), (
                f"{life} is nowhere to be seen"
            )
        self.counts["reordered devices"] += 1

    def _leave_out_revoked_end(self, life: Life) -> bool:
        """Leave out the end of a session that goes on, if a crashed run had published it.

        Says whether there is one. With another order of the events of several partitions, the next
        run may know of no end.
        """
        records, appended_ms = self._lives[life], self._appended_ms[life]
        for n, (end, after_ms) in enumerate(zip(records[:-1], appended_ms[1:], strict=True)):
            crashed = any(
                appended_ms[n] <= past.ended_ms <= after_ms for past in self._history.pasts
            )
            if isinstance(end, SessionEnd) and crashed:
                del records[n], appended_ms[n]
                self.counts["revoked ends"] += 1
                return True
        return False

    def _check_reason(self, life: Life, facts: list[Fact]) -> None:
        """Check that there is a reason for an end at its time, or at that of a later heartbeat."""
        *_, before, end = self._lives[life]
        assert isinstance(end, SessionEnd)
        if end.reason == "timed_out":
            limits_ms = {rules.max_session_ms for rules in self._rules}
            assert len(limits_ms) > 1 or {end.duration_ms} == limits_ms
            return
        if end.reason == "went_silent":
            last_ms = _last_ms(end)
            # Which of those that may have begun it has done so is not known here.
            begun = [fact for fact in facts if life_of_fact(fact) == life]
            timeouts_ms = {fact.idle_timeout_ms for fact in begun} - {0}
            heard_ms = {fact.time_ms for fact in facts if fact.is_start or fact.ping}
            assert last_ms in heard_ms, f"{life}: {end}"
            assert end.time_ms - last_ms >= min(timeouts_ms), f"{life}: {end}"
            return
        if end.reason == "replaced" and end.time_ms == before.time_ms:
            return  # announced by a crashed run, and ignored by the next one
        times_ms = [
            max(fact.time_ms, life[2])
            for fact in facts
            if fact.is_start or not fact.ping
            if (
                fact.is_start,
                life_of_fact(fact)[1] == life[1] or not (fact.session_id or fact.ping),
            )
            == ((True, False) if end.reason == "replaced" else (False, True))
        ]
        if isinstance(before, Heartbeat) and before.time_ms == end.time_ms:
            assert min(times_ms) <= end.time_ms, f"{life}: {end}"
        else:
            assert end.time_ms in times_ms, f"{life}: {end}"

    def _given(self, place: RecordId) -> list[int]:
        """Return when a record was read, by the clock of each run that read it."""
        times = [past.given_ms(place) for past in self._history.pasts]
        return [time_ms for time_ms in times if time_ms is not None]

    def _known_by(self, place: RecordId, record: Record) -> int:
        """Return the last time to which a lane may come before it has to know of a record.

        In the run in which it was appended: a lease after the source was last sure that it had
        come to the end. A later run reads to the end first.
        """
        limit_ms, where, offset = NEVER_MS, place[:2], place.offset
        for past in self._history.pasts:
            if past.partitions is not None and place.partition not in past.partitions:
                continue
            if past.ended_ms <= record.appended_ms or where not in past.readings:
                limit_ms = max(limit_ms, past.clock_ms(past.ended_ms))
            elif past.began_ms <= record.appended_ms:
                reading = past.readings[where]
                assigned_ms = reading.assigned_ms.get(where, past.ended_ms)  # later if it was added
                # A leader that has just taken over may tell an end before it.
                misled_ms = [ms for ms, high in reading.misled_ms[where] if high <= offset]
                sure_ms = [
                    begin
                    for begin, end in reading.doubts
                    if end > record.appended_ms
                    and begin >= assigned_ms
                    and not any(ms >= end for ms in misled_ms)
                ]
                told_ms = reading.unsure_ms[where]
                sure_ms += [by_ms for ms, by_ms in told_ms if ms >= record.appended_ms]
                given_ms = reading.given_ms.get((where, offset), past.ended_ms)
                sure_until_ms = past.clock_ms(min([given_ms, *sure_ms])) + END_VALID_MS
                if past.may_leave(where, given_ms):
                    sure_until_ms = past.clock_ms(past.ended_ms)
                limit_ms = max(limit_ms, min(past.clock_ms(past.ended_ms), sure_until_ms))
        return limit_ms

    def _check_life(
        self, known: ModelLife, opened: dict[Life, int], *, mixed: bool = False
    ) -> None:
        """Check that a session is whole; a mixed one went on by other rules, or after an end."""
        life = life_of_fact(known.fact)
        records = self._lives[life]
        assert isinstance(records[0], SessionActive), f"{life}: {records}"
        assert {r.platform for r in records} == {known.fact.platform}
        self._check_context(known.fact, records)
        assert isinstance(records[-1], SessionEnd), f"{life}: {records}"
        end = records[-1]
        assert records[0].time_ms == life[2]
        assert end.duration_ms == _last_ms(end) - life[2] >= 0
        assert end.time_ms >= _last_ms(end)
        if mixed:
            assert all(isinstance(record, Heartbeat) for record in records[1:-1])
            beats = [r.sequence for r in records if isinstance(r, Heartbeat)]
            assert all(one < two for one, two in pairwise(beats)), f"{life}: sequence {beats}"
        else:
            self._check_beats(known, records[1:-1], end, opened[life])
        self.counts["sessions"] += 1

    def _check_context(self, fact: Fact, records: list[OutputEvent]) -> None:
        """Check that each record has what the start carries, and the last one more at most."""
        context, allowed = (
            as_context(fact.carried),
            {rules.carry_in_heartbeats for rules in self._rules},
        )
        for record in records[:-1]:
            of_heartbeat = [context] * (True in allowed) + [UNSET] * (False in allowed)
            wanted = of_heartbeat if isinstance(record, Heartbeat) else [context]
            assert record.context in wanted, f"{record} has not {fact.carried!r}"
        of_end = records[-1].context
        more = b"{}" if of_end is UNSET else bytes(of_end)
        assert more[1:].startswith(fact.carried), f"{records[-1]}: {more!r} is not {fact.carried!r}"
        self.counts["contexts"] += len(records) if fact.carried else 0

    def _may_end_as_summed_up(self, device: str) -> bool:
        """Say whether an ignored session may end as the summary of a crashed run says.

        It has none of the heartbeats that its other end would have brought.
        """
        return self._has_summaries and device in self._scattered

    def _check_beats(
        self,
        known: ModelLife,
        records: list[OutputEvent],
        end: SessionEnd,
        opened_ms: int,
    ) -> None:
        """Check the heartbeats of a session: in sequence, none missing, none doubled."""
        life = device, _, started_ms = life_of_fact(known.fact)
        beat_ms = known.interval_ms
        for record in records:
            assert isinstance(record, Heartbeat), f"{life}: {records}"
            assert record.time_ms == started_ms + record.sequence * beat_ms
        found = [record.sequence for record in records]
        assert all(one < two for one, two in pairwise(found)), f"{life}: sequence {found}"
        due_by_ms = end.time_ms
        if end.reason == "timed_out" and not self._is_cut_short(records, end):
            due_by_ms -= 1
        last = max(0, (due_by_ms - started_ms) // beat_ms) if beat_ms else 0
        assert set(found) <= set(range(1, last + 1)), f"{life}: {found}, and {last} were due"
        skips = [skip for lane in self._lanes_with(device) for skip in self._history.skips[lane]]
        for sequence in sorted(set(range(1, last + 1)) - set(found)):
            due_ms = started_ms + sequence * beat_ms
            later_ms = [started_ms + found_ * beat_ms for found_ in found if found_ > sequence]
            if not later_ms and self._may_end_as_summed_up(device):
                continue
            assert later_ms, f"{life}: heartbeat {sequence}, the newest, is missing"
            if self._skips and due_ms <= opened_ms:
                self.counts["missed heartbeats"] += 1  # due before the start was read
                continue
            assert any(
                skip.after_ms < due_ms and later_ms[0] <= self._newest_by(skip, end)
                for skip in skips
            ), f"{life}: heartbeat {sequence} at {due_ms} is missing"
            self.counts["skipped heartbeats"] += 1
        self.counts["heartbeats"] += len(found)

    def _is_cut_short(self, records: list[OutputEvent], end: SessionEnd) -> bool:
        """Say whether a timeout is at the time of a heartbeat, because the maximum was longer."""
        limits_ms = {rules.max_session_ms for rules in self._rules}
        return len(limits_ms) > 1 and bool(records) and records[-1].time_ms == end.time_ms

    def _newest_by(self, skip: Skip, end: SessionEnd) -> int:
        """Return when the newest heartbeat that stands for those it skips is due at the latest.

        An end that is stamped ahead, and has been read by then, is known though it is yet to come:
        if the start comes after it, the session ends at once, or times out before that.
        """
        if end.time_ms <= skip.back_ms:
            return skip.back_ms
        ends = [
            *self._read_ends[end.device_id, end.session_id],
            *self._read_ends[end.device_id, ""],
        ]
        is_known = any(
            given_ms <= skip.back_ms and end.time_ms <= time_ms for time_ms, given_ms in ends
        )
        closed_at_once = is_known and end.started_ms <= skip.back_ms and end.reason != "replaced"
        return end.time_ms if closed_at_once else skip.upto_ms

    @property
    def _lanes(self) -> int:
        return len(self._log.topics["out"])

    def _check_letters(self, topic: str) -> None:
        """Check that each record that is no event is a dead letter, and once."""
        wanted = {place for place, record in self._input() if not self._can_be_event(place, record)}
        wanted |= self._by_clock
        found: Counter[RecordId] = Counter()
        for record in self._written(topic):
            letter = letter_of(record)
            source = self._log.at(letter[:2])[letter.offset]
            assert (record.key, record.value) == (source.key, source.value)
            found[letter] += 1
        assert found.keys() == wanted, f"dead letters {found} instead of {wanted}"
        for letter in self._by_clock:
            assert self._was_in_the_future(letter), f"{letter} was not in the future"
        for letter, times in found.items():
            assert times <= 1 + self._history.doubled_letters[letter], (
                f"dead letter {letter}: {times}"
            )
        self.counts["dead letters"] += len(found)
        self.counts["dead letters by the clock"] += len(self._by_clock)
        self.counts["dead letters doubled"] += found.total() - len(found)

    def _was_in_the_future(self, place: RecordId) -> bool:
        """Say whether a record was in the future by the clock of a run that was given it."""
        time_ms = self._log.at(place[:2])[place.offset].time_ms - self._max_skew_ms
        given_ms = [past.given_clock_ms(place) for past in self._history.pasts]
        return any(at_ms is not None and at_ms < time_ms for at_ms in given_ms)


def letter_of(record: Record) -> RecordId:
    """Return the name of a dead letter."""
    headers = dict(record.headers or {})
    partition, offset = headers["heartwheel.partition"], headers["heartwheel.offset"]
    return RecordId(headers["heartwheel.topic"], int(partition), int(offset))


def _is_no_fact(event: Event) -> bool:
    """Say whether an event is that time or silence begins anew; that is no fact, nor a rule."""
    return isinstance(event, Heard | Ended) or (isinstance(event, Change) and event.sets_back)


def _is_silent(event: OutputEvent) -> bool:
    return isinstance(event, SessionEnd) and event.reason == "went_silent"


def _last_ms(end: SessionEnd) -> int:
    """Return up to when a session lasted, which has its end at that time or for silence later."""
    return end.last_seen_ms if isinstance(end.last_seen_ms, int) else end.time_ms


def _opened(reads: list[Read | Change | Heard | Ended]) -> dict[Life, int]:
    """Return how far time may have come when the start of each session was read first."""
    opened: dict[Life, int] = {}
    for read in reads:
        if isinstance(read, Read) and read.fact.is_start:
            opened.setdefault(life_of_fact(read.fact), read.late_ms)
    return opened
