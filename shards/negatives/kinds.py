"""The lists of hard negatives by name, and what a reader of them has to know. Imports next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

KINDS = ("retrieve", "replace", "confuse")  # those of the paper
MATCHED = "matched"  # those of `shards.negatives.matched`
ALL_KINDS = (*KINDS, MATCHED)

Lists = Mapping[str, Sequence[str]]


def drawn_from(lists: Lists, kinds: Sequence[str]) -> Sequence[str]:
    """The kinds; those of the paper for a sample that was packed before there were matched lists."""
    return KINDS if MATCHED in kinds and MATCHED not in lists else kinds


def true_caption(captions: Sequence[str]) -> str:
    """The caption of a sample that its matched negatives belong to."""
    return captions[0]
