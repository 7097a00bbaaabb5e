"""The pages of the project: their text, their code blocks, and the commands in these."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "tests" / "README.md")
)
# These tell what was: files and commands in them may be gone.
HISTORY = ("CHANGELOG.md", "docs/experiments.md")
CURRENT = [page for page in PAGES if page not in HISTORY]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)


class Block(NamedTuple):
    """A fenced block of a page; `language` is the word behind its first fence."""

    language: str
    text: str


def read(page: str) -> str:
    """The text of a page by its name from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in order."""
    return [Block(*found) for found in _BLOCK.findall(read(page))]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", read(page))


def commands(page: str) -> list[str]:
    """The lines of shell blocks, one command each; lines that end in a backslash are joined with the next."""
    found = []
    for block in blocks(page):
        if block.language in ("sh", "bash", "console"):
            found += block.text.replace("\\\n", " ").splitlines()
        elif block.language == "":  # layouts, tables and output stand in such blocks too
            found += [line for line in block.text.replace("\\\n", " ").splitlines() if line.startswith("python ")]
    return [line for line in found if line.strip() and not line.startswith("#")]
