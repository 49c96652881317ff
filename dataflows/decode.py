"""The decode step: Kafka messages to facts by lane, or to dead letters."""

from collections import defaultdict
from collections.abc import Mapping as Named
from collections.abc import Sequence
from threading import Lock
from typing import Protocol, get_args

from dataflows.messages import (
    DEAD_LETTER_KEY,
    DeadLetter,
    DeadLettersBegin,
    Headers,
    LaneBatch,
    Message,
    PartitionBatch,
    RejectedByClock,
    lane_key,
)
from dataflows.metrics import LATE_EVENTS, SKIPPED, TIMESTAMP_LEAD
from dataflows.placement import Placement
from dataflows.run_state import RunState
from session_logic.codec import decode_input
from session_logic.events import Fact, GamePing, GameStart, Rejected
from session_logic.keys import KEY_GROUPS, Route, key_group_of, lane_of
from session_logic.mapping import PING, Found, MappedEvent, Skipped, SkippedKind

# No record is larger than this.
MAX_BYTES = 1 << 31

Decoded = LaneBatch | DeadLetter | DeadLettersBegin


class Reads(Protocol):
    """What reads the records of a topic that has a table."""

    def read(
        self, key: bytes | None, value: bytes | None, headers: Headers | None, time_ms: int
    ) -> Found:
        """Return what a record is; time_ms is its timestamp."""


