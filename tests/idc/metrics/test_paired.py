"""Differences of two methods: BLEU of draws is pycocoevalcap's, draws are the same for both, p and interval agree."""

from __future__ import annotations

import numpy as np
import pytest

from idc.metrics.bleu_counts import bleu, bleu_counts
from idc.metrics.bootstrap import RESAMPLES, paired_difference, resampled_means, resampled_sums
from idc.metrics.draws import drawn_figures
from idc.metrics.extras import extra_scores

REFERENCES = [["the red cube moved", "the cube is gone now"], ["no change was made"], ["a ball a ball was added here"]]
SAID = ["the red cube is gone", "no change", "a a a a ball was added here to the left"]


@pytest.mark.parametrize("places", [[0, 1, 2], [0, 0, 2], [1], [2, 1]])
def test_bleu_of_summed_counts_is_that_of_the_pairs(places: list[int]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    counts = bleu_counts(REFERENCES, SAID)
    references = {i: REFERENCES[place] for i, place in enumerate(places)}
    theirs, _ = Bleu(4).compute_score(references, {i: [SAID[place]] for i, place in enumerate(places)}, verbose=0)
    assert bleu(counts[places].sum(0, keepdims=True))[0] == pytest.approx(100 * np.array(theirs), rel=1e-12)


def test_figures_of_draws_are_those_of_the_drawn_pairs() -> None:
    from pycocoevalcap.rouge.rouge import Rouge

    times = resampled_sums(np.eye(3))  # how often each pair is in each draw
    found = drawn_figures(REFERENCES, SAID)
    counts = bleu_counts(REFERENCES, SAID)
    rouge = Rouge().compute_score(dict(enumerate(REFERENCES)), {i: [text] for i, text in enumerate(SAID)})[1]
    assert found["ROUGE_L"].each == pytest.approx(100 * rouge)
    for draw in (0, 1, 999):
        pairs = np.repeat(np.arange(3), times[draw].astype(int))
        assert found["BLEU-4"].draws[draw] == pytest.approx(bleu(counts[pairs].sum(0, keepdims=True))[0, 3])
        for name in ("ROUGE_L", "CIDEr"):
            assert found[name].draws[draw] == pytest.approx(found[name].each[pairs].mean())
    assert "CIDEr" not in drawn_figures([["a cube"]], ["a cube"])


def test_both_methods_are_drawn_alike_and_the_p_value_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(50, 20, 80)  # pairs differ far more than the methods do
    values = np.stack([hard + 2 + rng.normal(0, 1, 80), hard], 1)
    draws = resampled_means(values)
    assert draws.shape == (RESAMPLES, 2) and np.allclose(resampled_sums(values) / 80, draws)
    paired = paired_difference(draws[:, 0] - draws[:, 1])
    assert 1 < paired["interval"][0] < 2 < paired["interval"][1] < 3
    assert paired["p"] == 2 / (RESAMPLES + 1), "no draw is on the other side"
    swapped = paired_difference(draws[:, 1] - draws[:, 0])
    assert swapped["p"] == paired["p"] and swapped["interval"][0] == pytest.approx(-paired["interval"][1])
    apart = draws[:, 0] - resampled_means(values[::-1])[:, 1]  # as if they had been scored on other pairs
    assert paired_difference(apart)["p"] > 0.1, "drawn apart, the same difference is lost among the pairs"
    null = paired_difference(resampled_means(np.stack([rng.normal(0, 1, 80), rng.normal(0, 1, 80)], 1)) @ [1, -1])
    assert null["interval"][0] < 0 < null["interval"][1] and null["p"] > 0.05
    assert paired_difference(np.zeros(RESAMPLES)) == {"interval": None, "p": None}


def test_extras_are_null_with_their_reason() -> None:
    pairs = [{"key": "a", "caption": "a cube", "references": ["a cube"]}]
    found = extra_scores(pairs, ("SPICE",), lambda key: np.zeros((8, 8, 3), np.uint8))
    assert found["BERTScore"] is None and found["reasons"]["BERTScore"].startswith("not asked for")
    if found["SPICE"] is None:  # as long as nobody has put CoreNLP there
        assert "stanford-corenlp-3.6.0.jar is not in" in found["reasons"]["SPICE"]
    else:
        assert found["SPICE"] == pytest.approx(100)
