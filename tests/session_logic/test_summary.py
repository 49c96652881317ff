"""The summary of a session: flat, with what it carries, and as its end says."""

import json

from msgspec import Raw
from msgspec.structs import replace

from session_logic.codec import decode_summary
from session_logic.events import SessionEnd, SessionSummary
from session_logic.output import batch_with
from session_logic.summary import FIELDS, ended_as, summary_of
from tests.support.clocks import T
from tests.support.output_records import active, beat

PLAIN = SessionEnd("d", "s", "pc", T, T + 70, "replaced", 70)
CARRYING = SessionEnd("d", "s", "pc", T, T + 70, "ended", 70, Raw(b'{"a": 1.50,"b":{"c":[]}}'))


def test_summary_has_the_fields_of_the_end_and_no_type() -> None:
    """It is one flat record for all that read a topic as a table."""
    assert json.loads(summary_of(PLAIN)) == {
        "device_id": "d",
        "session_id": "s",
        "platform": "pc",
        "started_ms": T,
        "ended_ms": T + 70,
        "duration_ms": 70,
        "reason": "replaced",
    }


def test_summary_of_a_session_that_went_silent_says_when_it_was_last_heard_of() -> None:
    """As its end does, before what it carries."""
    silent = replace(CARRYING, reason="went_silent", last_seen_ms=T + 9, duration_ms=9)
    value = summary_of(silent)
    assert value.endswith(
        b'"reason":"went_silent","last_seen_ms":%d,"a": 1.50,"b":{"c":[]}}' % (T + 9)
    )
    assert tuple(json.loads(value))[: len(FIELDS)] == FIELDS
    assert ended_as(value, silent) == value
    assert decode_summary(value).last_seen_ms == T + 9


def test_what_a_session_carries_stands_beside_the_other_fields_as_it_was() -> None:
    """Neither a space nor a zero changes, and what is an object stays one."""
    value = summary_of(CARRYING)
    assert value.endswith(b'"reason":"ended","a": 1.50,"b":{"c":[]}}')
    assert json.loads(value)["b"] == {"c": []}
    want = SessionSummary("d", "s", "pc", T, T + 70, 70, "ended")
    assert decode_summary(value) == want


def test_summary_with_another_end_keeps_what_it_carries() -> None:
    """Of the end that is told no more than time and reason are known."""
    other = SessionEnd("d", "s", "pc", T, T + 99, "timed_out", 99)
    assert ended_as(summary_of(PLAIN), other) == summary_of(other)
    changed = ended_as(summary_of(CARRYING), other)
    assert changed == summary_of(other)[:-1] + b',"a": 1.50,"b":{"c":[]}}'


def test_each_end_has_a_summary_where_these_have_a_topic() -> None:
    """Starts and heartbeats have none, and the end stays where it was."""
    records = batch_with(["summaries"])
    for event in (active(), beat(1), PLAIN):
        records.add(event, b"value")
    assert (len(records), records.count()) == (3, 4)
    assert records.apart["summaries"].keys == ["d"]
    assert records.apart["summaries"].values == [summary_of(PLAIN)]
    assert records.apart["summaries"].due_ms == []
