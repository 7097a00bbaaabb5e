"""docs/trouble.md: the messages in its first columns are those that the code prints."""

from __future__ import annotations

import ast
import re

import pytest
from pages.doc_pages import ROOT, read

from cluster.errors import Stopped

NAMES = {"exit_code", "USER_ERROR", "INTERRUPTED", "SOME_LOST"}  # of exit codes
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


def exit_codes() -> set[int]:
    """Every number that the packages name as an exit code, or end with."""
    found = set()
    for package in ("idc", "shards", "cluster", "tune"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            if not any(name in text for name in (*NAMES, "sys.exit", "SystemExit", "def main")):
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Assign) and NAMES & {name.id for name in ast.walk(node) if hasattr(name, "id")}:
                    ends = [node.value]
                elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "SystemExit"):
                    ends = node.args
                elif isinstance(node, ast.FunctionDef) and node.name == "main":
                    ends = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value]
                else:
                    continue
                numbers = [number for end in ends for number in ast.walk(end) if isinstance(number, ast.Constant)]
                found |= {number.value for number in numbers if type(number.value) is int}
    return found


def test_exit_codes_are_those_of_the_code() -> None:
    assert {int(row) for row in ROWS if row.strip().isdigit()} == exit_codes() >= {0, 1, 2, 3, 85, 130}
    assert f"STOPPED={Stopped.exit_code} " in (ROOT / "slurm" / "requeue.sh").read_text()


def test_another_message_is_not() -> None:
    assert MESSAGES and not is_said("… has no wheels to drive on …")
