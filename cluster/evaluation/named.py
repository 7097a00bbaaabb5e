"""Accuracies in parts: by kind of change, by the attributes that sentences name, and by the place of the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shards.blocks.grammar import Change
from shards.edits.grammar import CORNERS, SIDES

_AREAS = {**dict.fromkeys(CORNERS, "corner"), **dict.fromkeys(SIDES, "side"), "middle": "middle"}
_OF = ("changed", "type", "object")  # accuracies that a kind of change has


def accuracy_by(
    kinds: Sequence[str | None],
    claims: Sequence[Change | None],
    truths: Sequence[Mapping[str, Any] | None],
    right: Mapping[str, Sequence[bool | None]],
) -> dict[str, dict[str, Any]]:
    """{"type", "attribute", "place"}, each a table of accuracies in percent; "n" says of how many pairs each row is.

    One entry a pair: its kind of change, what its sentence claims, its truth; `right` as `scores.right_of` gives it.
    type: kind -> the accuracies of its pairs, None where they cannot be judged. attribute: of the sentences with the
    right kind of change that name it, those that name it right; "new color" is what a thing turned, "new place" where
    it went. place: the same of the places alone, in corners, at sides and in the middle.
    """
    by_type: dict[str, dict[str, list[bool | None]]] = {}
    named: dict[str, list[bool]] = {}
    areas: dict[str, list[bool]] = {}
    for place, (kind, claim, truth) in enumerate(zip(kinds, claims, truths, strict=True)):
        if kind is not None:
            row = by_type.setdefault(kind, {name: [] for name in _OF})
            for name in _OF:
                row[name].append(right[name][place])
        if truth is None or claim is None or claim.type == "none" or not right["type"][place]:
            continue
        known = (truth.get("object") or {}, truth.get("to") or {})
        for said, true, new in zip((claim.object, claim.to or {}), known, ("", "new "), strict=True):
            for name, value in said.items():
                if name not in true:
                    continue
                named.setdefault(name if name == "direction" else new + name, []).append(value == true[name])
                if name == "place" and true[name] in _AREAS:
                    areas.setdefault(_AREAS[true[name]], []).append(value == true[name])
    return {
        "type": {
            kind: {name: share_of([one for one in ones if one is not None]) for name, ones in row.items()}
            | {"n": len(row["changed"])}
            for kind, row in sorted(by_type.items())
        },
        "attribute": {name: {"right": share_of(ones), "n": len(ones)} for name, ones in sorted(named.items())},
        "place": {area: {"right": share_of(ones), "n": len(ones)} for area, ones in sorted(areas.items())},
    }


def share_of(right: Sequence[bool]) -> float | None:
    """Percent that are right; None of nothing."""
    return 100 * sum(right) / len(right) if right else None
