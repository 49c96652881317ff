"""What the status page and `heartwheel top` show, as one plain value."""

from collections import defaultdict
from typing import Any

from dataflows.messages import DeadLetter
from dataflows.version import program_version
from heartwheel.http.health import Health
from heartwheel.http.history import History
from heartwheel.http.readings import Reading, Sample, total
from heartwheel.http.view import ProcessView
from session_logic.lane import Lane

# What is shown of the key and the value of a dead letter.
SHOWN_BYTES = 400


class Status:
    """Puts together what is known; reads no metric again, whoever asks and how often."""

    def __init__(self, view: ProcessView, health: Health) -> None:
        """Begin with an empty history."""
        self._settings = view.settings
        self._cluster = view.cluster
        self._run = view.run
        self._health = health
        self._started_ms = view.run.clock.now_ms()
        self.history = History()

    def describe(self, after_ms: float) -> dict[str, Any]:
        """Return the status, with the history after a moment; _ms is ms since 1970."""
        now_ms = self._run.clock.now_ms()
        reading = self.history.last
        unready = self._health.unready()
        return {
            "version": program_version(),
            "process": self._cluster.number,
            "processes": max(1, len(self._cluster.addresses)),
            "shard": self._settings.shard,
            "started_ms": self._started_ms,
            "now_ms": now_ms,
            "ready": unready is None,
            "reason": unready or "",
            "limits": {
                "ready_lag_s": self._settings.ready_lag_ms / 1000,
                "snapshot_s": self._settings.snapshot_ms / 1000,
                "heartbeat_s": self._settings.heartbeat_ms / 1000,
            },
            "active": _by_label(reading, Sample.ACTIVE, 1),
            "platforms": _platforms(reading),
            "lanes": [self._lane(number, now_ms) for number in self._settings.own_lanes],
            "consumer_lag": [
                {"topic": topic, "partition": int(partition), "records": records}
                for (topic, partition), records in reading[Sample.CONSUMER_LAG].items()
            ],
            "input_silence": _by_label(reading, Sample.INPUT_SILENCE),
            "events": _by_label(reading, Sample.EVENTS),
            "outcomes": _by_label(reading, Sample.OUTCOMES),
            "rejected": _by_label(reading, Sample.DEAD_LETTERS),
            "heartbeats": total(reading, Sample.HEARTBEATS),
            "reconciled": total(reading, Sample.RECONCILED),
            "sink_queue": total(reading, Sample.SINK_QUEUE),
            "snapshot": {
                "age_s": reading[Sample.SNAPSHOT_AGE].get(()),
                "p99_s": self.history.percentile(Sample.SNAPSHOT_DURATION, 0.99),
                "bytes": total(reading, Sample.SNAPSHOT_BYTES),
                "store_keys": total(reading, Sample.STORE_KEYS),
                "store_bytes": total(reading, Sample.STORE_BYTES),
            },
            "dead_letters": [
                _letter(letter) for letter in reversed(list(self._run.recent_dead_letters))
            ],
            "history": self.history.columns(after_ms),
        }

    def _lane(self, number: int, now_ms: int) -> dict[str, Any]:
        lane = self._run.lanes.get(number)
        if lane is not None:
            lag_ms = lane.lag_ms(now_ms)
            return {
                "lane": number,
                "state": self._state(lane, lag_ms),
                "active": lane.table.active,
                "lag_s": None if lag_ms is None else lag_ms / 1000,
            }
        owner = self._cluster.owner(number)
        if owner == self._cluster.number:
            return {"lane": number, "state": "waiting"}
        address = self._cluster.addresses[owner]
        return {"lane": number, "state": "elsewhere", "process": owner, "address": address}

    def _state(self, lane: Lane, lag_ms: int | None) -> str:
        if lane.restoring:
            return "restoring"
        if lag_ms is None:
            return "waiting"
        return "behind" if lag_ms > self._settings.ready_lag_ms else "live"


def _by_label(reading: Reading, name: Sample, place: int = 0) -> dict[str, float]:
    """Return the sums of a metric by the label in a place."""
    sums: defaultdict[str, float] = defaultdict(float)
    for labels, value in reading[name].items():
        sums[labels[place]] += value
    return dict(sums)


def _platforms(reading: Reading) -> list[dict[str, Any]]:
    """Return the sessions of each platform, and what has been counted of it."""
    active = _by_label(reading, Sample.ACTIVE, 1)
    counted = _by_label(reading, Sample.EVENTS, 1)

    def of(platform: str, name: Sample) -> dict[str, float]:
        return {kind: count for (kind, its), count in reading[name].items() if its == platform}

    return [
        {
            "platform": platform,
            "active": active.get(platform, 0.0),
            "events": of(platform, Sample.EVENTS),
            "outcomes": of(platform, Sample.OUTCOMES),
        }
        for platform in sorted(active.keys() | counted.keys())
    ]


def _letter(letter: DeadLetter) -> dict[str, Any]:
    offset, time_ms, key, value, *_ = letter.message
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": offset,
        "time_ms": time_ms,
        "reason": letter.reason,
        "detail": letter.detail[:SHOWN_BYTES],
        "key": _shown(key),
        "value": _shown(value),
    }


def _shown(data: bytes | None) -> str | None:
    return None if data is None else data[:SHOWN_BYTES].decode(errors="backslashreplace")
