"""What hard negatives cost, whether they are false, what the text gives away: `python bench/negatives.py COMMAND`.

time    seconds and peak memory for 500,000 captions; exits with 1 over the bars.
false   share of the negatives of blocks that are true by the exact truth, by kind; exits with 1 at 1 % or more.
free    the same where neither grammar nor truth is known, and captions are read as free text.
text    how often the true caption of blocks is found among them without the images, beside chance.
show    examples for a file of Birds-to-Words captions ({"id": [caption, ...]}), as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from collections import Counter
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shards.blocks.captions import relations  # noqa: E402
from shards.blocks.grammar import OPPOSITE, PREDICATES, RELATION_WORDS, SYNONYMS, THING_WORDS, agrees, parse  # noqa: E402
from shards.blocks.scenes import Scene  # noqa: E402
from shards.errors import DataError, run_main  # noqa: E402
from shards.format.record import Record  # noqa: E402
from shards.negatives.kinds import ALL_KINDS, KINDS, MATCHED  # noqa: E402
from shards.negatives.mining import COUNT, find_negatives  # noqa: E402
from shards.negatives.neighbours import nearest_captions  # noqa: E402
from shards.negatives.text_only import describe  # noqa: E402
from shards.reading.reader import Folder  # noqa: E402
from shards.sources.blocks import BlocksSource  # noqa: E402
from shards.wording.claims import Truth, change_claim, photo_claim  # noqa: E402
from shards.wording.denials import learn_denials  # noqa: E402

SECONDS, GIBIBYTES, SHARE = 600, 4.0, 0.01  # the bars
CAPTIONS_A_PAIR = 5
BLOCKS_SHARE = 0.3  # of the captions of `time` that are of the grammar of blocks
RARE_WORDS = 8000
_WORDS = {phrase: relation for relation, phrases in RELATION_WORDS.items() for phrase in phrases}
_PHRASE = "|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True))
_NOUNS = "|".join(sorted({*sum(SYNONYMS["shape"].values(), ()), *THING_WORDS}))
_RELATION = re.compile(rf"\b({_PHRASE}) the ((?:\w+ )*?(?:{_NOUNS}))\b")
MARK = "indeed"  # no word of the grammars


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("time", help="seconds and memory")
    cost.add_argument("--captions", type=int, default=500_000, help="default: %(default)s")
    judged = commands.add_parser("false", help="how many are true after all")
    judged.add_argument("--scenes", type=int, default=2000, help="training scenes (default: %(default)s)")
    judged.add_argument("--relational", type=float, default=0.3, help="as of shards.pack (default: %(default)s)")
    unread = commands.add_parser("free", help="how many are true where captions are free text")
    unread.add_argument("--shards", type=Path, help="pairs that carry their truth (default: blocks)")
    unread.add_argument("--scenes", type=int, default=1000, help="training scenes of blocks (default: %(default)s)")
    read = commands.add_parser("text", help="what the text alone gives away")
    read.add_argument("--scenes", type=int, default=2000, help="training scenes (default: %(default)s)")
    shown = commands.add_parser("show", help="examples")
    shown.add_argument("file", type=Path)
    shown.add_argument("--count", type=int, default=20, help="of each kind (default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.command == "time":
        return measure(given.captions)
    if given.command == "false":
        return judge(given.scenes, given.relational)
    if given.command == "free":
        return judge_free(given.shards, given.scenes)
    if given.command == "text":
        return text(given.scenes)
    return show(given.file, given.count)


# --- time ----------------------------------------------------------------------------------------------------------


def measure(count: int) -> int:
    """Times the lists of count / 5 pairs (two queries a pair), then the search alone with every caption as a query."""
    rng = np.random.default_rng(0)
    texts = _texts(count, rng)
    records = [
        Record("pair", "train", f"{start}", {"before.jpg": f"{start}b", "after.jpg": f"{start}a"}, f"{start}",
               tuple(texts[start : start + CAPTIONS_A_PAIR]))
        for start in range(0, count, CAPTIONS_A_PAIR)
    ]  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    result = {"captions": count, "distinct": len(set(texts)), "cores": cores}
    result["words_a_caption"] = round(sum(len(text.split()) for text in texts) / count, 1)
    start = time.perf_counter()
    lists = find_negatives(records, workers=cores)
    result["all_lists_s"] = round(time.perf_counter() - start, 1)
    result["sentences_a_pair"] = {
        kind: round(sum(len(found[kind]) for found in lists) / len(lists), 2) for kind in KINDS
    }
    result["all_lists_gib"] = _peak()
    del lists, records
    start = time.perf_counter()
    nearest_captions(texts, texts, 64, 0, cores)
    result["every_caption_asked_s"] = round(time.perf_counter() - start, 1)
    result["peak_gib"] = _peak()
    print(json.dumps(result))
    slow = max(result["all_lists_s"], result["every_caption_asked_s"]) > SECONDS
    return 1 if slow or result["peak_gib"] > GIBIBYTES else 0


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _texts(count: int, rng: np.random.Generator) -> list[str]:
    """Captions of blocks and, for the most part, made-up comparisons of two birds with a Zipf tail of rare words."""
    parts = "head beak wings belly chest tail legs feathers neck eyes back throat crown breast stripe".split()
    told = "black white brown grey yellow red longer shorter larger darker lighter dark light orange green blue".split()
    chance = 1 / np.arange(1, RARE_WORDS + 1)
    chance /= chance.sum()
    rare = rng.choice(RARE_WORDS, (count, 12), p=chance)
    drawn = rng.zipf(1.3, (count, 8))
    blocks = rng.random(count) < BLOCKS_SHARE
    return [_block_text(rng) if blocks[i] else _bird_text(drawn[i], rare[i], parts, told) for i in range(count)]


def _bird_text(drawn: np.ndarray, rare: np.ndarray, parts: list[str], told: list[str]) -> str:
    a, b, c, d = (told[number % len(told)] for number in drawn[:4])
    e, f, g, h = (parts[number % len(parts)] for number in drawn[4:])
    tail = " ".join(f"word{number}" for number in rare)
    return f"animal1 has a {a} {e} and {b} {f} , while animal2 has a {c} {g} and a {d} {h} . it looks {tail} ."


def _block_text(rng: np.random.Generator) -> str:
    words = [values[rng.integers(len(values))] for family in SYNONYMS.values() for values in [sum(family.values(), ())]]
    kind = ("drop", "add", "move")[rng.integers(3)]
    return f"the {' '.join(words)} {PREDICATES[kind][rng.integers(len(PREDICATES[kind]))]}"


# --- false ---------------------------------------------------------------------------------------------------------


def judge(scenes: int, relational: float) -> int:
    """Prints, by kind of sample and of negative, how many there are and how many are true."""
    over = False
    print("| captions | sample | kind | negatives | true | share |\n|---|---|---|---|---|---|")
    for share in dict.fromkeys((0.0, relational)):
        source = BlocksSource(scenes=(scenes, 0, 0), class_photos=0, relational=share)
        records = source.records(len(os.sched_getaffinity(0)))
        count: Counter[tuple[str, str]] = Counter()
        wrong: Counter[tuple[str, str]] = Counter()
        for record, lists in zip(records, find_negatives(records, workers=None), strict=True):
            is_true = pair_is_true if record.kind == "pair" else photo_is_true
            for kind in ALL_KINDS:
                count[record.kind, kind] += len(lists[kind])
                wrong[record.kind, kind] += sum(is_true(sentence, record, source) for sentence in lists[kind])
        for (sample, kind), total in sorted(count.items()):
            found = wrong[sample, kind] / max(1, total)
            over |= found >= SHARE or not total
            name = f"{share:.0%} relational"
            print(f"| {name} | {sample} | {kind} | {total:,} | {wrong[sample, kind]:,} | {found:.3%} |")
    return 1 if over else 0


def judge_free(shards: Path | None, scenes: int) -> int:
    """Prints how many negatives are true if neither grammar nor truth is known, by kind: captions read as free text.

    Of packed pairs that carry their truth, or of blocks. A word at the end keeps the grammars from reading them.
    """
    known = BlocksSource(scenes=(scenes, 0, 0), class_photos=0).records(1) if shards is None else _packed(shards)
    pairs = [record for record in known if record.kind == "pair" and record.split == "train" and record.truth]
    free = [replace(one, captions=tuple(f"{text} {MARK}" for text in one.captions), truth=None) for one in pairs]
    lists = find_negatives(free, workers=None)
    print("| kind | negatives | that the grammars read | true | share |\n|---|---|---|---|---|")
    for kind in ALL_KINDS:
        said = [(text.removesuffix(f" {MARK}"), one) for one, of in zip(pairs, lists, strict=True) for text in of[kind]]
        read = [(text, one) for text, one in said if change_claim(text) is not None]
        true = sum(Truth(one).may_hold(text) for text, one in read)
        print(f"| {kind} | {len(said):,} | {len(read):,} | {true:,} | {true / max(1, len(read)):.1%} |")
    return 0


def _packed(folder: Path) -> list[Record]:
    """The training pairs of a shard folder; an image that two of them share has two names."""
    pairs = Folder.open(folder).stream("pair", "train")
    found = []
    for place, key in enumerate(pairs.keys):
        of = pairs.metadata(place)
        images = {f"{role}.jpg": f"{key} {role}" for role in ("before", "after")}
        found.append(
            Record("pair", "train", key, images, of["id"], tuple(of["captions"]), of["changed"], truth=of.get("truth"))
        )
    return found


def pair_is_true(sentence: str, record: Record, source: BlocksSource) -> bool:
    """Whether all that a sentence names is right: the change, the object's attributes, its places by other objects.

    A place counts as right where it is so from one of the two cameras, or too close to call.
    """
    if not agrees(parse(sentence), record.truth):
        return False
    named = _RELATION.findall(sentence)
    if not named or record.truth["object"] is None:
        return True
    first, second = (source.scene(record.images[member]) for member in ("before.jpg", "after.jpg"))
    shown, other = (second, first) if record.truth["type"] == "add" else (first, second)
    views = (shown, Scene(shown.objects, other.camera, shown.lamps))
    subjects = [thing for thing in shown.objects if thing.attributes() == record.truth["object"]]
    return any(
        all(_holds(views, subject, _WORDS[phrase], anchor.split()) for phrase, anchor in named) for subject in subjects
    )


def _holds(views: tuple[Scene, Scene], subject, relation: str, words: list[str]) -> bool:
    wanted = {
        name: value for name, values in SYNONYMS.items() for value, said in values.items() if set(said) & set(words)
    }
    anchors = [t for t in views[0].objects if t is not subject and wanted.items() <= t.attributes().items()]
    return any(OPPOSITE[relation] not in relations(view, subject, anchor) for view in views for anchor in anchors)


def photo_is_true(sentence: str, record: Record, source: BlocksSource) -> bool:
    """Whether the scene has every object that a caption names, those too hidden to be captioned included."""
    things = [thing.attributes() for thing in source.scene(record.images["photo.jpg"]).objects]
    there = Counter(tuple(sorted(thing.items())) for thing in things)
    return not (Counter(photo_claim(sentence)) - there)


# --- text ----------------------------------------------------------------------------------------------------------


def text(scenes: int) -> int:
    """Prints, by kind of sample and number of negatives, what rules that see no image get right, in percent.

    The rules of training samples, the classifier of others: it has learnt from the former.
    """
    records = BlocksSource(scenes=(scenes, scenes // 4, 0), class_photos=0).records(len(os.sched_getaffinity(0)))
    found = describe(records, find_negatives(records, workers=None), learn_denials(records), COUNT)
    rules = ("chance", "no_change", "most_frequent", "classifier")
    print(f"| sample | lists | negatives | {' | '.join(rules)} |\n|{'---|' * (3 + len(rules))}")
    for kind, splits in found.items():
        for lists, of in (("the three", splits), (MATCHED, {split: about[MATCHED] for split, about in splits.items()})):
            for count, trained in of["train"]["text_only"].items():
                asked = of.get("val", {"text_only": {}})["text_only"].get(count, {})
                told = trained | {"classifier": asked.get("classifier", "–")}
                print(f"| {kind} | {lists} | {count} | {' | '.join(str(told.get(rule, '–')) for rule in rules)} |")
    return 0


# --- show ----------------------------------------------------------------------------------------------------------


def show(path: Path, count: int) -> int:
    """Prints `count` examples a kind: a pair's captions of up to 25 words, and a negative made of one of them."""
    try:
        captions = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}; give a file of Birds-to-Words captions") from None
    if not isinstance(captions, dict) or not all(isinstance(texts, list) for texts in captions.values()):
        raise DataError(f'{path} is not {{"id": [caption, ...]}}: give a file of Birds-to-Words captions')
    records = [
        Record(
            "pair", "test", key, dict(zip(("before.jpg", "after.jpg"), key.split("_"), strict=False)), key, tuple(texts)
        )
        for key, texts in captions.items()
    ]
    found = find_negatives(records, workers=None)
    rng = np.random.default_rng(0)
    for kind in KINDS:
        print(f"\n### {kind}\n")
        shown = 0
        for place in rng.permutation(len(records)):
            record, lists = records[place], found[place]
            near = [(_nearest(record, sentence), sentence) for sentence in lists[kind] if len(sentence.split()) <= 25]
            near = [(caption, sentence) for caption, sentence in near if len(caption.split()) <= 25]
            if near and shown < count:
                caption, sentence = near[rng.integers(len(near))]
                shown += 1
                print(f"{shown}. {caption}<br>*{sentence}*")
    return 0


def _nearest(record: Record, sentence: str) -> str:
    """The caption that is most like a sentence, as a rule the one it was made from."""
    return max(record.captions, key=lambda caption: SequenceMatcher(None, caption.split(), sentence.split()).ratio())


if __name__ == "__main__":
    run_main(main)
