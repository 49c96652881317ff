"""The decode step: Kafka messages to facts by lane, or to dead letters."""

from collections import Counter, defaultdict

from dataflows.messages import (
    DEAD_LETTER_KEY,
    DeadLetter,
    LaneBatch,
    Message,
    PartitionBatch,
    lane_key,
)
from dataflows.metrics import TIMESTAMP_LEAD
from dataflows.placement import Placement
from dataflows.run_state import RunState
from session_logic.codec import decode_input
from session_logic.events import Fact, GameStart, InputEvent, Rejected
from session_logic.keys import key_group_of, lane_of

# No record is larger than this.
MOST_BYTES = 1 << 31


class Decode:
    """Turns polled messages into (key, LaneBatch) for lanes and (key, DeadLetter) for the rest."""

    def __init__(
        self,
        lanes: int,
        max_clock_skew_ms: int,
        run: RunState,
        max_record_bytes: int = MOST_BYTES,
    ) -> None:
        """Reject what is timestamped more than max_clock_skew_ms from now, or is too large.

        The limit is that of key and value together.
        """
        self._lanes = lanes
        self._max_record_bytes = max_record_bytes
        self._max_clock_skew_ms = max_clock_skew_ms
        self._run = run
        self._placement = Placement()
        self.rejected: Counter[str] = Counter()

    def __call__(self, polls: list[PartitionBatch]) -> list[tuple[str, LaneBatch | DeadLetter]]:
        """Decode a batch of polls; a device's facts keep their order."""
        now = self._run.clock.now_ms()
        self._run.note_alive(now)
        latest_ms = now + self._max_clock_skew_ms
        items: list[tuple[str, LaneBatch | DeadLetter]] = []
        leads_ms: list[int] = []
        check_placement = self._placement.check
        for poll in polls:
            place = poll.topic, poll.partition
            facts: defaultdict[int, list[Fact]] = defaultdict(list)
            for message in poll.messages:
                size = len(message[2] or b"") + len(message[3] or b"")
                if size > self._max_record_bytes:
                    message = (*message[:2], None, None, message[4])
                    detail = f"{size} bytes, limit {self._max_record_bytes}; the input still has it"
                    event: InputEvent | Rejected = Rejected("too_large", detail)
                else:
                    event = decode_input(message[3])
                if not isinstance(event, Rejected):
                    if message[1] > now:
                        leads_ms.append(message[1] - now)
                    event = self._in_time(event, message[1], latest_ms)
                if isinstance(event, Rejected):
                    self.rejected[event.reason] += 1
                    letter = _dead_letter(poll, message, event)
                    self._run.recent_dead_letters.append(letter)
                    items.append((DEAD_LETTER_KEY, letter))
                    continue
                check_placement(event.device_id, message[2], place, now)
                facts[lane_of(key_group_of(event.device_id), self._lanes)].append(
                    Fact(
                        type(event) is GameStart,
                        event.device_id,
                        event.session_id,
                        poll.platform,
                        message[1],
                        message[4],
                    )
                )
            items += [(lane_key(lane), LaneBatch(lane, some)) for lane, some in facts.items()]
            if poll.progress is not None:
                items += [
                    (lane_key(lane), LaneBatch(lane, [], poll.progress))
                    for lane in range(self._lanes)
                ]
        if leads_ms:
            TIMESTAMP_LEAD.observe_all_ms(leads_ms)
        return items

    @staticmethod
    def _in_time(event: InputEvent, time_ms: int, latest_ms: int) -> InputEvent | Rejected:
        """Return the event, or why its timestamp cannot be that of an event."""
        if time_ms < 0:
            detail = f"the record's timestamp is {time_ms}: none, or before 1970"
            return Rejected("no_timestamp", detail)
        if time_ms > latest_ms:
            return Rejected("in_the_future", f"timestamped {time_ms}, limit {latest_ms}")
        return event


def _dead_letter(poll: PartitionBatch, message: Message, rejected: Rejected) -> DeadLetter:
    return DeadLetter(poll.topic, poll.partition, message, rejected.reason, rejected.detail)
