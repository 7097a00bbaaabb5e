"""No page grows into a book: words of prose, tables, code and what programs write between marks left out."""

from __future__ import annotations

import re

import pytest
from pages.doc_pages import CURRENT, prose

MOST = 1800  # words; a page that needs more is two pages
SHORTER = {
    "README.md": 900,
    "docs/README.md": 300,
    "docs/results.md": 800,
    "docs/training.md": 900,
    "docs/clusters.md": 800,
}


def words(page: str) -> int:
    """The words of a page that somebody has to read from end to end."""
    text = re.sub(r"<!-- (\w+) -->.*?<!-- end -->", "", prose(page), flags=re.S)
    text = re.sub(r"^\|.*$|!\[[^\]]*\]\([^)]*\)", "", text, flags=re.M)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


@pytest.mark.parametrize("page", CURRENT)
def test_a_page_is_short_enough_to_be_read(page: str) -> None:
    assert words(page) <= SHORTER.get(page, MOST), "shorten it, or move a part to where it belongs"
