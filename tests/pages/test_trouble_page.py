"""docs/trouble.md: the messages in its first columns are those that the code prints."""

from __future__ import annotations

import ast
import re

import pytest
from pages.doc_pages import ROOT, read

HOLE = "\0"  # in the place of a value that is put into a message
ROWS = [line.split("|")[1] for line in read("docs/trouble.md").splitlines() if line.startswith("|")]
MESSAGES = [span for row in ROWS for span in re.findall(r"`([^`]+)`", row) if " " in span]
FOREIGN = {"No space left on device"}  # of the system


def texts() -> list[str]:
    """Every string of the packages and scripts, values put into it as HOLE."""
    found = []
    for path in (path for top in ("idc", "shards", "cluster", "tune") for path in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    found += [path.read_text() for path in (ROOT / "slurm").glob("*.sh")]
    return found


TEXTS = texts()


def is_said(message: str) -> bool:
    """Whether the fixed parts of a message, which … divides, stand in one string in this order."""
    parts = [re.escape(part.strip()) for part in re.split("…", message) if part.strip()]
    pattern = re.compile(r"[^\n]*?".join(parts))
    return any(pattern.search(" ".join(text.split(" "))) for text in TEXTS)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_one_of_ours(message: str) -> None:
    assert message in FOREIGN or is_said(message)


def test_another_message_is_not() -> None:
    assert MESSAGES and not is_said("… has no wheels to drive on …")
