"""What is hidden, and how often."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idc.losses.masking import mask_cells, mask_words
from idc.model.config import BOS, EOS, MASK, PAD


def caption(words: int, length: int, vocab_size: int, rng: np.random.Generator, end: bool = True) -> np.ndarray:
    ids = np.full(length, PAD)
    ids[0] = BOS
    ids[1 : words + 1] = rng.integers(6, vocab_size, words)
    if end:
        ids[words + 1] = EOS
    return ids


@given(st.integers(0, 10), st.integers(0, 4), st.integers(7, 40), st.integers(0, 2**32), st.booleans())
def test_labels_and_words(words, padding, vocab_size, seed, end):
    ids = caption(words, words + 2 + padding, vocab_size, np.random.default_rng(seed + 1), end)
    before = ids.copy()
    masked, labels = mask_words(ids, np.random.default_rng(seed), vocab_size)
    assert (ids == before).all(), "the caption itself stays"
    scored = labels >= 0
    assert (labels[scored] == ids[scored]).all() and (masked[~scored] == ids[~scored]).all()
    assert not scored[ids == PAD].any() and not scored[ids == BOS].any()
    assert scored.any() or not (words or end)
    assert scored[ids >= 6].any() == bool(words), "at least one word wherever there is one"
    changed = scored & (masked != ids)
    assert ((masked[changed] == MASK) | (masked[changed] >= 6)).all() and (masked < vocab_size).all()
    assert (masked[scored & (ids == EOS)] == MASK).all()
    again = mask_words(ids, np.random.default_rng(seed), vocab_size)
    assert (again[0] == masked).all() and (again[1] == labels).all()


def test_shares():
    rng, vocab_size, draws = np.random.default_rng(0), 1000, 4000
    ids = caption(30, 40, vocab_size, rng)
    drawn = [mask_words(ids, rng, vocab_size) for _ in range(draws)]
    masked, labels = (np.stack(part) for part in zip(*drawn, strict=True))
    words, ends = slice(1, 31), 31
    hidden = labels[:, words] >= 0
    assert hidden.mean() == pytest.approx(0.15, abs=0.005)
    assert (hidden.mean(axis=0) > 0.1).all(), "every place can be hidden"
    assert (labels[:, ends] >= 0).mean() == pytest.approx(0.15, abs=0.02)
    word, kept = masked[:, words][hidden], (masked == ids)[:, words][hidden]
    assert (word == MASK).mean() == pytest.approx(0.8, abs=0.015)
    assert kept.mean() == pytest.approx(0.1, abs=0.015)


def test_the_end_is_drawn_on_its_own():
    rng, ids = np.random.default_rng(0), np.array([BOS, 9, EOS])
    drawn = np.array([mask_words(ids, rng, 20)[1] for _ in range(3000)])
    assert (drawn[:, 1] == 9).all(), "the only word is always hidden"
    assert (drawn[:, 2] == EOS).mean() == pytest.approx(0.15, abs=0.02)


def test_other_special_ids():
    special = (9, 8, 7, 6, 5, 4)  # pad, bos, eos, unk, cls, mask
    ids, rng = np.array([8, 0, 1, 2, 7, 9, 9]), np.random.default_rng(0)
    drawn = [mask_words(ids, rng, 12, special=special) for _ in range(500)]
    masked, labels = (np.stack(part) for part in zip(*drawn, strict=True))
    assert (labels[:, [0, 5, 6]] == -1).all()
    exchanged = masked[(masked != ids) & (masked != 4)]
    assert set(exchanged) == {0, 1, 2, 3, 10, 11}
    with pytest.raises(ValueError, match="no words"):
        mask_words(np.array([BOS, EOS]), rng, 6)


@given(st.integers(1, 60), st.integers(1, 2), st.integers(0, 2**32))
def test_cells_of_one_image(cells, images, seed):
    hidden = mask_cells(cells, np.random.default_rng(seed), images)
    assert hidden.dtype == bool and hidden.shape == (images * cells,)
    assert np.count_nonzero(hidden.reshape(images, cells).any(axis=1)) == 1


def test_shares_of_cells():
    rng = np.random.default_rng(0)
    hidden = np.stack([mask_cells(49, rng) for _ in range(4000)]).reshape(-1, 2, 49)
    assert hidden[:, 0].any(axis=1).mean() == pytest.approx(0.5, abs=0.03)
    assert hidden.sum() / (4000 * 49) == pytest.approx(0.15, abs=0.005)
    assert (hidden.sum(axis=(0, 1)) > 400).all()
