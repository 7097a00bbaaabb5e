"""The parts of the command, in order, and how the minutes are shared out among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GRACE_S = 10.0  # past its share, before a part is stopped; parts look at the clock themselves
RESERVE_S = 3.0  # of the whole, for the summary


@dataclass(frozen=True)
class Part:
    """A module with `run(record)`, and its claim on the time."""

    module: str
    weight: float  # share of the time, beside the other parts'
    least: float  # seconds below which it is not begun
    most: float = float("inf")  # seconds after which it has nothing left to do
    goes_on: bool = False  # with what an earlier command has found


PARTS: dict[str, Part] = {
    "machine": Part("bench.gpu.machine", weight=1, least=2, most=20),
    "ceilings": Part("bench.gpu.parts.ceilings", weight=2, least=4, most=40),
    "correctness": Part("bench.gpu.parts.correctness", weight=10, least=15, most=240),
    "speed": Part("bench.gpu.parts.speed", weight=8, least=15, most=200),
    "training": Part("bench.gpu.parts.training", weight=14, least=150, most=1200),
    "claim": Part("bench.gpu.parts.claim", weight=12, least=120, goes_on=True),
}


def share(parts: Mapping[str, Part], left: float) -> dict[str, float]:
    """Seconds of each part that fits into the seconds left, in order; parts that do not fit are not in it.

    Time is shared by weight; what a part cannot use goes to the others. Where a share is below what its part needs,
    the last part is given up: the order of the parts is that of their worth.
    """
    chosen = dict(parts)
    while chosen:
        found = _by_weight(chosen, left)
        if all(found[name] >= part.least for name, part in chosen.items()):
            return found
        chosen.popitem()
    return {}


def _by_weight(parts: Mapping[str, Part], left: float) -> dict[str, float]:
    found: dict[str, float] = {}
    open_parts = dict(parts)
    while open_parts:
        whole = sum(part.weight for part in open_parts.values())
        full = {name: part.most for name, part in open_parts.items() if left * part.weight / whole > part.most}
        if not full:
            return {name: found.get(name, left * part.weight / whole) for name, part in parts.items()}
        found |= full
        left -= sum(full.values())
        open_parts = {name: part for name, part in open_parts.items() if name not in full}
    return found
