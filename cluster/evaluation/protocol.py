"""What the figures of scores.json are of: with another protocol they are other figures, and cannot be compared."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.config.fields import Config, FinetuneConfig
from idc.metrics.coco import tokenizer_name
from shards.reading.reader import Folder

SCALE = "percent; CIDEr 100 is the COCO tools' 1.0; skill is a share"
MERGE = "every caption of a pair is a reference by itself"
TOKENIZERS = {
    "ptb": "PTB tokenizer of the COCO tools: lower case, punctuation left out",
    "words": "a tokenizer without Java: not comparable with published numbers",
    "split": "split at white space",
}
METRICS_PACKAGE = "pycocoevalcap"


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
    """The object "protocol" of scores.json.

    shards, split: what was captioned. predictions: as scored. max_length: tokens of the longest sentence the model can
    say. code: as of `cluster.launch.run_folder.code_state`. chosen: the commit of the scored checkpoint as plain
    values, None where the run folder has none. tokenizer: that made the tokens, as scores.json names it; "" = the one
    that the settings ask for.
    """
    counts = [len(prediction["references"]) for prediction in predictions if prediction["references"]]
    options = shards.manifest["options"]
    joined = {"packed_with": f"--protocol {options['protocol']}"} if options.get("protocol") else {}
    settings = config.evaluate
    texts = [text for prediction in predictions for text in (prediction["caption"], *prediction["references"])]
    name, _, characters = (tokenizer or tokenizer_name(settings.tokenizer, texts)).partition(", ")
    return {
        "scale": SCALE,
        "data": {"name": shards.path.name, "manifest_sha256": shards.sha256()},
        "split": split,
        "pairs": {
            "scored": len(counts),
            "in_split": len(shards.stream("pair", split)),
            "limit": settings.limit or None,
        },
        "references": {
            "min": min(counts, default=None),
            "mean": sum(counts) / len(counts) if counts else None,
            "max": max(counts, default=None),
            "merge": MERGE,
            **joined,
        },
        "tokenizer": TOKENIZERS[name] + (f"; {characters}" if characters else ""),
        "metrics": f"{METRICS_PACKAGE} {importlib.metadata.version(METRICS_PACKAGE)}",
        "decoding": {"beam": settings.beam, "length_penalty": settings.length_penalty, "max_length": max_length},
        "selection": selection(config, chosen),
        "code": dict(code),
    }


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
