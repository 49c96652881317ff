"""How the C library keeps the memory that a run frees, for the records that come next.

Kafka's client takes a block for every record and gives it back when that is acknowledged, so that
a thousand come back together. glibc keeps seven of a size at hand, and merges and splits all
others. To keep them all saves an eighth of the processor time of a run that does little else.

glibc takes this number only from a variable, as a process begins.
"""

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.tcache_count"
KEPT_BLOCKS = 1000
# Before it, the number was a byte.
FIRST_VERSION = (2, 30)


def keep_freed_memory() -> None:
    """Begin this process anew with the variable, unless it has it or has another C library.

    Nothing may have been done yet that a new beginning would do again. The process id stays.
    """
    tunables = os.environ.get(VARIABLE, "")
    if TUNABLE in tunables or not _is_glibc():
        return
    given = f"{tunables}:" if tunables else ""
    environment = os.environ | {VARIABLE: f"{given}{TUNABLE}={KEPT_BLOCKS}"}
    os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606  # itself, as it was begun


def _is_glibc() -> bool:
    """Say whether the C library is a glibc that knows the number."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return name == "glibc" and tuple(map(int, version.split(".")))[:2] >= FIRST_VERSION
    except (ValueError, OSError):
        return False
