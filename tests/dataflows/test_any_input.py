"""Whatever comes in: nothing raises, and all that is written can be read and is as the schema says.

Seeded random records go through the decoder and a lane: JSON of any shape, bytes that are none,
keys of any kind, ids with any characters, timestamps from -2^63 to 2^63.
"""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from dataflows.decode import Decode
from dataflows.messages import DeadLetter, Message, PartitionBatch
from dataflows.run_state import RunState
from session_logic.clock import PartitionProgress
from session_logic.codec import DETAIL_LENGTH, decode_output
from session_logic.event_table import read_table
from session_logic.events import RejectReason
from session_logic.lane import Lane, LaneOutput
from session_logic.mapping import Mapping
from session_logic.restoring import read_lane_state
from session_logic.rules import Rules
from tests.support.broker import ROOT
from tests.support.clocks import FixedClock, T
from tests.support.lanes import Store

SEEDS = range(60)
BATCHES, MESSAGES = 30, 12
SKEW_MS = 60_000
HEARTBEAT_MS = 30_000
REASONS = get_args(RejectReason)
SCHEMA = json.loads(Path(ROOT / "schemas" / "output.schema.json").read_text())
ODD_IDS = ["", " ", "\0", "\x1b[31m", "\u2028", "\ud800", "\U0001f3ae", '"\\', "é" * 128, "x" * 129]
TABLE = {
    "platform": "pc",
    "type": "type",
    "start": "GameStart",
    "end": "GameEnd",
    "device": "device_id",
    "session": "session_id",
    "time": "at",
    "time_unit": "ms",
    "other": "reject",
    "carry": {"a": "more", "b": "session_id"},
    "end_carry": {"c": ["more", "at"]},
}
RAW = [
    b"", b"null", b"[]", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 5_000, b"1e999", b"NaN",
    b"\0\0\0\0\1{}", b'{"type":1}', b'{"type":"GameStart"}', b'{"device_id":"d","session_id":"s"}',
    b'{"type":"GameStart","device_id":"\\ud800","session_id":"s"}',
    b'{"type":"GameStart","device_id":"\xed\xa0\x80","session_id":"s"}',
    b'{"type":"GameEnd","device_id":"d","session_id":"s","device_id":"e"}',
]  # fmt: skip


