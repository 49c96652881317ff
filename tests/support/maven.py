"""What tests get from Maven on first use: a folder below .cache, once for all their workers."""

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

POM = Path(__file__).parent / "kafka-pom.xml"


def fetch(
    folder: Path,
    goal: str,
    *options: str,
    pom: Path = POM,
    unpack: Callable[[Path], None] | None = None,
) -> Path:
    """Return a folder with what a goal of Maven puts there; unpack is called before it is whole."""
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of the tests may be at it
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            command = ["mvn", "-q", "-B", "-C", "-f", str(pom), goal, f"-DoutputDirectory={part}"]
            subprocess.run([*command, *options], check=True)
            if unpack is not None:
                unpack(part)
            part.rename(folder)
    return folder
