import json

import numpy as np
import pytest

from cluster.evaluation.quick_scores import validation_scores
from cluster.evaluation.scores import accuracies, right_of, score, truth_of, write_scores
from cluster.pipeline import summary
from cluster.report.gallery import judge
from idc.metrics import coco
from idc.metrics.cider import Cider
from shards.blocks.grammar import say

CUBE = {"size": "large", "color": "red", "material": "metal", "shape": "cube"}
BALL = {"size": "small", "color": "blue", "material": "rubber", "shape": "sphere"}


def pair(kind: str, thing: dict | None = None, to: dict | None = None, references: list[str] | None = None) -> dict:
    truth = {"type": kind, "object": thing, "to": to}
    return {
        "references": references or [say(truth), say(truth).replace("large", "big").replace("sphere", "ball")],
        "changed": kind != "none",
        "change_type": None if kind == "none" else kind,
        "truth": truth,
    }


PAIRS = [
    pair("drop", CUBE),
    pair("add", BALL),
    pair("color", CUBE, {"color": "blue"}),
    pair("move", BALL),
    pair("none"),
    pair("none", references=["nothing has changed"]),
]


def predictions(*captions: str) -> list[dict]:
    return [
        one | {"key": str(i), "caption": caption} for i, (one, caption) in enumerate(zip(PAIRS, captions, strict=True))
    ]


def scores_of(*captions: str, **options) -> dict:
    """Scores with no time for Java: everything but METEOR."""
    return score(predictions(*captions), tokenizer="split", time_limit=0.0, **options)


def test_the_oracle_has_skill_one_and_every_accuracy():
    scores = scores_of(*(say(one["truth"]) for one in PAIRS), seed=3, checkpoint="finetune/step_00000010")
    assert scores["skill"] == {"total": pytest.approx(1), "changed": pytest.approx(1)}
    counts = {"changed": 4, "unchanged": 2, "balanced": 6, "type": 4, "object": 4}
    assert scores["accuracy"] == dict.fromkeys(counts, 100.0) | {"n": counts}
    assert scores["total"]["CIDEr"] == pytest.approx(scores["oracle"]["CIDEr"])
    assert scores["n"] == {
        "total": 6, "changed": 4, "unchanged": 2, "by_type": {"add": 1, "color": 1, "drop": 1, "move": 1}
    }  # fmt: skip
    assert (scores["seed"], scores["checkpoint"], scores["tokenizer"]) == (3, "finetune/step_00000010", "split")


def test_a_constant_sentence_has_no_skill():
    pool = ["there is no change", "the cube is gone", "the large red metal cube has disappeared"]
    best = max(pool, key=Cider({str(i): one["references"] for i, one in enumerate(PAIRS)}).constant)
    scores = scores_of(*[best] * 6, candidates=pool)
    assert scores["baselines"]["constant_total"]["caption"] == best
    assert scores["skill"]["total"] == pytest.approx(0)
    assert scores["skill"]["changed"] <= 0
    assert scores["baselines"]["shuffled_images"]["CIDEr"] == pytest.approx(scores["total"]["CIDEr"])


def test_no_candidate_beats_the_best_constant_on_the_changed_half():
    pool = [text for one in PAIRS for text in one["references"]]
    scores = scores_of(*["nothing"] * 6, candidates=pool)
    changed = {str(i): one["references"] for i, one in enumerate(PAIRS) if one["changed"]}
    assert scores["baselines"]["constant_changed"]["CIDEr"] == pytest.approx(max(map(Cider(changed).constant, pool)))


def test_captions_of_other_pairs_are_worse():
    scores = scores_of(*(say(one["truth"]) for one in PAIRS))
    assert scores["baselines"]["shuffled_images"]["CIDEr"] < scores["total"]["CIDEr"] / 2


