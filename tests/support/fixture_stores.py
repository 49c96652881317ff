"""The stored state of every version, and the sessions that are in it."""

from pathlib import Path

from dataflows.decode import Decode
from dataflows.messages import LaneBatch
from dataflows.run_state import RunState
from session_logic.events import Watermark
from tests.support.clocks import FixedClock
from tests.support.flow import SETTINGS, T, history
from tests.support.model import Model

FOLDER = Path(__file__).parents[1] / "fixtures"
POLLS = 40


def sessions(kind: type[Decode] = Decode) -> dict[str, str]:
    """Return the active session of each device after the history, by the model."""
    decode = kind(1, 10**13, RunState(FixedClock(T)))
    batches = [item for _, item in decode(history(POLLS))]
    model = Model(SETTINGS.rules())
    for fact in [fact for batch in batches if isinstance(batch, LaneBatch) for fact in batch.facts]:
        model.apply(fact, Watermark(-1))
    return {
        device: lives[-1].fact.session_id
        for device, lives in model.lives.items()
        if lives[-1].ended_ms is None
    }
