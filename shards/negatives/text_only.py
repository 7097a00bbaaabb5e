"""How well the true caption is picked among negatives without looking: the figure beside every FDA accuracy.

Two rules look at sentences alone: take the one by which nothing has changed (one at random where several or none say
so), and take the one that is most often a training caption. Chance is one of all sentences at random. A classifier
(`text_probe`) learns on the lists of training samples what else tells, and is asked on those of other splits.

In a pair without a change only the true sentence says "no change", so the first rule is always right there. It is wrong
in each changed pair that has "no change" among its negatives. If it is to be right no more often than chance, such
pairs must come as often for each unchanged one as there are negatives; `kept_share` says how often unchanged pairs take
part for that. More of them would teach that "no change" is likely, whatever the images show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from shards.format.record import Record
from shards.negatives.kinds import KINDS, MATCHED, Lists, drawn_from, true_caption
from shards.negatives.text_probe import picked
from shards.order.permutation import generator
from shards.wording.claims import says_change
from shards.wording.segmentation import words_of
from shards.wording.tagging import FUNCTION_WORDS

COUNTS = (1, 6)  # negatives a sample for which the manifest has figures
MOST_EMPTY = 0.5  # share of samples with an empty list from which that is told
ENGLISH = 0.15  # share of the words that are function words; about 0.4 in English captions, 0.05 in German ones
LOOKED_AT = 2000  # samples of a kind and split, evenly spread


def draw(lists: Lists, kinds: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Up to `count` negatives of a sample, taken in turn from the shuffled lists of each kind."""
    told = (lists.get(kind, ()) for kind in drawn_from(lists, kinds))
    shuffled = [[texts[i] for i in rng.permutation(len(texts))] for texts in told]
    rng.shuffle(shuffled)
    found: list[str] = []
    for place in range(max((len(texts) for texts in shuffled), default=0)):
        found += [texts[place] for texts in shuffled if place < len(texts)]
    return found[:count]


def kept_share(about: Mapping[str, Any], kinds: Sequence[str], count: int) -> float:
    """The share of the pairs marked unchanged that take part with `count` negatives of these kinds.

    `about` is an entry of `describe`. With u the share of unchanged pairs and r that of the changed ones with a "no
    change" among their negatives, the rule "take no change" is right in s u + (1 - u) (1 - r) / (1 + count) of the
    pairs that take part; that is chance for s = r (1 - u) / (count u). At most 1.
    """
    unchanged, denied = about["unchanged"], about["no_change"]
    if not 0 < unchanged < 1:
        return 1.0
    filled = [kind for kind in kinds if about["empty"].get(kind, 1.0) <= MOST_EMPTY]
    none = np.prod([(1 - denied.get(kind, 0.0)) ** (count / len(filled)) for kind in filled])
    return float(min(1.0, (1 - none) * (1 - unchanged) / (count * unchanged)))


