"""BLEU, METEOR, ROUGE-L and CIDEr by pycocoevalcap, in percent; a metric that cannot run is None, with the reason.

METEOR and the COCO tools' own tokenizer are Java programs. Without Java, METEOR is None, and the other metrics are made
of the tokens of `idc.metrics.words`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from idc.metrics import words
from idc.metrics.cider import Cider, cider, has_weights
from idc.metrics.java_process import run_java
from idc.metrics.metric import BLEU, CIDER, EACH, ROUGE_L, Metric
from idc.metrics.segmentation import CHARACTERS, is_unspaced, spaced

__all__ = [
    "METRICS", "NOTHING_SAID", "Cider", "Scored", "Tokens", "cider", "coco_metrics", "has_weights", "nothing",
    "score_sets", "tokenize", "tokenizer_name",
]  # fmt: skip

BY_TOKENS: tuple[Metric, ...] = (BLEU, ROUGE_L, CIDER)  # METEOR, which Java makes of text, comes after BLEU
METRICS = (*BLEU.names, "METEOR", *(name for metric in BY_TOKENS[1:] for name in metric.names))
TOKENIZERS = ("ptb", "split")
TIME_LIMIT_S = 600.0
# The tools fail on an empty sentence, or drop its line and shift all later ones. This word is in no reference.
NOTHING_SAID = "nothingsaid"

References = Mapping[str, Sequence[str]]
Scored = dict[str, Any]
"""Percent by metric, None where it could not be run; then "reasons" says why, by metric."""


class Tokens(NamedTuple):
    """Tokenized texts."""

    texts: list[str]  # tokens of each, joined by blanks
    tokenizer: str  # that made them
    reason: str = ""  # why it is another one than was asked for


def coco_metrics(
    references: References, predictions: Mapping[str, str], tokenizer: str = "ptb", time_limit: float = TIME_LIMIT_S
) -> Scored:
    """The metrics of METRICS in percent (CIDEr 128.9, not 1.289).

    references: key -> sentences; predictions: the same keys -> one sentence, which may be empty. tokenizer: "ptb", the
    COCO tools' own (lower case, no punctuation), or "split", at white space and nothing else. time_limit: seconds for
    what runs in Java. Where "ptb" cannot run, tokens are those of `idc.metrics.words` and reasons["tokenizer"] says
    so. CIDEr is None for fewer than two pairs, or where the references of all have the same words: it
    would be 0 whatever is said. Raises ValueError where the keys differ or a key has no reference.
    """
    return score_sets({"": (references, predictions)}, tokenizer, time_limit)[""]


def score_sets(
    sets: Mapping[str, tuple[References, Mapping[str, str]]],
    tokenizer: str = "ptb",
    time_limit: float = TIME_LIMIT_S,
    each: dict[str, np.ndarray] | None = None,
) -> dict[str, Scored]:
    """`coco_metrics` of several sets of predictions by name, with one start of Java for all of them.

    each: takes the CIDEr of every pair of a set in percent, (n,) in the order of its references, where CIDEr is known.
    """
    deadline = time.monotonic() + time_limit
    clean = {name: _clean(references, predictions) for name, (references, predictions) in sets.items()}
    texts = sorted({text for groups in clean.values() for group in groups for text in group})
    made = tokenize(texts, tokenizer, time_limit)
    tokens = {text: token or NOTHING_SAID for text, token in zip(texts, made.texts, strict=True)}
    tokenized = {name: [[tokens[text] for text in group] for group in groups] for name, groups in clean.items()}
    filled = {name: groups for name, groups in tokenized.items() if groups}

    results = {name: nothing("no pairs") for name in sets}
    for name, groups in filled.items():
        results[name], ciders = _by_tokens(groups)
        if each is not None and ciders is not None:
            each[name] = ciders
    if filled:
        request = [
            {"references": [group[1:] for group in groups], "predictions": [group[0] for group in groups]}
            for groups in filled.values()
        ]
        scores, reason = run_java({"meteor": request}, deadline)
        for number, name in enumerate(filled):
            if scores is None:
                results[name]["METEOR"] = None
                results[name].setdefault("reasons", {})["METEOR"] = reason
            else:
                results[name]["METEOR"] = 100 * scores[number]
    if made.reason:
        for result in results.values():
            result.setdefault("reasons", {})["tokenizer"] = made.reason
    return {name: _ordered(result) for name, result in results.items()}


def _clean(references: References, predictions: Mapping[str, str]) -> list[list[str]]:
    """[prediction, reference, ...] of each key: white space single, no empty sentence, no separator of METEOR's."""
    if references.keys() != predictions.keys():
        lacking = sorted(references.keys() ^ predictions.keys())
        raise ValueError(f"{lacking[0]!r} and {len(lacking) - 1} more are not in both references and predictions")
    rows = []
    for key, sentences in references.items():
        wanted = [text for text in (_one_line(sentence) for sentence in sentences) if text]
        if not wanted:
            raise ValueError(f"{key!r} has no references; leave it out")
        rows.append([_one_line(predictions[key]) or NOTHING_SAID, *wanted])
    return rows


def _one_line(text: str) -> str:
    return spaced(text.replace("|||", " "))


def _by_tokens(groups: list[list[str]]) -> tuple[Scored, np.ndarray | None]:
    """The metrics that need no Java, of tokenized groups [prediction, reference, ...], and the CIDEr of each."""
    references = {number: group[1:] for number, group in enumerate(groups)}
    predictions = {number: group[:1] for number, group in enumerate(groups)}
    result: Scored = {}
    reasons: dict[str, str] = {}
    for metric in BY_TOKENS:
        found = metric.compute(references, predictions)
        reasons |= found.pop("reasons", {})
        result |= found
    each = result.pop(EACH, None)
    return result | ({"reasons": reasons} if reasons else {}), each


def tokenize(texts: Sequence[str], tokenizer: str, time_limit: float = TIME_LIMIT_S) -> Tokens:
    """The tokens of each text, by the tokenizer "ptb" or "split"; by "words" where Java, which "ptb" needs, fails.

    A character of a script without spaces is a token by itself (`tokenizer_name` says so), also in reference sentences.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer is {tokenizer!r}; it can be {' or '.join(TOKENIZERS)}")
    lines = [spaced(text) for text in texts]
    if tokenizer == "split" or not texts:
        return Tokens(lines, tokenizer_name(tokenizer, texts))
    made, reason = run_java({"tokenize": lines}, time.monotonic() + time_limit)
    if made is None:
        made_here = [words.words(line) for line in lines]
        return Tokens(made_here, tokenizer_name(words.NAME, texts), f"ptb could not run: {reason}")
    return Tokens(made, tokenizer_name(tokenizer, texts))


def tokenizer_name(tokenizer: str, texts: Iterable[str]) -> str:
    """What a figure's tokens are, for who compares it: the tokenizer, and characters where a text made them tokens."""
    return f"{tokenizer}, {CHARACTERS}" if any(map(is_unspaced, texts)) else tokenizer


def nothing(reason: str) -> Scored:
    """The result where nothing could be run, and why."""
    return {name: None for name in METRICS} | {"reasons": dict.fromkeys(METRICS, reason)}


def _ordered(result: Scored) -> Scored:
    named = {name: None if result[name] is None else float(result[name]) for name in METRICS}
    return named | ({"reasons": result["reasons"]} if result.get("reasons") else {})
