"""What a check found: one line, how bad it is, and the fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

OK, WARN, MISS = "OK", "WARN", "MISS"  # MISS: a run would fail; WARN: it may, or something of it will be left out
NAMED_NODES = 3  # in a line


@dataclass(frozen=True)
class Finding:
    """What a check found on a node; plain values, so that it passes between processes."""

    check: str
    level: str
    found: str
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # numbers and versions that other checks compare
    node: str = ""


def ok(check: str, found: str, **facts: Any) -> Finding:
    """A finding that is as it should be."""
    return Finding(check, OK, found, facts=facts)


def warn(check: str, found: str, fix: str, **facts: Any) -> Finding:
    """A finding that a run may stumble over."""
    return Finding(check, WARN, found, fix, facts)


def miss(check: str, found: str, fix: str, **facts: Any) -> Finding:
    """A finding that a run fails of."""
    return Finding(check, MISS, found, fix, facts)


def merged(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Equal findings of several nodes as one, in order: {"check", "level", "found", "fix", "nodes", "facts"}."""
    groups: dict[tuple, dict[str, Any]] = {}
    for one in findings:
        key = (one.check, one.level, one.found, one.fix)
        if key in groups:
            groups[key]["nodes"].append(one.node)
        else:
            entry = asdict(one)
            groups[key] = {**{name: entry[name] for name in ("check", "level", "found", "fix")}, "nodes": [one.node],
                           "facts": one.facts}  # fmt: skip
    return list(groups.values())


def line(entry: dict[str, Any], nodes: int) -> str:
    """A merged finding as it is printed: level, check, nodes where it is not all of them, what was found, the fix."""
    named = [name for name in entry["nodes"] if name]
    where = f"{_named(named)}: " if named and len(named) < nodes else ""
    fix = f"; {entry['fix']}" if entry["fix"] else ""
    return f"{entry['level']:4}  {entry['check']:10}  {where}{entry['found']}{fix}"


def _named(nodes: Sequence[str]) -> str:
    more = [f"{len(nodes) - NAMED_NODES} more"] if len(nodes) > NAMED_NODES else []
    return ", ".join([*nodes[:NAMED_NODES], *more])