def describe(
    records: Sequence[Record],
    negatives: Sequence[Lists | None],
    learnt: Set[str],
    counts: int | Mapping[str, int] = 1,
    seed: int = 0,
) -> dict[str, dict[str, dict]]:
    """By kind and split what the negatives are like; `negatives` belongs to `records` one to one.

    - "samples": how many, and "text_only": {"1": {"chance", "most_frequent"}, "6": ...}, accuracies in percent with
      so many negatives of the three lists of the paper; "classifier" too, beside the training split;
    - "matched", where such were asked for: {"grouped": the share of samples that have some, "text_only": as above};
    - "empty": the share of samples whose list of a kind is empty, of the kinds that were asked for (`counts`);
    - "english": the share of function words of English among the words of the captions;
    - of pairs also "unchanged": the share that is marked so, and "no_change": the share of each list of the others that
      says "no change"; "text_only" has the rule of that name.
    """
    said = Counter(text for record in records if record.split == "train" for text in record.captions)
    groups: dict[tuple[str, str], list[tuple[Record, Lists]]] = {}
    for record, lists in zip(records, negatives, strict=True):
        if lists is not None and record.captions:
            groups.setdefault((record.kind, record.split), []).append((record, lists))
    found: dict[str, dict[str, dict]] = {}
    trained: dict[tuple, Sequence[Sequence[str]]] = {}  # the lists of the training split
    for (kind, split), members in sorted(groups.items(), key=lambda group: group[0][1] != "train"):
        looked_at = members[:: -(-len(members) // LOOKED_AT)]
        about: dict[str, Any] = {"samples": len(members)}
        asked = [name for name in KINDS if (counts if isinstance(counts, int) else counts.get(name, 0))]
        about["empty"] = {name: _share(not lists[name] for _, lists in looked_at) for name in asked}
        words = [word for record, _ in looked_at for text in record.captions for word in words_of(text.lower())]
        about["english"] = _share(word in FUNCTION_WORDS for word in words)
        if kind == "pair":
            about["unchanged"] = _share(record.changed is False for record, _ in looked_at)
            others = [lists for record, lists in looked_at if record.changed is not False]
            about["no_change"] = {name: _share_denying(others, name, learnt) for name in KINDS}
        rng = generator(seed, 0, 0, f"text only/{kind}/{split}")
        about["text_only"] = {str(count): _accuracies(about, looked_at, count, said, learnt, rng) for count in COUNTS}
        if counts if isinstance(counts, int) else counts.get(MATCHED):
            grouped = _share(bool(lists[MATCHED]) for _, lists in looked_at)
            about[MATCHED] = {"grouped": grouped, "text_only": {str(count): {} for count in COUNTS}}
        for kinds, rules_of in ((KINDS, about["text_only"]), ((MATCHED,), about.get(MATCHED, {}).get("text_only", {}))):
            for count, rules in rules_of.items():
                drawn = _drawn(about, looked_at, kinds, int(count), rng)
                rules.setdefault("chance", _chance(drawn))
                if split == "train":
                    trained[kind, kinds, count] = drawn
                elif right := picked(trained.get((kind, kinds, count), ()), drawn):
                    rules["classifier"] = right
        found.setdefault(kind, {})[split] = about
    return found


def report(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Lines about what `describe` gives: of the text-only rules, and of lists that are empty for most samples."""
    for kind, splits in found.items():
        lacking: dict[str, list[str]] = {}
        for split, about in splits.items():
            if any(share < 1 for share in about["empty"].values()):
                told = _told(about["text_only"])
                yield f"negatives of {split} {kind}s, the true caption found by the text alone {told}"
            matched = about.get(MATCHED, {"text_only": {}})
            if any("classifier" in rules for rules in matched["text_only"].values()):
                told = f"the true caption found by the text alone {_told(matched['text_only'])}"
                yield f"matched negatives of {split} {kind}s, {100 * matched['grouped']:.0f} % have some: {told}"
            empty = [f"{name} ({100 * share:.0f} %)" for name, share in about["empty"].items() if share > MOST_EMPTY]
            if empty:
                lacking.setdefault(f"{', '.join(empty)}: {_why_empty(about)}", []).append(split)
        for what, where in lacking.items():
            yield f"negatives of {', '.join(where)} {kind}s: most lists are empty of {what}"


def _told(text_only: Mapping[str, Mapping[str, float]]) -> str:
    parts = []
    for count, rules in text_only.items():
        told = [f"{name.replace('_', ' ')} {rules[name]:.0f} %" for name in rules if name != "chance"]
        chance = f"chance {rules['chance']:.0f} %"
        parts.append(f"of {count}: {', '.join([*told, chance])}")
    return "; ".join(parts)


def _why_empty(about: Mapping[str, Any]) -> str:
    if about["english"] < ENGLISH:
        return (
            "replace and confuse are made by the words of English, which these captions are not; train on what there "
            "is with --pretrain.negatives.kinds retrieve, or without FDA"
        )
    return (
        "these captions have few words that can be exchanged, or share none with others; choose the kinds by "
        "--pretrain.negatives.kinds"
    )


def _share(found: Iterable[bool]) -> float:
    """The share of what is true, 0 where there is nothing."""
    values = list(found)
    return round(sum(values) / len(values), 4) if values else 0.0


def _share_denying(lists: Sequence[Lists], kind: str, learnt: Set[str]) -> float:
    """The share of the sentences of a list that say "no change"."""
    return _share(says_change(text, learnt) is False for of in lists for text in of.get(kind, ()))


def _drawn(
    about: Mapping[str, Any],
    members: Sequence[tuple[Record, Lists]],
    kinds: Sequence[str],
    count: int,
    rng: np.random.Generator,
) -> list[list[str]]:
    """The lists of those samples that take part and have negatives, the true caption first."""
    kept = kept_share(about, kinds, count) if "unchanged" in about and kinds == KINDS else 1.0
    found = []
    for record, lists in members:
        captions = record.captions
        caption = true_caption(captions) if MATCHED in kinds else captions[rng.integers(len(captions))]
        negatives = draw(lists, kinds, count, rng)
        if negatives and (record.changed is not False or rng.random() < kept):
            found.append([caption, *negatives])
    return found


def _chance(drawn: Sequence[Sequence[str]]) -> float:
    """Percent that is right at random."""
    return round(100 * float(np.mean([1 / len(texts) for texts in drawn])), 1) if drawn else 100.0


def _accuracies(
    about: Mapping[str, Any],
    members: Sequence[tuple[Record, Lists]],
    count: int,
    said: Mapping[str, int],
    learnt: Set[str],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Percent of samples solved by each rule, one draw a sample; ties count by their share."""
    kept = kept_share(about, KINDS, count) if "unchanged" in about else 1.0
    weights, chance, frequent, denying = [], [], [], []
    for record, lists in members:
        texts = [record.captions[rng.integers(len(record.captions))], *draw(lists, KINDS, count, rng)]
        weights.append(kept if record.changed is False else 1.0)
        chance.append(1 / len(texts))
        counts = [said.get(text, 0) for text in texts]
        frequent.append((counts[0] == max(counts)) / counts.count(max(counts)))
        denials = [says_change(text, learnt) is False for text in texts]
        denying.append(denials[0] / sum(denials) if any(denials) else chance[-1])
    rules = {"chance": chance, "most_frequent": frequent} | ({"no_change": denying} if "unchanged" in about else {})
    total = max(sum(weights), 1e-9)  # nothing but unchanged pairs, none of which takes part
    return {name: round(100 * float(np.dot(weights, right)) / total, 1) for name, right in rules.items()}
