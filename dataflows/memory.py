"""How much memory a process may use, and how seldom it looks for garbage."""

import os
from pathlib import Path

# Sessions make no reference cycles, and a collection that comes to the slots of the wheel walks all
# of them for nothing: 0.1 s for 2 million. What makes cycles, such as HTTP, makes few.
GC_THRESHOLDS = (1_000_000, 100, 1_000_000)
# Of a container, in both versions of cgroups; a number, or that there is no limit.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def limit_bytes() -> int:
    """Return the limit of the container, or the memory of the machine if that is less."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMITS:
        try:
            limit = min(limit, int(Path(name).read_text()))
        except (OSError, ValueError):
            continue
    return limit
