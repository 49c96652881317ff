"""Huge pages in the place of small ones, as Linux tells of them."""

import ctypes
import os
from collections.abc import Iterator
from mmap import (
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    mmap,
)
from pathlib import Path
from threading import Event

import pytest

from dataflows import huge_pages as module
from dataflows.huge_pages import HugePages, huge_pages, use_huge_pages

MB = 1 << 20
LINUX = tuple(map(int, os.uname().release.split(".")[:2]))


@pytest.fixture
def memory() -> Iterator[mmap]:
    """Return 16 MB of memory of which nothing is in use."""
    with mmap(-1, 16 * MB, flags=MAP_PRIVATE | MAP_ANONYMOUS) as made:
        yield made


@pytest.fixture
def pages() -> HugePages:
    """Return what puts huge pages, where the machine of the tests can have them."""
    made = huge_pages()
    if made is None or LINUX < (6, 1):
        pytest.skip("this system has no huge pages, or a Linux before 6.1")
    return made


def kb_of(memory: mmap, what: str) -> int:
    """Return a figure of the mapping that has the memory, in KB."""
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    within = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            begin, end = (int(address, 16) for address in first.split("-"))
            within = begin <= place < end
        elif within and first == f"{what}:":
            return int(rest[0])
    pytest.fail(f"no {what}")


def at_end() -> bool:
    """Say that all input is read."""
    return True


def put_all(pages: HugePages) -> None:
    """Put all that are wanted."""
    for place in pages.wanted():
        pages.put(place)


def test_memory_in_use_gets_huge_pages_and_keeps_what_it_holds(
    memory: mmap, pages: HugePages
) -> None:
    """How many of them Linux finds room for is not said."""
    content = b"".join(number.to_bytes(8, "big") for number in range(2 * MB))
    memory.madvise(MADV_NOHUGEPAGE)  # else a system may give huge ones at once (`always`)
    memory.write(content)
    memory.madvise(MADV_HUGEPAGE)
    before_kb = kb_of(memory, "AnonHugePages")
    put_all(pages)
    assert kb_of(memory, "AnonHugePages") > before_kb
    assert memory[:] == content


def test_memory_that_is_not_in_use_as_a_whole_stays_as_small_as_it_is(
    memory: mmap, pages: HugePages
) -> None:
    """A thread's stack is mapped with 8 MB, of which it uses some KB."""
    for begin in range(0, 16 * MB, 2 * MB):
        memory[begin : begin + MB] = b"x" * MB
    before_kb = kb_of(memory, "Rss")
    put_all(pages)
    assert kb_of(memory, "Rss") < before_kb + 1024  # Python's own may be in the same mapping


def test_memory_that_is_given_back_meanwhile_is_not_taken_again(
    memory: mmap, pages: HugePages
) -> None:
    """Pages are put one after the other, which takes half a minute for a gigabyte."""
    memory.write(b"x" * 16 * MB)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    of_memory = [place for place in pages.wanted() if begin <= place < begin + 14 * MB]
    turns = pages.wanted()
    assert next(place for place in turns if place in of_memory) in of_memory[:-1]
    memory.madvise(MADV_DONTNEED)
    assert not set(of_memory) & set(turns)


def test_memory_is_tried_once(memory: mmap, pages: HugePages) -> None:
    """A second look finds nothing there, whether Linux has put a huge page or not."""
    memory.write(b"x" * 16 * MB)
    put_all(pages)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    of_memory = range(begin, begin + 16 * MB)
    assert not [place for place in pages.wanted() if place in of_memory]


def test_linux_without_the_call_goes_on_as_it_was(
    memory: mmap, pages: HugePages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 6.1 it knows no such advice."""
    monkeypatch.setattr(module, "MADV_COLLAPSE", 9_999)
    memory.write(b"x" * 16 * MB)
    before_kb = kb_of(memory, "AnonHugePages")
    put_all(pages)
    assert kb_of(memory, "AnonHugePages") == before_kb


@pytest.mark.parametrize("enabled", ["always madvise [never]\n", None])
def test_system_that_wants_none_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str | None
) -> None:
    """An operator has switched them off, or this is no Linux: the thread ends at once."""
    if enabled is not None:
        (tmp_path / "enabled").write_text(enabled)
        (tmp_path / "hpage_pmd_size").write_text(str(2 * MB))
    monkeypatch.setattr(module, "SYSTEM", tmp_path)
    assert huge_pages() is None
    use_huge_pages(Event(), at_end)


@pytest.mark.usefixtures("pages")
def test_run_goes_on_putting_pages_until_it_is_stopped(
    memory: mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come since the last look is found by the next one."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    stop, looks = Event(), [0]
    wanted = HugePages.wanted

    def look(pages: HugePages) -> Iterator[int]:
        looks[0] += 1
        if looks[0] == 2:
            memory.write(b"x" * 16 * MB)
        if looks[0] == 3:
            stop.set()
        return wanted(pages)

    monkeypatch.setattr(HugePages, "wanted", look)
    monkeypatch.setattr(module, "PAUSE_S", 0)
    use_huge_pages(stop, at_end)
    assert looks[0] == 3
    assert kb_of(memory, "AnonHugePages") > 0


@pytest.mark.parametrize("is_at_end", [True, False])
def test_backlog_is_read_before_many_pages_are_put(
    memory: mmap, pages: HugePages, monkeypatch: pytest.MonkeyPatch, *, is_at_end: bool
) -> None:
    """Each piece holds up whoever wants memory, so they come at a distance meanwhile."""
    memory.write(b"x" * 16 * MB)
    waits: list[float | None] = []

    class Stop(Event):
        """A stop that comes once the first look is over, and waits for nothing."""

        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return waits.count(module.LOOK_S) > 1

    monkeypatch.setattr(module, "huge_pages", lambda: pages)
    use_huge_pages(Stop(), lambda: is_at_end)
    first, *pauses, last = waits
    assert first == last == module.LOOK_S
    assert len(pauses) > 4
    assert {*pauses} == {module.PAUSE_S if is_at_end else module.BACKLOG_PAUSE_S}
