"""`heartwheel schemas`: the files of the contract."""

from pathlib import Path
from typing import Annotated

import typer


def schemas_command(
    folder: Annotated[Path, typer.Argument(help="Where to write the JSON Schema files.")],
) -> None:
    """Write the contract: JSON Schema for input and for output, and AsyncAPI for all of it."""
    from heartwheel.contract import write_schemas

    write_schemas(folder)
