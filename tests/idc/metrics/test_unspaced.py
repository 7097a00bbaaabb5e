"""Captions of scripts without spaces are scored by their characters, and the tokenizer's name says so."""

from __future__ import annotations

import pytest

from cluster.evaluation.quick_scores import validation_scores
from cluster.evaluation.scores import score
from idc.metrics.coco import score_sets, tokenizer_name

REFERENCES = {
    "a": ["右边新建了一座红色的房子", "画面右侧多了一座红房子"],
    "b": ["道路旁边多了两棵树", "路边新种了两棵大树"],
    "c": ["左侧的停车场消失了", "左边不再有停车场了"],
}
PERFECT = {key: sentences[0] for key, sentences in REFERENCES.items()}
HALF = PERFECT | {"a": "右边新建了一座桥"}


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["ptb", "split"])
def test_perfect_chinese_captions_have_full_scores(tokenizer):
    sets = {"perfect": (REFERENCES, PERFECT), "half": (REFERENCES, HALF)}
    perfect, half = score_sets(sets, tokenizer).values()
    for order in range(1, 5):
        assert perfect[f"BLEU-{order}"] == pytest.approx(100, abs=0.01)
    assert perfect["ROUGE_L"] == pytest.approx(100) and perfect["CIDEr"] > 300
    assert 60 < half["BLEU-1"] < 100 and 50 < half["BLEU-4"] < 100, "a caption that is right in part counts in part"
    assert half["METEOR"] < perfect["METEOR"]


def test_the_tokenizers_name_says_so():
    predictions = [
        {"id": key, "caption": PERFECT[key], "references": sentences, "changed": True}
        for key, sentences in REFERENCES.items()
    ]
    scores = score(predictions, tokenizer="split", time_limit=0.0)  # none for METEOR
    assert scores["tokenizer"] == "split, characters of scripts without spaces"
    assert tokenizer_name("ptb", ["the car is gone", "차가 없어졌다"]) == "ptb"
    quick = validation_scores(predictions)
    assert quick["BLEU-4"] == pytest.approx(100, abs=0.01)