class Decode:
    """Turns polled messages into (key, LaneBatch) for lanes and (key, DeadLetter) for the rest."""

    def __init__(
        self,
        lanes: int,
        max_clock_skew_ms: int,
        run: RunState,
        max_record_bytes: int = MAX_BYTES,
        readers: Named[str, Reads] | None = None,
    ) -> None:
        """Reject what is timestamped more than max_clock_skew_ms from now, or is too large.

        The limit is that of key and value together. Topics with a reader are read by it. Those that
        are in idle_timeouts_ms are listened to: sessions that begin there have that timeout.
        """
        self._readers = readers or {}
        self.idle_timeouts_ms: Named[str, int] = {}
        for topic in self._readers:
            LATE_EVENTS.labels(topic)
            for kind in get_args(SkippedKind):
                SKIPPED.labels(topic, kind)
        self.own_lanes: Sequence[int] = range(lanes)  # those of this run
        self.route: Route = "hash"
        self._lane_of_group = [lane_of(group, lanes) for group in range(KEY_GROUPS)]
        self._max_record_bytes = max_record_bytes
        self._max_clock_skew_ms = max_clock_skew_ms
        self._run = run
        self._placement = Placement()
        # What earlier runs rejected by their clocks; None before the first message.
        self._earlier: RejectedByClock | None = None
        self._published_ms = 0
        self._learning = Lock()
        self._caught_up = False

    def __call__(self, polls: list[PartitionBatch]) -> list[tuple[str, Decoded]]:
        """Decode a batch of polls; a device's facts keep their order."""
        now = self._run.clock.now_ms()
        self._run.note_alive()
        at_end = self._run.at_end_of_input()
        self._caught_up = self._caught_up or at_end
        latest_ms = self._latest_ms(polls, now)
        times_ms = [message[1] for poll in polls for message in poll.messages]
        if times_ms:
            self._run.timestamps.note(now, times_ms, latest_ms, at_end=at_end)
        facts: defaultdict[int, list[Fact]] = defaultdict(list)
        items: list[tuple[str, Decoded]] = []
        for poll in polls:
            if poll.begins:
                items.append((DEAD_LETTER_KEY, DeadLettersBegin()))
            items += [
                (DEAD_LETTER_KEY, letter) for letter in self._take(poll, now, latest_ms, facts)
            ]
        items += [(lane_key(lane), LaneBatch(lane, some)) for lane, some in facts.items()]
        items += [
            (lane_key(lane), LaneBatch(lane, [], poll.progress))
            for poll in polls
            if poll.progress is not None
            for lane in self.own_lanes
        ]
        return items

    def _take(
        self, poll: PartitionBatch, now: int, latest_ms: int, facts: dict[int, list[Fact]]
    ) -> list[DeadLetter]:
        """Add the facts of a poll to those of their lanes; return what is none."""
        letters: list[DeadLetter] = []
        leads_ms: list[int] = []
        skipped: defaultdict[str, int] = defaultdict(int)
        reader = self._readers.get(poll.topic)
        # Who has a table says by it where the device id is, so the key may be anything.
        keyed = reader is None
        check_placement, place = self._placement.check, (poll.topic, poll.partition)
        lane_of_group = self._lanes_of_groups(poll.partition)
        earlier = self._rejected_earlier(poll)
        idle_timeout_ms = self.idle_timeouts_ms.get(poll.topic, 0)
        for message in poll.messages:
            found: Fact | Skipped | Rejected
            if reader is None:
                found = self._read(message, poll.platform, idle_timeout_ms)
            else:
                found = self._read_mapped(message, reader, poll.topic, idle_timeout_ms)
            if isinstance(found, Fact):
                time_ms = message[1]
                if time_ms > now:
                    leads_ms.append(time_ms - now)
                if earlier or not 0 <= time_ms <= latest_ms:
                    found = self._in_time(found, message, latest_ms, earlier)
            if isinstance(found, Fact):
                device_id = found.device_id
                check_placement(device_id, message[2], place, now, keyed=keyed)
                facts[lane_of_group[key_group_of(device_id)]].append(found)
            elif isinstance(found, Rejected):
                letters.append(_dead_letter(poll, message, found))
            else:
                skipped[found.kind] += 1
        self._run.recent_dead_letters.extend(letters)
        if leads_ms:
            TIMESTAMP_LEAD.observe_all_ms(leads_ms)
        for kind, count in skipped.items():
            SKIPPED.labels(poll.topic, kind).inc(count)
        return letters

    def _lanes_of_groups(self, partition: int) -> list[int]:
        """Return the lane of each group, for the devices of an input partition."""
        return self._lane_of_group if self.route == "hash" else [partition] * KEY_GROUPS

    def _read(
        self, message: Message, platform: str, idle_timeout_ms: int
    ) -> Fact | Skipped | Rejected:
        """Return the fact in a message of our own format, or why it has none."""
        value = message[3]
        size = len(message[2] or b"") + len(value or b"")
        if size > self._max_record_bytes:
            return self._too_large(size)
        event = decode_input(value)
        if isinstance(event, Rejected):
            return event
        ping = type(event) is GamePing
        if ping and not idle_timeout_ms:
            return PING
        return Fact(
            type(event) is GameStart,
            event.device_id,
            event.session_id,
            platform,
            message[1],
            message[4],
            b"",
            ping,
            idle_timeout_ms,
        )

    def _read_mapped(
        self, message: Message, reader: Reads, topic: str, idle_timeout_ms: int
    ) -> Fact | Skipped | Rejected:
        """Return the fact in a message of a topic that has a table, or why it has none."""
        _, time_ms, key, value, created, headers = message
        size = len(key or b"") + len(value or b"")
        if size > self._max_record_bytes:
            return self._too_large(size)
        event = reader.read(key, value, headers, time_ms)
        if not isinstance(event, MappedEvent):
            return event
        if event.late:
            LATE_EVENTS.labels(topic).inc()
        if event.time_ms is not None:
            time_ms, created = event.time_ms, True
        return Fact(
            event.is_start,
            event.device_id,
            event.session_id,
            event.platform,
            time_ms,
            created,
            event.carried,
            event.ping,
            idle_timeout_ms,
        )

    def _too_large(self, size: int) -> Rejected:
        detail = f"{size} bytes, limit {self._max_record_bytes}; the input still has it"
        return Rejected("too_large", detail)

    def _latest_ms(self, polls: list[PartitionBatch], now: int) -> int:
        """Return the last time that is not in the future.

        Until the end of the input is known, what an earlier run has acted on may be read again, and
        is no dead letter then. So how earlier runs have judged by their clocks is asked before the
        first message.
        """
        if self._earlier is None and any(poll.messages for poll in polls):
            with self._learning:  # another worker thread may be asking
                if self._earlier is None:
                    self._published_ms = self._run.published_ms()
                    self._earlier = self._run.rejected_earlier()
        published_ms = 0 if self._caught_up else self._published_ms
        return max(now, published_ms) + self._max_clock_skew_ms

    def _rejected_earlier(self, poll: PartitionBatch) -> dict[int, int]:
        """Return what earlier runs rejected by their clocks of the input that a poll may have."""
        earlier, place = self._earlier or {}, (poll.topic, poll.partition)
        found = earlier.get(place)
        if found is None or not poll.messages:
            return {}
        if max(found) < poll.messages[0][0]:
            earlier.pop(place)
        return found

    @staticmethod
    def _in_time(
        fact: Fact, message: Message, latest_ms: int, earlier: dict[int, int]
    ) -> Fact | Rejected:
        """Return the fact, or why its record's timestamp cannot be that of an event.

        A record is a dead letter or an event, never both: what an earlier run has rejected by its
        clock stays rejected, though it may be in the future no longer.
        """
        offset, time_ms = message[:2]
        if time_ms < 0:
            detail = f"the record's timestamp is {time_ms}: none, or before 1970"
            return Rejected("no_timestamp", detail)
        if time_ms > latest_ms:
            return Rejected("in_the_future", f"timestamped {time_ms}, limit {latest_ms}")
        if earlier.get(offset) == time_ms:
            return Rejected("in_the_future", "an earlier run rejected it by its clock")
        return fact


def _dead_letter(poll: PartitionBatch, message: Message, rejected: Rejected) -> DeadLetter:
    """Return a message as a dead letter; one that is too large is without its key and value."""
    if rejected.reason == "too_large":
        message = (*message[:2], None, None, *message[4:])
    return DeadLetter(poll.topic, poll.partition, message, rejected.reason, rejected.detail)
