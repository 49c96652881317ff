"""The memory of a process in huge pages, so that fewer addresses have to be looked up.

Which session comes next is chance: it lies anywhere in the memory, and in pages of 4 KB the
processor seldom knows where that is. It then asks the page tables, which are in memory as well, and
in a virtual machine twice. A page of 2 MB takes the place of 512 and of their tables.

What is guaranteed: a process has no more memory by it, because only what is in use as a whole
becomes one huge page. Where the system has none (`never` in its `transparent_hugepage/enabled`, or
a Linux before 6.1), nothing is done.

How. Linux is asked for each piece of memory by itself (MADV_COLLAPSE in madvise(2)). To ask for all
that will be mapped (MADV_HUGEPAGE) would do harm: Python maps 1 MiB at a time, which Linux puts
together only while all of it is marked alike.

It is done bit by bit in a thread of its own, which does not have the interpreter's lock meanwhile.
Linux copies each piece, and nobody else gets memory then: so it is done slowly while a backlog is
read, when memory grows fastest.
"""

import ctypes
from collections.abc import Callable, Iterator
from mmap import PAGESIZE
from pathlib import Path
from threading import Event

# How often new memory is looked for, and how long to wait after each piece of it: as a rule, and
# while a backlog is read.
LOOK_S, PAUSE_S, BACKLOG_PAUSE_S = 5.0, 0.05, 0.5
MADV_COLLAPSE = 25
SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")


class HugePages:
    """Puts huge pages in the place of small ones, in the process that calls it."""

    def __init__(self, page_bytes: int) -> None:
        """Begin with none; page_bytes is the size of a huge page."""
        self._page_bytes = page_bytes
        self._size = ctypes.c_size_t(page_bytes)
        self._tried = set[int]()  # addresses that have one, or cannot have one
        self._libc = ctypes.CDLL(None)
        self._in_use = (ctypes.c_ubyte * (page_bytes // PAGESIZE))()

    def wanted(self) -> Iterator[int]:
        """Yield the address of each piece that is in use as a whole, and has not been tried yet.

        Whether it is in use is asked at its turn: much may have been given back since the first.
        """
        places = list(self._places())
        self._tried.intersection_update(places)  # what comes there later is other memory
        for place in places:
            if place not in self._tried and self._is_in_use(place):
                yield place

    def _places(self) -> Iterator[int]:
        """Yield each address at which this process may have a huge page of its own."""
        size = self._page_bytes
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, access, _, _, file, *name = line.split(maxsplit=5)
            if (access, file) == ("rw-p", "0") and name in ([], ["[heap]"]):
                begin, end = (int(address, 16) for address in addresses.split("-"))
                yield from range(-(-begin // size) * size, end - size + 1, size)

    def _is_in_use(self, place: int) -> bool:
        """Say whether all of the small pages from an address on are in memory."""
        if self._libc.mincore(ctypes.c_void_p(place), self._size, self._in_use):
            return False  # it has been given back since
        return 0 not in bytes(self._in_use)

    def put(self, place: int) -> None:
        """Put a huge page in the place of small ones; without effect where Linux does not."""
        self._tried.add(place)
        self._libc.madvise(ctypes.c_void_p(place), self._size, MADV_COLLAPSE)


def huge_pages() -> HugePages | None:
    """Return what puts them in this process, or None if the system has none."""
    try:
        if "[never]" in (SYSTEM / "enabled").read_text():
            return None
        return HugePages(int((SYSTEM / "hpage_pmd_size").read_text()))
    except (OSError, ValueError):
        return None


def use_huge_pages(stop: Event, at_end_of_input: Callable[[], bool]) -> None:
    """Keep the memory of this process in huge pages until it is stopped."""
    pages = huge_pages()
    while pages is not None and not stop.wait(LOOK_S):
        for place in pages.wanted():
            pages.put(place)
            if stop.wait(PAUSE_S if at_end_of_input() else BACKLOG_PAUSE_S):
                return
