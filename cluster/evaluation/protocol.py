"""What figures are of, and the protocols that have a name: with another protocol they are other figures."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cluster.config.fields import Config, FinetuneConfig
from idc.metrics.coco import METRICS, tokenizer_name
from shards.reading.reader import Folder

SCALE = "percent; CIDEr 100 is the COCO tools' 1.0; skill is a share"
MERGE = "every caption of a pair is a reference by itself"
TOKENIZERS = {
    "ptb": "PTB tokenizer of the COCO tools: lower case, punctuation left out",
    "words": "a tokenizer without Java: not comparable with published numbers",
    "split": "split at white space",
}
METRICS_PACKAGE = "pycocoevalcap"
MEAN_OF_FOUR, FOUR = "S*m", ("BLEU-4", "METEOR", "ROUGE_L", "CIDEr")
SETS = ("total", "changed", "unchanged")  # of scores.json; "by_type" has one for each kind of change
_HALVES = (*SETS, "by_type")


class Named(NamedTuple):
    """One way to score that people publish figures of."""

    tokenizer: str  # of `idc.metrics.coco`
    references: str  # which sentences they are
    merging: str  # which rows of the data set are one pair
    subsets: tuple[str, ...]  # sets that figures are given of
    metrics: tuple[str, ...]
    source: str  # who scores like this
    data: str = ""  # the source of `shards.pack` that it is for; "" = any
    packed: str = ""  # the --protocol that the data are packed with


_ANY = "as packed"
# By name. A run's own scores have the last row that fits its data and tokenizer.
NAMED = {
    "coco": Named(
        "ptb", MERGE, _ANY, _HALVES, METRICS, "the COCO caption tools (Chen et al. 2015), by pycocoevalcap"
    ),
    "split": Named(
        "split", MERGE, _ANY, _HALVES, METRICS, "the COCO metrics on words as they are: what validation uses"
    ),
    "clevr_change": Named(
        "ptb", MERGE, "a scene is two pairs, with the change and without", _HALVES, METRICS,
        "Park et al. 2019, utils/eval_utils.py of Seth-Park/RobustChangeCaptioning", "clevr_change",
    ),
    "spot_the_diff/single": Named(
        "ptb", "each sentence of each person", "rows of one img_id are a pair", ("total",), METRICS,
        "Jhamtani and Berg-Kirkpatrick 2018; CLIP4IDC (Guo et al. 2022)", "spot_the_diff", "single",
    ),
    "spot_the_diff/multi": Named(
        "ptb", "the sentences of a person, joined by '. '", "rows of one img_id are a pair", ("total",), METRICS,
        "the multi-change captions of CARD (Tu et al. 2024), which joins what several people wrote, too",
        "spot_the_diff", "multi",
    ),
    "levir_cc": Named(
        "ptb", MERGE, "a file name is a pair", SETS, (*METRICS, MEAN_OF_FOUR),
        "Liu et al. 2022, eval.py of Chen-Yang-Liu/RSICC, which scores ids of its vocabulary (rare words are one) and "
        "calls a pair unchanged by its second sentence; S*m: Liu et al. 2023", "levir_cc",
    ),
    "image_editing_request": Named(
        "ptb", MERGE, "a request (uid) is a pair", ("total",), METRICS,
        "Tan et al. 2019, langeval of airsplay/VisualRelationships", "image_editing_request",
    ),
}  # fmt: skip


def name_of(shards: Folder, tokenizer: str) -> str | None:
    """The name of the protocol for these data with this tokenizer; None with "words", which no protocol has."""
    source, packed = shards.manifest["source"], shards.manifest["options"].get("protocol", "")
    for name, row in reversed(NAMED.items()):  # those of data sets come before those of any
        if row.tokenizer == tokenizer and row.data in ("", source) and (not row.packed or row.packed == packed):
            return name
    return None


def of_data(
    shards: Folder,
    split: str,
    predictions: Sequence[Mapping[str, Any]],
    limit: int,
    asked: str,
    code: Mapping[str, Any],
    tokenizer: str = "",
) -> dict[str, Any]:
    """What the object "protocol" of scores.json says of anybody's captions.

    shards, split: what was captioned. predictions: as scored. limit: the first so many pairs alone; 0 = all. asked: the
    tokenizer that was asked for. code: as of `cluster.launch.run_folder.code_state`. tokenizer: that made the tokens,
    as scores.json names it; "" = the one that was asked for.
    """
    counts = [len(prediction["references"]) for prediction in predictions if prediction["references"]]
    options = shards.manifest["options"]
    joined = {"packed_with": f"--protocol {options['protocol']}"} if options.get("protocol") else {}
    texts = [text for prediction in predictions for text in (prediction["caption"], *prediction["references"])]
    used, _, characters = (tokenizer or tokenizer_name(asked, texts)).partition(", ")
    return {
        "name": name_of(shards, used),
        "scale": SCALE,
        "data": {"name": shards.path.name, "manifest_sha256": shards.sha256()},
        "split": split,
        "pairs": {
            "scored": len(counts),
            "in_split": len(shards.stream("pair", split)),
            "limit": limit or None,
        },
        "references": {
            "min": min(counts, default=None),
            "mean": sum(counts) / len(counts) if counts else None,
            "max": max(counts, default=None),
            "merge": MERGE,
            **joined,
        },
        "tokenizer": TOKENIZERS[used] + (f"; {characters}" if characters else ""),
        "metrics": f"{METRICS_PACKAGE} {importlib.metadata.version(METRICS_PACKAGE)}",
        "code": dict(code),
    }


def protocol(
    config: Config,
    shards: Folder,
    split: str,
    predictions: Sequence[Mapping[str, Any]],
    max_length: int,
    code: Mapping[str, Any],
    chosen: Mapping[str, Any] | None,
    tokenizer: str = "",
) -> dict[str, Any]:
    """The object "protocol" of a run's scores.json: `of_data`, and how captions were made.

    max_length: tokens of the longest sentence the model can say. chosen: the commit of the scored checkpoint as plain
    values, None where the run folder has none.
    """
    settings = config.evaluate
    found = of_data(shards, split, predictions, settings.limit, settings.tokenizer, code, tokenizer)
    found["decoding"] = {"beam": settings.beam, "length_penalty": settings.length_penalty, "max_length": max_length}
    found["selection"] = selection(config, chosen)
    found["code"] = found.pop("code")
    return found


def with_mean_of_four(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores, with "S*m" in each set of figures where their protocol has it: the mean of four metrics.

    None where one of them is, with its reason.
    """
    row = NAMED.get(scores["protocol"]["name"] or "")
    if row is None or MEAN_OF_FOUR not in row.metrics:
        return scores
    others = [*scores["baselines"].values(), *([scores["oracle"]] if scores["oracle"] else [])]
    others += [one["changed"] for one in others if "changed" in one]
    for one in (*(scores[name] for name in SETS), *scores["by_type"].values(), *others):
        lacking = [name for name in FOUR if one[name] is None]
        if lacking:
            why = one["reasons"][lacking[0]]
            one["reasons"] = one["reasons"] | {MEAN_OF_FOUR: f"{lacking[0]} is null: {why}"}
        one[MEAN_OF_FOUR] = None if lacking else sum(one[name] for name in FOUR) / len(FOUR)
    return scores


