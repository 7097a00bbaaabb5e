"""scores.json: metrics in halves and by type, accuracies, baselines, an oracle, and the skill between them.

One number misleads: "there is no change", said of every pair, has a total CIDEr near 90 on the embedded test split. So
every score stands beside the best constant captions (chosen by the scored references themselves), those that the
model made of other pairs, and, where the truth is known, an oracle that says it in fixed words.
skill = (CIDEr - best constant) / (oracle - best constant): 0 is no better than saying one thing always, 1 the oracle.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.evaluation.intervals import intervals
from cluster.evaluation.named import accuracy_by, share_of
from idc.metrics.coco import NOTHING_SAID, Cider, Scored, has_weights, nothing, score_sets, tokenize
from shards.blocks import grammar
from shards.format.whole_files import write_whole
from shards.wording.claims import NONE, change_claim, say_truth, says_change, truth_of_references

# Sentences compared in the search for the best constant ones: the most frequent. Each takes a millisecond.
CANDIDATES = 3000
TIME_LIMIT_S = 600.0
ACCURACIES = ("changed", "unchanged", "balanced", "type", "object")


def score(
    predictions: Sequence[Mapping[str, Any]],
    candidates: Iterable[str] = (),
    *,
    tokenizer: str = "ptb",
    seed: int = 0,
    checkpoint: str = "",
    time_limit: float = TIME_LIMIT_S,
) -> dict[str, Any]:
    """The content of scores.json for predictions as `cluster.evaluation.predict.predict` makes them.

    candidates: sentences among which the best constant ones are searched, e.g. the training references; where there are
    none, the scored references. tokenizer: of the metrics, "ptb" or "split"; the result names "words" where "ptb" could
    not run (`idc.metrics.words`). seed: of the run; it also shuffles images.
    Metrics and accuracies are in percent; what cannot be computed is None, and "reasons" beside it says why.
    """
    pairs = [dict(prediction) for prediction in predictions if prediction["references"]]
    keys = {
        "total": list(range(len(pairs))),
        "changed": [i for i, pair in enumerate(pairs) if change_of(pair) is True],
        "unchanged": [i for i, pair in enumerate(pairs) if change_of(pair) is False],
    }
    kinds = [type_of(pair) if change_of(pair) is True else None for pair in pairs]
    types = sorted({kind for kind in kinds if kind is not None})
    of_type = {name: [i for i, kind in enumerate(kinds) if kind == name] for name in types}
    truths = [truth_of(pair) for pair in pairs]
    right = right_of(pairs, truths)

    said = [pair["caption"] for pair in pairs]
    oracle, no_oracle = _oracle(truths)
    pool = [text for text, _ in Counter(candidates).most_common(CANDIDATES)]
    pool = pool or sorted({text for pair in pairs for text in pair["references"]})
    texts = sorted({*said, *pool, *(oracle or ()), *(text for pair in pairs for text in pair["references"])})
    tokens = tokenize(texts, tokenizer, time_limit)
    token = dict(zip(texts, tokens.texts, strict=True))

    references = [[token[text] for text in pair["references"]] for pair in pairs]
    constant = {half: _best_constant(references, keys[half], pool, token) for half in ("total", "changed")}
    shuffled = _shuffled(said, seed)
    sayings: dict[str, tuple[list[int], Callable[[int], str | None]]] = {
        **{half: (places, said.__getitem__) for half, places in keys.items()},
        **{f"type {name}": (places, said.__getitem__) for name, places in of_type.items()},
        **{f"constant {half}": (keys[half], _always(text)) for half, text in constant.items() if text},
        **{f"shuffled {half}": (keys[half], shuffled.__getitem__) for half in ("total", "changed")},
        **{f"oracle {half}": (keys[half], oracle.__getitem__) for half in ("total", "changed") if oracle},
    }
    sets = {
        name: ({str(i): references[i] for i in places}, {str(i): token[say(i)] for i in places})
        for name, (places, say) in sayings.items()
    }
    each: dict[str, np.ndarray] = {}
    scored = score_sets(sets, "split", time_limit, each)
    if len(pairs) == 1:
        scored |= dict.fromkeys(("shuffled total", "shuffled changed"), nothing("no other pair has a caption to give"))

    def named(name: str) -> Scored:
        return scored[name] if name in scored else nothing("no pairs")

    oracle_scores = named("oracle total") | {"changed": named("oracle changed")} if oracle else None
    result = {
        **{half: named(half) for half in keys},
        "by_type": {name: named(f"type {name}") for name in types},
        "accuracy": accuracies(pairs, truths),
        "accuracy_by": accuracy_by(kinds, [claim_of(pair) for pair in pairs], truths, right),
        "baselines": {
            "constant_total": {"caption": constant["total"], **named("constant total")},
            "constant_changed": {"caption": constant["changed"], **named("constant changed")},
            "shuffled_images": named("shuffled total") | {"changed": named("shuffled changed")},
        },
        "oracle": oracle_scores,
        "skill": _skill({half: (named(half), named(f"constant {half}"), named(f"oracle {half}")) for half in constant}),
    }
    halves = {name: values for name, values in each.items() if name.split()[0] in ("constant", "oracle", *keys)}
    spoken = {
        half: ([[text for text in references[i] if text] for i in places],
               [token[said[i]] or NOTHING_SAID for i in places])
        for half, places in keys.items()
    }  # fmt: skip
    result["intervals"] = intervals(right, keys, halves, result, spoken)
    reasons = {} if oracle else {"oracle": no_oracle}
    reasons |= {"tokenizer": tokens.reason} if tokens.reason else {}
    if reasons:
        result["reasons"] = reasons
    return result | _about(keys, of_type, tokens.tokenizer, seed, checkpoint)


def accuracies(pairs: Sequence[Mapping[str, Any]], truths: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """What the sentences get right, in percent, whatever their wording; "n" says of how many pairs each is.

    changed / unchanged: of the pairs that are, those whose sentence says so (an empty one says neither); balanced: the
    mean of both. type: of the changed pairs that can be judged (`can_judge`), those whose sentence names the right kind
    of change; object: of those whose changed object is known too, those with the right type where every attribute that
    the sentence names is right. A reference that no grammar reads counts as both. An accuracy that is of no pairs is
    None with a reason.
    """
    found = {name: [one for one in ones if one is not None] for name, ones in right_of(pairs, truths).items()}
    changed = [pair for pair in pairs if change_of(pair) is True]
    result: dict[str, Any] = {name: share_of(ones) for name, ones in found.items()}
    both = None not in (result["changed"], result["unchanged"])
    result["balanced"] = (result["changed"] + result["unchanged"]) / 2 if both else None
    counts = {name: len(ones) for name, ones in found.items()}
    counts["balanced"] = counts["changed"] + counts["unchanged"]
    lacking = {name: _why_none(name, changed) for name in ACCURACIES if result[name] is None}
    return {name: result[name] for name in ACCURACIES} | {
        "n": {name: counts[name] if result[name] is not None else 0 for name in ACCURACIES},
        **({"reasons": lacking} if lacking else {}),
    }


def right_of(
    pairs: Sequence[Mapping[str, Any]], truths: Sequence[Mapping[str, Any] | None]
) -> dict[str, list[bool | None]]:
    """Accuracy, "balanced" aside -> of every pair whether its sentence is right; None where the pair does not count."""
    right: dict[str, list[bool | None]] = {name: [] for name in ACCURACIES if name != "balanced"}
    for pair, truth in zip(pairs, truths, strict=True):
        is_changed, claims = change_of(pair), says(pair)
        judged = is_changed is True and can_judge(pair)
        right["changed"].append(claims is True if is_changed is True else None)
        right["unchanged"].append(claims is False if is_changed is False else None)
        claim, quoted = claim_of(pair), is_unread_reference(pair)
        right["type"].append(quoted or _says_type(pair, pair["caption"]) if judged else None)
        known = truth if judged and truth is not None and truth.get("object") else None
        right["object"].append(quoted or grammar.agrees(claim, dict(known)) if known else None)
    return right


def says(pair: Mapping[str, Any]) -> bool | None:
    """Whether the sentence made of a pair says that something differs; None where it says nothing.

    "denials" of the pair are sentences of "no change" in other words (`cluster.evaluation.predict.with_denials`).
    """
    return says_change(pair["caption"], pair.get("denials", NONE))


def claim_of(pair: Mapping[str, Any], sentence: str | None = None) -> grammar.Change | None:
    """What the sentence made of a pair claims, or another one; None where no grammar reads it.

    "things" of the pair are the names of cut-outs in its data (`cluster.evaluation.predict.with_denials`).
    """
    return change_claim(pair["caption"] if sentence is None else sentence, pair.get("things", NONE))


def is_unread_reference(pair: Mapping[str, Any]) -> bool:
    """Whether people said this very sentence of the pair, in words that no grammar reads: then it is true of it."""
    return pair["caption"] in pair["references"] and claim_of(pair) is None


def can_judge(pair: Mapping[str, Any]) -> bool:
    """Whether the kind of change that a sentence names can be compared with that of the pair.

    The grammars of blocks and of edited photos read sentences, and not those of other data: a kind of change counts
    where they read one of the pair's references, as that kind. Otherwise a caption equal to a reference would be wrong.
    """
    return type_of(pair) is not None and any(_says_type(pair, reference) for reference in pair["references"])


def _says_type(pair: Mapping[str, Any], sentence: str) -> bool:
    claim = claim_of(pair, sentence)
    return claim is not None and claim.type == type_of(pair)


def _why_none(name: str, changed: Sequence[Mapping[str, Any]]) -> str:
    """Why an accuracy is of no pairs."""
    if name in ("type", "object") and changed:
        kinds = sorted({kind for pair in changed if (kind := type_of(pair)) is not None})
        if not kinds:
            return "the kind of change is not known of any pair"
        if not any(map(can_judge, changed)):
            named = ", ".join(kinds[:5]) + (f" and {len(kinds) - 5} more" if len(kinds) > 5 else "")
            return f"no grammar reads references of these kinds of change: {named}"
        return "the changed object is not known of any pair"
    return "needs changed and unchanged pairs" if name == "balanced" else "no pairs of which it is known"


def write_scores(path: Path, scores: Mapping[str, Any]) -> None:
    """scores.json, whole or not at all."""
    write_whole(path, json.dumps(scores, indent=1, ensure_ascii=False) + "\n")


def truth_of(pair: Mapping[str, Any]) -> dict | None:
    """The exact truth of a pair, or what its references say together, or None."""
    return pair.get("truth") or truth_of_references(pair["references"])


def change_of(pair: Mapping[str, Any]) -> bool | None:
    """Whether the images of a pair differ; None = not known."""
    known = pair.get("changed")
    if known is None and (truth := truth_of(pair)):
        return truth["type"] != "none"
    return known


def type_of(pair: Mapping[str, Any]) -> str | None:
    """The kind of change of a pair; None where there is none or it is not known."""
    known = pair.get("change_type")
    if known is None and (truth := truth_of(pair)):
        known = truth["type"]
    return None if known == "none" else known


def _oracle(truths: Sequence[Mapping[str, Any] | None]) -> tuple[list[str] | None, str]:
    """(the sentences of one who knows the truth, "") or (None, why there are none)."""
    if not truths:
        return None, "no pairs"
    sentences = []
    for truth in truths:
        if truth is None:
            return None, "the truth is not known of every pair"
        sentence = say_truth(truth)
        if sentence is None:
            return None, "not every attribute of the changed object is known of every pair"
        sentences.append(sentence)
    return sentences, ""


def _best_constant(
    references: list[list[str]], places: list[int], pool: Sequence[str], token: Mapping[str, str]
) -> str | None:
    """The sentence of the pool with the highest CIDEr when it is said of all pairs at `places`.

    Where CIDEr tells none from another, the one that is most often a reference.
    """
    if not places or not pool:
        return None
    scored = {str(i): references[i] for i in places}
    if has_weights(scored):
        scorer = Cider(scored)
        return max(pool, key=lambda text: (scorer.constant(token[text]), text))
    often = Counter(text for i in places for text in references[i])
    return max(pool, key=lambda text: often[token[text]])


def _always(text: str) -> Callable[[int], str]:
    """Said of any pair."""
    return lambda _: text


def _shuffled(said: Sequence[str], seed: int) -> list[str]:
    """Each caption given to another pair: a random cycle through all of them, so of two or more none keeps its own."""
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(said))
    result = list(said)
    for place, source in zip(order, np.roll(order, 1), strict=True):
        result[place] = said[source]
    return result


def _skill(halves: Mapping[str, tuple[Scored, Scored, Scored]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    reasons = {}
    for half, (own, constant, oracle) in halves.items():
        values = [scored["CIDEr"] for scored in (own, constant, oracle)]
        if None in values:
            result[half], reasons[half] = None, "needs CIDEr of the model, of a constant caption and of the oracle"
        elif values[2] <= values[1]:
            result[half], reasons[half] = None, "the oracle is no better than a constant caption on these references"
        else:
            result[half] = (values[0] - values[1]) / (values[2] - values[1])
    return result | ({"reasons": reasons} if reasons else {})


def _about(keys: Mapping, of_type: Mapping, tokenizer: str, seed: int, checkpoint: str) -> dict[str, Any]:
    counts = {half: len(places) for half, places in keys.items()}
    return {
        "n": counts | {"by_type": {name: len(places) for name, places in of_type.items()}},
        "tokenizer": tokenizer,
        "seed": seed,
        "checkpoint": checkpoint,
    }
