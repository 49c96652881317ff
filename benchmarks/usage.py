"""What processes and the whole machine use, from the kernel's own counts."""

import contextlib
import os
import threading
import time
from collections import defaultdict
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(*pids: int) -> float:
    """Return the processor time that processes have used, from the scheduler's own count."""
    return sum(thread_cpu_s(*pids).values())


def turns(pid: int) -> int:
    """Return how often the threads of a process were given a core: what wakes up often costs."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            count += int((task / "schedstat").read_text().split()[2])
    return count


def thread_cpu_s(*pids: int) -> dict[str, float]:
    """Return the processor time of processes by the names of their threads."""
    used: defaultdict[str, float] = defaultdict(float)
    for task in (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            name = (task / "comm").read_text().strip()
            used[name] += int((task / "schedstat").read_text().split()[0]) / 1e9
    return used


def memory_bytes(*pids: int) -> int:
    """Return the resident memory of processes."""
    return sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE_BYTES for p in pids)


class Machine:
    """How quiet the machine is from now on: what no process uses, and what the host takes away."""

    def __init__(self) -> None:
        """Begin."""
        self._begin = _machine_ticks()

    def stop(self) -> dict[str, float]:
        """Return the shares of all cores' time that were idle and stolen, and the cores in use."""
        ticks = [now - then for now, then in zip(_machine_ticks(), self._begin, strict=True)]
        # user, nice, system, idle, iowait, irq, softirq, steal; who waits for a disk uses no core.
        idle, steal, total = ticks[3] + ticks[4], ticks[7], max(1, sum(ticks))
        cores = (os.cpu_count() or 1) * (1 - (idle + steal) / total)
        return {"idle": idle / total, "steal": steal / total, "used_cores": cores}


def _machine_ticks() -> list[int]:
    # The columns for guests, after these, are counted in user and nice as well.
    return [int(word) for word in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]


class Cores:
    """Samples the cores that processes use, by the name of their group, once a second."""

    def __init__(self, pids: dict[str, list[int]]) -> None:
        """Begin to sample in a thread."""
        self.samples: list[dict[str, float]] = []
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        last, last_s = self._used_s(), time.monotonic()
        while not self._over.wait(1):
            now, now_s = self._used_s(), time.monotonic()
            self.samples.append({k: (now[k] - last[k]) / (now_s - last_s) for k in now})
            last, last_s = now, now_s

    def _used_s(self) -> dict[str, float]:
        return {name: cpu_s(*pids) for name, pids in self._pids.items()}

    def stop(self) -> dict[str, float]:
        """Return the mean of every group."""
        self._over.set()
        self._thread.join()
        count = max(1, len(self.samples))
        return {n: sum(s[n] for s in self.samples) / count for n in self._pids}
