"""`heartwheel schemas`: the files of the contract."""

from pathlib import Path
from typing import Annotated

import typer


def schemas_command(
    folder: Annotated[Path, typer.Argument(help="Folder to write the files to.")],
) -> None:
    """Write the contract: JSON Schema of input and output, and AsyncAPI of all topics."""
    from heartwheel.contract import write_schemas

    write_schemas(folder)
