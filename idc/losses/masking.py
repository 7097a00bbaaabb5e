"""What masked language modelling and masked visual contrastive learning hide, drawn from a given generator.

numpy alone, so that a data pipeline can use it; all draws come from the generator, so a sample's seed fixes its masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idc.model.config import BOS, CLS, EOS, MASK, NOT_SCORED, PAD, UNK


def mask_words(
    ids: np.ndarray,
    rng: np.random.Generator,
    vocab_size: int,
    probability: float = 0.15,
    special: Sequence[int] = (PAD, BOS, EOS, UNK, CLS, MASK),
) -> tuple[np.ndarray, np.ndarray]:
    """Hides words of one caption.

    ids: (L,) int, `<bos> words <eos> <pad>*`; <eos> may be missing (a caption that was cut). special: ids of pad,
    bos, eos, unk, cls, mask. Each word is hidden with `probability`, at least one in any case: 80 % become <mask>, 10 %
    a random word that is not special, 10 % stay. <eos> becomes <mask> with `probability`, by a draw of its own (and
    always where there is no word). <bos> and padding never change. Returns (masked ids, labels), (L,) int64 both, label
    -1 where nothing is to be predicted. Raises ValueError for a vocabulary without words.
    """
    pad, bos, eos, _, _, mask = special
    masked, labels = ids.astype(np.int64), np.full(ids.shape, NOT_SCORED, np.int64)
    words = np.flatnonzero((ids != pad) & (ids != bos) & (ids != eos))
    hidden = words[rng.random(len(words)) < probability]
    if not len(hidden) and len(words):
        hidden = words[rng.integers(len(words), size=1)]
    ends = np.flatnonzero(ids == eos)
    if len(words):
        ends = ends[rng.random(len(ends)) < probability]

    kind = rng.random(len(hidden))
    ordinary = np.setdiff1d(np.arange(vocab_size), special)
    if not len(ordinary):
        raise ValueError(f"a vocabulary of {vocab_size} has no words besides the special ones to draw from")
    exchanged = hidden[(kind >= 0.8) & (kind < 0.9)]
    masked[hidden[kind < 0.8]] = mask
    masked[exchanged] = rng.choice(ordinary, size=len(exchanged))
    masked[ends] = mask
    labels[hidden], labels[ends] = ids[hidden], ids[ends]
    return masked, labels


def mask_cells(cells: int, rng: np.random.Generator, images: int = 2, probability: float = 0.15) -> np.ndarray:
    """Hides cells of one of the `images` images, which one being even odds: each with `probability`, at least one.

    Returns bool (images * cells,), True = hidden, the first image's cells first.
    """
    hidden = np.zeros((images, cells), bool)
    image = rng.integers(images)
    hidden[image] = rng.random(cells) < probability
    if not hidden[image].any():
        hidden[image, rng.integers(cells)] = True
    return hidden.reshape(-1)
