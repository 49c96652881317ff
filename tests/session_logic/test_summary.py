"""The summary of a session: flat, with what it carries, and as its end says."""

import json

import pytest
from msgspec import Raw
from msgspec.structs import astuple, replace

from session_logic.codec import decode_output, decode_summary, encode_output
from session_logic.events import EndOfSummary, SessionEnd, SessionSummary
from session_logic.output import batch_with
from session_logic.summary import FIELDS, end_of, summary_of
from tests.support.clocks import T
from tests.support.output_records import active, beat

PLAIN = SessionEnd("d", "s", "pc", T, T + 70, "replaced", 70)
CARRYING = SessionEnd("d", "s", "pc", T, T + 70, "ended", 70, Raw(b'{"a": 1.50,"b":{"c":[]}}'))
SILENT = replace(CARRYING, reason="went_silent", last_seen_ms=T + 9, duration_ms=9)


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
    value = summary_of(SILENT)
    assert value.endswith(
        b'"reason":"went_silent","last_seen_ms":%d,"a": 1.50,"b":{"c":[]}}' % (T + 9)
    )
    assert tuple(json.loads(value))[: len(FIELDS)] == FIELDS
    assert decode_summary(value).last_seen_ms == T + 9


def test_what_a_session_carries_stands_beside_the_other_fields_as_it_was() -> None:
    """Neither a space nor a zero changes, and what is an object stays one."""
    value = summary_of(CARRYING)
    assert value.endswith(b'"reason":"ended","a": 1.50,"b":{"c":[]}}')
    assert json.loads(value)["b"] == {"c": []}
    want = SessionSummary("d", "s", "pc", T, T + 70, 70, "ended")
    assert decode_summary(value) == want


@pytest.mark.parametrize("end", [PLAIN, CARRYING, SILENT], ids=["plain", "carrying", "silent"])
def test_end_is_told_by_its_summary(end: SessionEnd) -> None:
    """With all that it carries, as it was."""
    assert end_of(summary_of(end)) == EndOfSummary(*astuple(end))


@pytest.mark.parametrize("value", [b" " + summary_of(CARRYING), summary_of(CARRYING) + b" "])
def test_summary_in_another_form_tells_of_a_whole_end_or_of_none_that_is_carried(
    value: bytes,
) -> None:
    """Somebody else may have written it, and an end is JSON in any case."""
    assert decode_output(encode_output(end_of(value))).device_id == "d"


def test_each_end_has_a_summary_where_these_have_a_topic() -> None:
    """Starts and heartbeats have none, and the end stays where it was."""
    records = batch_with(["summaries"])
    for event in (active(), beat(1), PLAIN):
        records.add(event, b"value")
    assert (len(records), records.count()) == (3, 4)
    assert records.apart["summaries"].keys == ["d"]
    assert records.apart["summaries"].values == [summary_of(PLAIN)]
    assert records.apart["summaries"].due_ms == []
