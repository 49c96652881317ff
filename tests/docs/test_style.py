"""Pages that can be read in a terminal and reviewed line by line."""

import re

import pytest

from tests.support.pages import PAGES, README, Page

LONGEST_README, LONGEST_LINE = 130, 120
# A sentence that ends, and one that begins behind it.
TWO_SENTENCES = re.compile(r"[a-z0-9`)][.!?] +[A-Z`]")
KIB = 1024


def test_readme_is_short() -> None:
    """It is read before anything else, so it is no manual."""
    assert len(README.text.splitlines()) <= LONGEST_README


@pytest.mark.parametrize("source", PAGES, ids=lambda one: one.name)
def test_prose_has_short_lines_of_one_sentence(source: Page) -> None:
    """Tables and code may be wide; a line of prose is one sentence, or a part of one."""
    for number, line in enumerate(source.prose.splitlines(), 1):
        if line.startswith("|"):
            continue
        where = f"{source.name}:{number}: {line}"
        assert len(line) <= LONGEST_LINE, where
        after_lead = re.sub(r"^(- |\d\. )?\*\*.*?\*\*", "", line)
        assert not TWO_SENTENCES.search(after_lead), where


def test_pictures_are_small() -> None:
    """A page loads at once: no picture has more than 200 KiB."""
    pictures = {
        (source.path.parent / link).resolve()
        for source in PAGES
        for link in source.links()
        if link.endswith((".png", ".svg"))
    }
    assert len(pictures) >= 3
    for picture in pictures:
        assert picture.stat().st_size <= 200 * KIB, picture
