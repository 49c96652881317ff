"""The dataflow under Bytewax with a testing source and sink, and a history for it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSink, TestingSource, run_main

from dataflows.messages import PartitionBatch
from dataflows.sessions import build_flow
from dataflows.settings import Settings
from session_logic.clock import PartitionProgress
from session_logic.output import OutputBatch
from tests.support.events import decoded

LANES = 4
SETTINGS = Settings(lanes=LANES, heartbeat_ms=1_000, max_session_ms=3_600_000)
T = 1_700_000_000_000


def message(
    offset: int, kind: str, device: str, session: str
) -> tuple[int, int, bytes, bytes, bool]:
    """Return a message of one second later for each offset."""
    value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'
    return offset, T + offset * 1_000, device.encode(), value.encode(), False


def history(count: int) -> list[PartitionBatch]:
    """Return polls of one partition, which is behind all the while, so time is the log's."""
    polls = []
    for offset in range(count):
        device = f"d{offset % 7}"
        kind = "End" if offset % 5 == 4 else "Start"
        one = message(offset, kind, device, f"s{offset // 7}")
        polls.append(PartitionBatch("t", 0, "pc", [one], PartitionProgress("t/0", 1, one[1])))
    return polls


def run(
    items: list[Any],
    folder: Path,
    out: list[Any],
    epoch_ms: int = 0,
    settings: Settings = SETTINGS,
) -> None:
    """Run the flow over the items once, from what the folder holds."""
    flow = build_flow(TestingSource(items), TestingSink(out), settings)
    run_main(
        flow,
        epoch_interval=timedelta(milliseconds=epoch_ms),
        recovery_config=RecoveryConfig(folder, backup_interval=timedelta(0)),
    )


def sent(out: list[Any]) -> list[Any]:
    """Return every record that came out."""
    return [e for _, item in out if isinstance(item, OutputBatch) for e in decoded(item)]