def test_accuracies_judge_what_sentences_claim_and_not_their_words():
    rows = predictions(
        "the big red block is gone",  # all right, other words
        "the blue cube has been added",  # right type, wrong object
        "the cube became blue",  # fewer attributes, all of them right
        "there is no change",  # a miss
        "the cube is gone",  # a false alarm
        "the scene is the same as before",
    )
    found = accuracies(rows, [one["truth"] for one in PAIRS])
    counts = found.pop("n")
    assert found == {"changed": 75.0, "unchanged": 50.0, "balanced": 62.5, "type": 75.0, "object": 50.0}
    assert counts == {"changed": 4, "unchanged": 2, "balanced": 6, "type": 4, "object": 4}


def test_a_wrong_new_colour_is_a_wrong_object():
    rows = [PAIRS[2] | {"caption": "the large red metal cube changed to green"}]
    found = accuracies(rows, [PAIRS[2]["truth"]])
    assert (found["type"], found["object"]) == (100.0, 0.0)
    assert found["balanced"] is None and "balanced" in found["reasons"] and found["n"]["balanced"] == 0


def test_kinds_of_change_that_the_grammar_cannot_read_do_not_count():
    edits = [
        {"references": [text], "caption": text, "changed": True, "change_type": kind}
        for kind, text in (("bright", "the photo is brighter"), ("add", "a red circle was put in the corner"))
    ]
    found = accuracies(edits, [None] * 2)
    assert found["changed"] == 100.0 and found["type"] is None and found["object"] is None
    assert found["reasons"]["type"].endswith("these kinds of change: add, bright")
    assert found["n"] == {"changed": 2, "unchanged": 0, "balanced": 0, "type": 0, "object": 0}
    assert [one.verdict for one in judge(edits)] == [None] * 2

    blocks = predictions(*(say(one["truth"]) for one in PAIRS))
    found = accuracies(blocks + edits, [one.get("truth") for one in blocks + edits])
    assert (found["type"], found["n"]["type"], found["n"]["changed"]) == (100.0, 4, 6)

    said = ["a red cube has been added", "look, a red cube"]
    quoted = [{"references": said, "caption": text, "changed": True} for text in (*said, "see, a red cube")]
    found = right_of(quoted, [truth_of(one) for one in quoted])
    assert found["type"] == found["object"] == [True, True, False], "a reference is true, whoever reads it"
    assert [one.verdict for one in judge(quoted)] == ["right", "right", "wrong"]

    unknown = accuracies([{**edits[0], "change_type": None}], [None])
    assert unknown["type"] is None and "not known" in unknown["reasons"]["type"]


def test_the_summary_says_of_how_many_pairs():
    scores = scores_of(*(say(one["truth"]) for one in PAIRS)) | {"where": {"pointing_game": 50.0, "n": 2}}
    assert "changed 100.0 % of 4, unchanged 100.0 % of 2, type 100.0 % of 4" in summary(scores)
    assert "points at the change 50.0 % of 2" in summary(scores)
    scores["accuracy"] |= {"type": None}
    assert "type -, object" in summary(scores) and "skill 1.00" in summary(scores)
    scores["skill"] = {"total": None, "changed": None}
    assert "skill" not in summary(scores), "own pairs have none"


def test_an_empty_caption_is_right_of_no_pair():
    rows = predictions(*[" "] * 6)
    found = accuracies(rows, [one["truth"] for one in PAIRS])
    assert (found["changed"], found["unchanged"], found["balanced"]) == (0.0, 0.0, 0.0)
    assert [one.verdict for one in judge(rows)] == ["silent"] * 6
    assert validation_scores(rows)["unchanged"] == 0.0


