"""The contract files say what the code does."""

import json
import re
from functools import reduce
from operator import getitem

from heartwheel.contract import schemas
from tests.support.broker import ROOT


def test_contract_files_are_the_generated_ones() -> None:
    """Whoever changes a Struct writes the files anew: heartwheel schemas schemas."""
    for name, schema in schemas().items():
        assert json.loads((ROOT / "schemas" / name).read_text()) == schema


def test_every_reference_of_the_asyncapi_document_leads_to_a_definition() -> None:
    """No channel, operation or message points at nothing."""
    document = schemas()["asyncapi.json"]
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert len(references) > 10
    for reference in references:
        assert reduce(getitem, reference.split("/"), document)