def hashes(predictions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """SHA-256 of the captions that were scored and of their references, whatever file they came in: a line of JSON,
    [key, caption] or [key, references], for each pair that has references, in the order of the split."""
    captions, references = hashlib.sha256(), hashlib.sha256()
    for one in predictions:
        if one["references"]:
            captions.update(json.dumps([one["key"], one["caption"]]).encode() + b"\n")
            references.update(json.dumps([one["key"], one["references"]]).encode() + b"\n")
    return {"captions": captions.hexdigest(), "references": references.hexdigest()}


def selection(config: Config, chosen: Mapping[str, Any] | None) -> dict[str, Any]:
    """How the scored checkpoint was chosen: {"stage", "rule": "last" or "best", "metric", "split", "pairs"}.

    metric, split, pairs: of the rule "best"; pairs None: all of the split. {"rule": None, "reason"} where no checkpoint
    is there, as of an imported model.
    """
    if chosen is None:
        return {"rule": None, "reason": "the run folder has no checkpoints: its model was put there"}
    stage = config.stage(chosen["stage"])
    scores = chosen.get("validation") or {}
    if not isinstance(stage, FinetuneConfig) or scores.get(stage.select) is None:
        return {"stage": chosen["stage"], "rule": "last"}  # no step had such a score: the newest is taken
    limit = stage.validate_limit or None
    return {"stage": chosen["stage"], "rule": "best", "metric": stage.select, "split": "val", "pairs": limit}


def comparable(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The parts in which two protocols must not differ if their figures are to be compared: all but the code."""
    return {name: value for name, value in protocol.items() if name != "code"}
