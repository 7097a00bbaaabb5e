"""FDA cannot be solved from the text: what two rules that see no image get right, beside chance."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from shards.blocks.grammar import agrees, parse
from shards.format import manifest
from shards.format.record import Record
from shards.negatives.kinds import KINDS
from shards.negatives.mining import find_negatives
from shards.negatives.text_only import describe, draw, kept_share, report
from shards.negatives.text_probe import picked
from shards.order.permutation import generator
from shards.pack import notes, pack
from shards.sources.blocks import BlocksSource
from shards.wording.claims import NONE, says_change


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return BlocksSource(scenes=(250, 0, 40), class_photos=0).records(1)


@pytest.fixture(scope="module")
def negatives(records) -> list[dict | None]:
    return find_negatives(records)


@pytest.fixture(scope="module")
def described(records, negatives) -> dict:
    return describe(records, negatives, NONE, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "before"), [(1, 73), (6, 55)])
def test_taking_the_sentence_that_says_no_change_is_no_better_than_chance(described, count, before):
    rules = described["pair"]["train"]["text_only"][str(count)]
    assert rules["chance"] == pytest.approx(100 / (1 + count), abs=0.1)
    assert abs(rules["no_change"] - rules["chance"]) < 4, f"{before} % before negatives said 'no change' too"


@pytest.mark.slow
def test_a_changed_pair_has_no_change_among_its_negatives_and_an_unchanged_one_has_not(records, negatives):
    denied = {True: [], False: []}
    for record, lists in zip(records, negatives, strict=True):
        if record.kind == "pair":
            texts = [text for kind in KINDS for text in lists[kind]]
            denied[record.changed].append(sum(says_change(text) is False for text in texts) / len(texts))
    assert max(denied[False]) == 0, "each of its negatives states a change"
    assert min(denied[True]) > 0 and np.mean(denied[True]) == pytest.approx((1 / 3 + 1 / 6) / 3, abs=0.02)


def test_no_change_is_as_rare_among_negatives_as_among_captions():
    captions = [(f"the {color} car is gone", f"a {color} car has left") for color in ("red", "blue", "green", "black")]
    pairs = [
        Record("pair", "train", f"c{i}", {"before.jpg": f"{i}"}, f"c{i}", captions[i % 4], True) for i in range(95)
    ]
    pairs += [
        Record("pair", "train", f"n{i}", {"before.jpg": f"n{i}"}, f"n{i}", ("nothing has changed",), False)
        for i in range(5)
    ]
    about = describe(pairs, find_negatives(pairs), NONE, 6)["pair"]["train"]
    assert about["unchanged"] == 0.05
    assert 0.02 < about["no_change"]["retrieve"] < 0.2, "5 unchanged pairs of 100, not a third of the list"


def test_pairs_marked_neither_way_count_by_what_all_their_captions_say():
    pairs = [
        Record("pair", "train", str(i), {"before.jpg": str(i)}, str(i), (text,))
        for i, text in enumerate(["there are no differences"] * 5 + ["the red car is gone", "the blue car is gone"] * 5)
    ]
    found = find_negatives(pairs)
    unchanged = [text for lists in found[:5] for kind in KINDS for text in lists[kind]]
    assert unchanged and all(says_change(text) for text in unchanged)
    assert any("there are no differences" in lists["retrieve"] for lists in found[5:])


def test_the_rate_of_unchanged_pairs_makes_the_rule_chance():
    about = {"unchanged": 0.5, "no_change": {"retrieve": 1 / 3, "replace": 0.0, "confuse": 1 / 6},
             "empty": dict.fromkeys(KINDS, 0.0)}  # fmt: skip
    for count in (1, 3, 6):
        kept = kept_share(about, KINDS, count)
        none = np.prod([(1 - about["no_change"][kind]) ** (count / 3) for kind in KINDS])
        right = 0.5 * kept + 0.5 * none / (1 + count)
        assert right / (0.5 * kept + 0.5) == pytest.approx(1 / (1 + count))
    assert kept_share(about | {"unchanged": 0.01}, KINDS, 1) == 1.0
    assert kept_share(about, ("replace",), 1) == 0.0, "no changed pair has 'no change' among these"
    for share in (0.0, 1.0):
        assert kept_share(about | {"unchanged": share}, KINDS, 1) == 1.0


def groups_of(records, negatives) -> dict[frozenset[str], list[str]]:
    """The sentences of each matched group, and those that are true of a sample of it."""
    found: dict[frozenset[str], list[str]] = {}
    for record, lists in zip(records, negatives, strict=True):
        if lists["matched"]:
            true = record.captions[0]
            found.setdefault(frozenset({true, *lists["matched"]}), []).append(true)
    return found


def test_in_a_matched_group_every_sentence_is_true_once_and_false_of_all_the_others(records, negatives):
    members = [(r, n) for r, n in zip(records, negatives, strict=True) if (r.kind, r.split) == ("pair", "train")]
    groups = groups_of(*zip(*members, strict=True))
    assert all(sorted(true) == sorted([*said] * (len(true) // len(said))) for said, true in groups.items())
    assert all(sum(says_change(text) is False for text in said) <= 1 for said in groups)
    grouped = {True: [], False: []}
    for record, lists in members:
        grouped[record.changed].append(len(lists["matched"]))
        assert not any(agrees(parse(text), record.truth) for text in lists["matched"])
    full = [size == 6 for size in grouped[True]]
    assert np.mean(full) > 0.9 and sum(map(bool, grouped[False])) == pytest.approx(sum(full) / 6, rel=0.1)


def test_groups_of_free_text_are_like_those_of_blocks_and_do_not_depend_on_the_number_of_workers():
    things = ("car", "truck", "man in a red shirt", "bus", "dog", "tree", "white van", "bench", "sign", "bike")
    pairs = [
        Record(
            "pair", "train", f"{i}", {"before.jpg": f"{i}"}, f"{i}", (f"the {thing} {change}", f"a {thing} is other")
        )
        for i, (thing, change) in enumerate(itertools.product(things, ("is gone", "has appeared", "has moved left")))
    ]
    found = find_negatives(pairs, {"matched": 2})
    assert found == find_negatives(pairs, {"matched": 2}, workers=2)
    assert np.mean([len(lists["matched"]) == 2 for lists in found]) > 0.8
    assert all(sorted(true) == sorted(said) for said, true in groups_of(pairs, found).items())


def test_the_classifier_finds_what_text_gives_away_and_nothing_in_matched_groups(described):
    rng = generator(0, 0, 0, "test")
    said = [[f"the {rng.integers(50)} thing is gone" for _ in range(3)] for _ in range(120)]
    assert 15 < picked(said[:80], said[80:]) < 55, "chance is 33"
    told = [[texts[0], *(f"{text} now" for text in texts[1:])] for texts in said]
    assert picked(told[:80], told[80:]) == 100
    assert picked(told[:10], told[10:]) is None, "too few to learn from"
    matched = described["pair"]["test"]["matched"]
    for count, most in (("1", 15.0), ("6", 0.2)):
        rules = matched["text_only"][count]
        assert abs(rules["classifier"] - rules["chance"]) < most, (
            "of a whole group it is right once, whatever it learnt"
        )


def test_draws_come_in_turn_from_the_lists():
    lists = {"retrieve": ["r1", "r2"], "replace": ["p1"], "confuse": []}
    drawn = draw(lists, KINDS, 3, generator(0, 0, 0, "test"))
    assert sorted(drawn) == ["p1", "r1", "r2"] and {text[0] for text in drawn[:2]} == {"p", "r"}
    assert draw({}, KINDS, 3, generator(0, 0, 0, "test")) == []


def test_the_manifest_has_them_and_packing_says_them(tmp_path):
    source = BlocksSource(scenes=(12, 2, 2), size=(48, 32), class_photos=0)
    contents = pack(source, tmp_path / "out")
    told = manifest.read(tmp_path / "out")["negatives"]
    assert told == contents["negatives"] and set(told["pair"]) == {"train", "val", "test"}
    assert told["pair"]["train"]["samples"] == contents["splits"]["train"]["pair"]
    lines = list(notes(contents, "out"))
    assert any(line.startswith("negatives of train pairs, the true caption found by the text alone") for line in lines)
    assert describe(source.records(1), find_negatives(source.records(1)), NONE, 6) == json.loads(json.dumps(told))


CHINESE = ("右边新建了一座红色的房子", "道路旁边多了两棵树", "左侧的停车场消失了", "河边建成了一座桥")
DENIALS = ("没有变化", "场景没有任何改变。", "一切保持不变")


def chinese(count: int = 60) -> list[Record]:
    places = ("旁边有一条路", "靠近中间", "在图像上方")
    return [
        Record(
            "pair", "train", str(i), {"before.jpg": f"b{i}", "after.jpg": f"a{i}"}, str(i),
            (f"{CHINESE[i % 4]}，{places[i % 3]}",) if i % 2 else (DENIALS[i // 2 % 3], DENIALS[(i // 2 + 1) % 3]),
            bool(i % 2),
        )
        for i in range(count)
    ]  # fmt: skip


def test_captions_without_spaces_have_neighbours_and_the_lists_that_stay_empty_are_told():
    from shards.wording.denials import learn_denials

    pairs = chinese()
    learnt = learn_denials(pairs)
    found = find_negatives(pairs)
    assert all(lists["retrieve"] for lists in found)
    for record, lists in zip(pairs, found, strict=True):
        says = [says_change(text, learnt) for text in lists["retrieve"]]
        assert all(says) if not record.changed else False in says
    lines = list(report(describe(pairs, found, learnt, 6)))
    assert sum("most lists are empty of replace (100 %), confuse (100 %)" in line for line in lines) == 1
    assert any("by the words of English, which these captions are not" in line for line in lines)
    told = describe(pairs, found, learnt, 6)["pair"]["train"]["text_only"]
    assert all(abs(rules["no_change"] - rules["chance"]) < 6 for rules in told.values())


class Chinese(BlocksSource):
    """Pairs with Chinese captions; their images are of blocks."""

    def records(self, workers: int = 1) -> list[Record]:
        images = [record.images for record in super().records(workers) if record.kind == "pair"]
        return [replace(record, images=shown) for record, shown in zip(chinese(len(images)), images, strict=True)]


def test_words_that_are_whole_sentences_are_told(tmp_path, capsys):
    source = Chinese(scenes=(6, 0, 0), size=(48, 32), class_photos=0)
    for kind in ("words", "sentencepiece"):
        pack(source, tmp_path / kind, tokenizer=kind)
        told = "training captions are of a script without spaces" in capsys.readouterr().err
        assert told == (kind == "words")


def test_german_lists_that_stay_empty_are_told():
    texts = ("das rote Auto ist weg", "ein Haus wurde neben der Straße gebaut", "der Baum wurde gefällt")
    pairs = [Record("pair", "train", str(i), {"before.jpg": str(i)}, str(i), (texts[i % 3],)) for i in range(30)]
    lines = list(report(describe(pairs, find_negatives(pairs), NONE, 6)))
    assert any("replace (100 %)" in line and "by the words of English" in line for line in lines)


def test_english_lists_are_not_said_to_be_empty(described):
    assert not any("most lists are empty" in line for line in report(described))
