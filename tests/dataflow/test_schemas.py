"""The contract files say what the code does."""

import json

from dataflows.schemas import schemas
from tests.broker import ROOT


def test_contract_files_are_the_generated_ones() -> None:
    """Whoever changes a Struct writes the files anew: heartwheel schemas schemas."""
    for name, schema in schemas().items():
        assert json.loads((ROOT / "schemas" / name).read_text()) == schema
