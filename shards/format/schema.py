"""What the json of a sample must hold, by its kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shards.errors import shown

NEGATIVES = {"retrieve", "replace", "confuse"}
NEWER = {"matched"}  # negatives that folders packed earlier lack


def faults(sample: Any, kind: str, classes: Sequence[str]) -> Iterator[str]:
    """What is wrong with a sample's parsed json in a shard of this kind, a line each; `classes` are the manifest's."""
    if not isinstance(sample, dict):
        yield "not a JSON object"
        return
    if sample.get("kind") != kind:
        yield f"'kind' is {shown(sample.get('kind'))} in a shard of {kind}"
    for field in ("source", "id"):
        if not isinstance(sample.get(field), str):
            yield f"{field!r} is not text"
    if kind == "class":
        number = sample.get("class_id")
        if not isinstance(number, int) or not 0 <= number < len(classes):
            yield f"'class_id' is {shown(number)} and the manifest has {len(classes)} classes"
        elif sample.get("class_name") != classes[number]:
            yield f"'class_name' is {shown(sample.get('class_name'))}, class {number} is {classes[number]!r}"
        return
    if not _is_texts(sample.get("captions")):
        yield "'captions' is not a list of text"
    negatives = sample.get("negatives")
    if (
        not isinstance(negatives, dict)
        or set(negatives) - NEWER != NEGATIVES
        or not all(map(_is_texts, negatives.values()))
    ):
        yield f"'negatives' is not {', '.join(sorted(NEGATIVES))} with lists of text"
    if kind == "pair":
        if not (sample.get("changed") is None or isinstance(sample["changed"], bool)):
            yield "'changed' is not true, false or null"
        if not (sample.get("change_type") is None or isinstance(sample["change_type"], str)):
            yield "'change_type' is not text or null"
    if not isinstance(sample.get("truth", {}), dict):
        yield "'truth' is not an object"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