def test_truth_may_come_from_the_references_and_else_there_is_no_oracle():
    known = [one | {"truth": None, "changed": None, "change_type": None, "caption": say(one["truth"])} for one in PAIRS]
    scores = score(known, tokenizer="split", time_limit=0.0)
    assert scores["skill"]["total"] == pytest.approx(1)
    assert scores["accuracy"]["object"] == 100.0
    birds = [
        {"references": ["the bird on the left has a longer beak"], "caption": "animal1 is brown"},
        {"references": ["animal2 is smaller"], "caption": "animal2 is smaller"},
    ]
    scores = score(birds, tokenizer="split", time_limit=0.0)
    assert scores["oracle"] is None and "truth" in scores["reasons"]["oracle"]
    assert scores["skill"]["total"] is None and "oracle" in scores["skill"]["reasons"]["total"]
    assert scores["total"]["CIDEr"] > 0 and scores["accuracy"]["type"] is None
    assert scores["changed"]["CIDEr"] is None and scores["changed"]["reasons"]["CIDEr"] == "no pairs"


def test_cider_of_pairs_whose_references_are_all_alike_is_null():
    alike = [pair("drop", CUBE, references=["the cube is gone"]) | {"caption": "the cube is gone"} for _ in range(4)]
    scores = score(alike, ["a scene", "a scene", "the cube is gone"], tokenizer="split", time_limit=0.0)
    for found in (
        scores["total"],
        scores["changed"],
        scores["by_type"]["drop"],
        scores["baselines"]["shuffled_images"],
    ):
        assert found["CIDEr"] is None and "every pair" in found["reasons"]["CIDEr"]
        assert found["BLEU-4"] == pytest.approx(100)
    assert scores["skill"]["total"] is None and scores["baselines"]["constant_total"]["caption"] == "the cube is gone"
    assert validation_scores(alike)["CIDEr"] is None and validation_scores(alike)["CIDEr_changed"] is None
    assert [one.cider for one in judge(alike)] == [None] * 4

    scores = score(alike + predictions(*(say(one["truth"]) for one in PAIRS)), tokenizer="split", time_limit=0.0)
    assert scores["by_type"]["drop"]["CIDEr"] > 0, "references of this kind vary"


def test_one_pair_has_no_caption_of_another():
    scores = score(predictions(*[""] * 6)[:1], tokenizer="split", time_limit=0.0)
    shuffled = scores["baselines"]["shuffled_images"]
    for found in (shuffled, shuffled["changed"]):
        assert found["BLEU-1"] is None and found["CIDEr"] is None and "no other pair" in found["reasons"]["BLEU-1"]


def test_what_could_not_run_is_null_with_its_reason(tmp_path, monkeypatch):
    scores = scores_of(*["there is no change"] * 6)
    assert scores["total"]["METEOR"] is None and "time limit" in scores["total"]["reasons"]["METEOR"]
    assert scores["by_type"]["add"]["CIDEr"] is None  # of one pair
    scores = score(predictions(*["there is no change"] * 6), tokenizer="ptb", time_limit=0.0)
    assert set(scores) == {
        "total", "changed", "unchanged", "by_type", "accuracy", "baselines", "oracle", "skill", "n", "tokenizer",
        "seed", "checkpoint", "intervals", "reasons", "accuracy_by",
    }  # fmt: skip
    assert scores["tokenizer"] == "words"
    assert scores["reasons"] == {"tokenizer": "ptb could not run: not done within the time limit"}
    assert [name for name in coco.METRICS if scores["total"][name] is None] == ["METEOR"]
    assert "tokenizer words: ptb could not run" in summary(scores | {"where": {"n": 0}})
    assert scores["accuracy"]["unchanged"] == 100.0
    write_scores(tmp_path / "scores.json", scores)
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


