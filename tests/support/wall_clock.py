"""A wall clock of the runs of a test that can be set; the machine's own stays as it is."""

import mmap
import subprocess
import sys
from pathlib import Path

from tests.support.cluster import Cluster

SOURCE = Path(__file__).with_name("wall.c")


class SettableClock:
    """The wall clock as the runs of a cluster see it, with steps; it takes a C compiler."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Give it to what the cluster starts from now on."""
        library, file = folder / "wall.so", folder / "offset"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._offset = mmap.mmap(opened.fileno(), 8)
        cluster.variables |= {"LD_PRELOAD": str(library), "WALL_OFFSET_FILE": str(file)}

    def step(self, offset_s: int) -> None:
        """Set the clock so far from the true time."""
        self._offset[:] = offset_s.to_bytes(8, sys.byteorder, signed=True)
