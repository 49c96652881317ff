"""`heartwheel schemas`: the files of the contract."""

from pathlib import Path
from typing import Annotated

import typer

from session_logic.errors import ConfigError


def schemas_command(
    folder: Annotated[Path, typer.Argument(help="Folder to write the files to.")],
) -> None:
    """Write the contract: JSON Schema of input and output, and AsyncAPI of all topics."""
    from heartwheel.contract import write_schemas

    try:
        write_schemas(folder)
    except OSError as error:
        msg = f"{folder} cannot be written to ({error.strerror}); name a folder that can be made"
        raise ConfigError(msg) from None