def test_intervals_hold_their_figures_and_narrow_with_more_pairs():
    said = ("the big red block is gone", "the blue cube has been added", "the cube became blue", "there is no change",
            "the cube is gone", "nothing has changed")  # fmt: skip
    found = []
    for times in (8, 32):
        rows = [row | {"key": f"{time}-{row['key']}"} for time in range(times) for row in predictions(*said)]
        scores = score(rows, tokenizer="split", time_limit=0.0)
        made = scores["intervals"]
        assert made == score(rows, tokenizer="split", time_limit=0.0, seed=9)["intervals"], "not of the run's seed"
        figures = {
            **{
                (name, half): scores[half][name]
                for name in ("CIDEr", "ROUGE_L")
                for half in ("total", "changed", "unchanged")
            },
            **{("skill", half): scores["skill"][half] for half in ("total", "changed")},
            **{("accuracy", name): scores["accuracy"][name] for name in scores["accuracy"]["n"]},
        }
        for (section, name), value in figures.items():
            low, high = made[section][name]
            assert low < value < high, name
        found.append({place: np.ptp(made[place[0]][place[1]]) for place in figures})
        assert (made["level"], made["resamples"]) == (95, 1000) and "reasons" not in made["CIDEr"]
    # Four times the pairs: half the width.
    halved = {place: width / 2 for place, width in found[0].items()}
    assert found[1] == pytest.approx(halved, rel=0.25)
    # That of a share by the textbook's formula for 4 * 32 changed pairs, 75 % of them right.
    assert found[1]["accuracy", "changed"] == pytest.approx(2 * 196 * (0.75 * 0.25 / 128) ** 0.5, rel=0.1)


def test_intervals_of_cider_are_of_the_scores_of_single_pairs():
    each = {}
    references = {str(i): one["references"] for i, one in enumerate(PAIRS)}
    said = {key: "the cube is gone" for key in references}
    (scored,) = coco.score_sets({"all": (references, said)}, "split", 0.0, each).values()
    assert each["all"].mean() == pytest.approx(scored["CIDEr"])
    assert list(each["all"]) == pytest.approx(list(Cider(references).scores(said).values()))


def test_what_has_no_interval_says_why():
    birds = [
        {"references": ["the bird on the left has a longer beak"], "caption": "animal1 is brown"},
        {"references": ["animal2 is smaller"], "caption": "animal2 is smaller"},
    ]
    made = score(birds, tokenizer="split", time_limit=0.0)["intervals"]
    assert made["CIDEr"]["total"][0] < made["CIDEr"]["total"][1]
    assert made["CIDEr"]["changed"] is None and made["CIDEr"]["reasons"]["changed"] == "no pairs"
    assert made["skill"]["total"] is None and "oracle" in made["skill"]["reasons"]["total"]
    assert made["accuracy"]["type"] is None and "no pairs" in made["accuracy"]["reasons"]["type"]

    perfect = scores_of(*(say(one["truth"]) for one in PAIRS))["intervals"]
    assert perfect["accuracy"]["changed"] == [pytest.approx(100 * 0.025**0.25), 100.0], "4 of 4 may be luck"
    assert perfect["accuracy"]["balanced"] is None and "same figure" in perfect["accuracy"]["reasons"]["balanced"]

    untold = score(predictions(*["there is no change"] * 6), tokenizer="ptb", time_limit=0.0)["intervals"]
    assert untold["CIDEr"]["total"] is not None, "of the tokens that need no Java"
    assert untold["accuracy"]["unchanged"] == [pytest.approx(100 * 0.025**0.5), 100.0]
    assert score([], tokenizer="split", time_limit=0.0)["intervals"]["accuracy"]["changed"] is None


def test_no_change_in_another_language_is_read_where_packing_learnt_it():
    pairs = [
        {"caption": "没有变化", "references": ["没有变化"], "changed": False},
        {"caption": "没有变化。", "references": ["右边新建了一座房子"], "changed": True},
        {"caption": "右边新建了一座房子", "references": ["右边新建了一座房子"], "changed": True},
    ]
    learnt = [pair | {"denials": frozenset({"没有变化"})} for pair in pairs]
    assert accuracies(learnt, [None] * 3)["unchanged"] == 100 and accuracies(learnt, [None] * 3)["changed"] == 50
    assert accuracies(pairs, [None] * 3)["unchanged"] == 0, "an older folder has none"
    assert [shown.verdict for shown in judge(learnt)][:2] == ["right", "missed"]