class AnyInput:
    """Records at random, of which about half are events."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._offset = 0

    def messages(self, now_ms: int) -> list[Message]:
        """Return some messages."""
        return [self._message(now_ms) for _ in range(self._random.randint(1, MESSAGES))]

    def _message(self, now_ms: int) -> Message:
        choose = self._random.choice
        self._offset += 1
        device = choose(["d0", "d1", "d2", "d3", *ODD_IDS[1:9]])
        value: bytes | None
        if self._random.random() < 0.6:
            event: dict[str, Any] = {
                "type": choose(["GameStart", "GameEnd"]),
                "device_id": device,
                "session_id": choose(["s0", "s1", "s2"]),
                "at": self._time_ms(now_ms),
            }
            if self._random.random() < 0.2:
                event[choose([*event, "more"])] = self._json(3)
            value = json.dumps(event, ensure_ascii=choose([True, False])).encode(
                errors="surrogatepass"
            )
        else:
            value = choose([None, *RAW, json.dumps(self._json(4)).encode()])
        key = choose([None, b"", b"\xff", device.encode(errors="surrogatepass")])
        return self._offset, self._time_ms(now_ms), key, value, choose([True, False]), None

    def _time_ms(self, now_ms: int) -> int:
        choose = self._random.choice
        near_ms = now_ms + self._random.randint(-3 * HEARTBEAT_MS, 10)
        edge_ms = choose([-1, 0, 1, now_ms, now_ms + SKEW_MS, now_ms - 28_800_000])
        power = choose([-1, 1]) * 2 ** self._random.randint(0, 63)
        far_ms = min(2**63 - 1, power + choose([-1, 0, 1]))
        return choose(
            [near_ms, near_ms, near_ms, edge_ms + choose([-1, 0, 1]), max(-(2**63), far_ms)]
        )

    def _json(self, depth: int) -> Any:
        choose = self._random.choice
        if depth and self._random.random() < 0.5:
            values = [self._json(depth - 1) for _ in range(self._random.randint(0, 3))]
            keys = ["type", "device_id", "session_id", "other"]
            return choose([values, dict(zip(keys, values, strict=False))])
        return choose([None, True, 0, -1, 2**70, 1.5, float("nan"), "GameStart", *ODD_IDS])


class Written:
    """Checks all that is written, and counts it."""

    def __init__(self) -> None:
        self._schema = Draft202012Validator(SCHEMA)
        self.counts: Counter[str] = Counter()

    def dead_letter(self, letter: DeadLetter, message: Message) -> None:
        """Check a dead letter of a message."""
        assert letter.reason in REASONS
        assert letter.message == message
        assert 0 < len(letter.detail) <= DETAIL_LENGTH
        letter.detail.encode()  # it becomes a header
        self.counts[letter.reason] += 1

    def output(self, output: LaneOutput) -> None:
        """Check the records of a lane."""
        for key, value in zip(output.records.keys, output.records.values, strict=True):
            event = decode_output(value)
            assert event.device_id == key
            key.encode()
            record = json.loads(value)
            self._schema.validate(record)
            self.counts["context"] += "context" in record
            self.counts[type(event).__name__] += 1


def mapping(seed: int) -> Mapping:
    """Return what reads the same events by a table, half of the time without their session ids."""
    plain = TABLE if seed % 2 else {k: v for k, v in TABLE.items() if k != "session"}
    return Mapping(read_table(plain), SKEW_MS, 3 * HEARTBEAT_MS)


def go_through(seed: int, written: Written, readers: dict[str, Mapping]) -> None:
    """Let random input go through the decoder and a lane, which is restored in the middle."""
    given, clock = AnyInput(seed), FixedClock(T)
    decode = Decode(1, SKEW_MS, RunState(clock), readers=readers)
    rules = Rules(HEARTBEAT_MS, 3 * HEARTBEAT_MS, catch_up="all" if seed % 2 else "latest")
    lane, store = Lane(0, 1, rules), Store()
    for number in range(BATCHES):
        clock.now += 10_000
        messages = given.messages(clock.now)
        by_offset = {message[0]: message for message in messages}
        progress = PartitionProgress("t/0", 1, None, "t", clock.now)
        for _, item in decode([PartitionBatch("t", 0, "pc", messages, progress)]):
            if isinstance(item, DeadLetter):
                written.dead_letter(item, by_offset.pop(item.message[0]))
                continue
            if item.facts:
                output = lane.apply(item.facts, clock.now)
                written.output(output)
                store.write(output.rows)
            if item.progress is not None:
                lane.update(item.progress)
        written.output(lane.advance(clock.now))
        store.commit(lane)
        if number == BATCHES // 2:
            assert store.state is not None
            lane = Lane(0, 1, rules, read_lane_state(store.state))
            for row in store.rows.values():
                written.output(lane.restore(row, clock.now))
            assert not lane.restoring


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(20, len(SEEDS), 20))]
)
def test_all_that_is_written_can_be_read_and_is_valid(first: int, *, mapped: bool) -> None:
    """Every record is an event or a dead letter, and each of them is as the contract says.

    So it is in our own format, and by a table that has time, context and no session.
    """
    written = Written()
    for seed in SEEDS[first : first + 20]:
        try:
            go_through(seed, written, {"t": mapping(seed)} if mapped else {})
        except Exception as error:
            error.add_note(f"seed={seed}")
            raise
    wanted = {"SessionActive", "Heartbeat", "SessionEnd", *REASONS}
    wanted -= {"too_large", "not_avro", "unknown_schema"}
    wanted |= {"context"} if mapped else set()
    assert {name for name, count in written.counts.items() if count > 5} == wanted
