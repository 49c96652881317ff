"""The pages of the documentation: their text, code, tables, links and headings."""

import re
from pathlib import Path

from msgspec import Struct

from tests.support.broker import ROOT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Page(Struct, frozen=True):
    """A page of Markdown."""

    path: Path

    @property
    def name(self) -> str:
        """Its path from the root of the repository."""
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text()

    @property
    def prose(self) -> str:
        """All of it but the blocks of code, which are empty lines."""
        return FENCE.sub(lambda block: "\n" * block[0].count("\n"), self.text)

    def blocks(self, language: str) -> list[str]:
        """Return the blocks of code of a language."""
        return [text for found, text in FENCE.findall(self.text) if found == language]

    def rows(self, title: str = "") -> list[list[str]]:
        """Return the cells of the rows of all tables in a section, or on the whole page."""
        section = self.prose
        if title:
            (section,) = re.findall(
                rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", self.prose, re.MULTILINE | re.DOTALL
            )
        lines = [line for line in section.splitlines() if line.startswith("|")]
        # A cell may hold "\|"; none does so far.
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return [row for row in cells if not all(set(cell) <= {"-"} for cell in row)]

    def anchors(self) -> set[str]:
        """Return the names of its headings, as GitHub and GitLab make them."""
        titles = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def links(self) -> list[str]:
        """Return the targets of all links and pictures."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)


README = Page(ROOT / "README.md")
PAGES = [README, *(Page(path) for path in sorted((ROOT / "docs").glob("*.md")))]


def page(name: str) -> Page:
    """Return a page of docs/."""
    return Page(ROOT / "docs" / name)
