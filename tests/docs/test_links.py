"""Every link leads somewhere, and every page can be found."""

import pytest

from tests.support.pages import PAGES, Page, page


@pytest.mark.parametrize("source", PAGES, ids=lambda one: one.name)
def test_links_lead_somewhere(source: Page) -> None:
    """A relative link names a file or folder; an anchor is a heading of that page."""
    broken = []
    for link in source.links():
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        path = (source.path.parent / target).resolve() if target else source.path
        if not path.exists() or (anchor and anchor not in Page(path).anchors()):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links each page beside it."""
    names = {one.path.name for one in PAGES if one.path.parent.name == "docs"} - {"README.md"}
    assert len(names) > 10
    assert names <= set(page("README.md").links())
