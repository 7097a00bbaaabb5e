"""Scores of captions of edited photos: kinds, attributes and places."""

from __future__ import annotations

import pytest

from cluster.evaluation.scores import accuracies, score
from cluster.report.gallery import judge
from cluster.report.tables import named_table
from shards.blocks.grammar import Change
from shards.edits.grammar import say, wordings


def pair(kind: str, thing: dict | None = None, to: dict | None = None) -> dict:
    truth = {"type": kind, "object": thing, "to": to}
    return {
        "references": list(wordings(Change(kind, thing or {}, to))[:2]),
        "changed": kind != "none",
        "change_type": kind,
        "truth": truth,
        "caption": say(truth),
        "key": kind,
    }


STAR = {"color": "red", "shape": "star", "place": "top left"}
PAIRS = [
    pair("add", STAR),
    pair("drop", {**STAR, "place": "left"}),
    pair("color", {**STAR, "place": "middle"}, {"color": "blue"}),
    pair("move", STAR, {"place": "bottom"}),
    pair("rotate", None, {"direction": "clockwise"}),
    pair("brighter"),
    pair("none"),
]


def scored(*captions: str | None) -> dict:
    rows = [one | ({"caption": said} if said else {}) for one, said in zip(PAIRS, captions or [None] * 7, strict=True)]
    return score(rows, tokenizer="split", time_limit=0.0)


def test_the_oracle_has_skill_one_and_names_everything():
    scores = scored()
    assert scores["skill"]["total"] == pytest.approx(1) and scores["oracle"]["CIDEr"] == scores["total"]["CIDEr"]
    counts = {"changed": 6, "unchanged": 1, "balanced": 7, "type": 6, "object": 4}
    assert scores["accuracy"] == dict.fromkeys(counts, 100.0) | {"n": counts}
    found = scores["accuracy_by"]
    assert found["type"]["move"] == {"changed": 100.0, "type": 100.0, "object": 100.0, "n": 1}
    assert found["type"]["brighter"] == {"changed": 100.0, "type": 100.0, "object": None, "n": 1}
    counts = {"color": 4, "direction": 1, "new color": 1, "new place": 1, "place": 4, "shape": 4}
    assert found["attribute"] == {name: {"right": 100.0, "n": n} for name, n in counts.items()}
    assert {area: row["n"] for area, row in found["place"].items()} == {"corner": 2, "middle": 1, "side": 2}


def test_what_is_wrong_shows_where_it_is():
    scores = scored(
        "a red star was added at the top",  # wrong place
        "the blue star is gone",  # wrong colour, no place
        "the red star in the middle became green",  # wrong new colour
        "there is no change",
        "the photo was rotated counterclockwise",
        "the photo is darker",
        "nothing has changed",
    )
    assert {name: round(scores["accuracy"][name]) for name in ("changed", "unchanged", "type", "object")} == {
        "changed": 83, "unchanged": 100, "type": 67, "object": 0,
    }  # fmt: skip
    found = scores["accuracy_by"]
    assert found["type"]["brighter"]["type"] == 0 and found["type"]["rotate"]["type"] == 100
    assert found["type"]["move"] == {"changed": 0.0, "type": 0.0, "object": 0.0, "n": 1}
    assert found["attribute"] == {
        "color": {"right": pytest.approx(200 / 3), "n": 3},
        "direction": {"right": 0.0, "n": 1},
        "new color": {"right": 0.0, "n": 1},
        "place": {"right": 50.0, "n": 2},
        "shape": {"right": 100.0, "n": 3},
    }
    assert found["place"] == {"corner": {"right": 0.0, "n": 1}, "middle": {"right": 100.0, "n": 1}}


def test_verdicts_know_changes_of_the_whole_image():
    said = ("the photo was brightened", "the image is darker", "no change was made")
    rows = [PAIRS[5] | {"caption": text} for text in said]
    assert [one.verdict for one in judge(rows)] == ["right", "wrong", "missed"]


def test_names_of_cutouts_come_with_the_data():
    mug = pair("drop", {"shape": "coffee mug", "place": "left"})
    told = [mug | {"caption": "the coffee mug is gone", "things": frozenset({"coffee mug"})}]
    assert accuracies(told, [mug["truth"]])["object"] == 100.0
    assert accuracies([mug | {"caption": "the coffee mug is gone"}], [mug["truth"]])["object"] is None


def test_the_report_has_a_table_of_what_is_named():
    table = named_table(scored())
    assert ">new color<" in table and ">corner, place<" in table and table.count("<tr>") >= 9
    assert named_table({}) == named_table(score(PAIRS[5:], tokenizer="split", time_limit=0.0)) == ""
