"""The contract files say what the code does."""

import json
import re
from functools import reduce
from operator import getitem
from typing import get_args

from dataflows.metrics import REASONS
from heartwheel.contract import schemas
from session_logic.events import RejectReason
from tests.support.broker import ROOT


def test_contract_files_are_the_generated_ones() -> None:
    """Whoever changes a Struct writes the files again: heartwheel schemas schemas."""
    for name, schema in schemas().items():
        assert json.loads((ROOT / "schemas" / name).read_text()) == schema


def test_every_reference_of_the_asyncapi_document_leads_to_a_definition() -> None:
    """No channel, operation or message points at nothing."""
    document = schemas()["asyncapi.json"]
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert len(references) > 10
    for reference in references:
        assert reduce(getitem, reference.split("/"), document)


def test_every_reason_of_a_dead_letter_is_in_the_contract_the_metrics_and_the_docs() -> None:
    """A consumer that validates by the contract refuses no dead letter of ours."""
    reasons = get_args(RejectReason)
    headers = schemas()["asyncapi.json"]["components"]["schemas"]["DeadLetterHeaders"]
    assert headers["properties"]["heartwheel.reason"]["enum"] == list(reasons)
    assert reasons == REASONS
    for page in ("contract.md", "metrics.md"):
        text = (ROOT / "docs" / page).read_text()
        assert [reason for reason in reasons if reason not in text] == []
