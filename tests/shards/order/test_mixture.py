"""Mixtures: exact shares at every prefix, every source whole in each of its epochs, any world, worker and restart."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.order import permutation
from shards.order.mixture import LONGEST_PATTERN, Mixture, parse_weight, source_seed

seeds = st.integers(-(2**66), 2**66)
weights = st.integers(1, 40).map(Fraction) | st.fractions(Fraction(1, 12), 12, max_denominator=12)
sources = st.lists(st.tuples(st.integers(1, 60) | st.integers(250, 260), weights), min_size=1, max_size=4)


def make(drawn: list[tuple[int, Fraction]]) -> Mixture:
    return Mixture(*zip(*drawn, strict=True))


@given(sources, st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_each_source_is_within_one_sample_of_its_share_at_every_prefix(drawn, seed):
    length = 1500
    source, _, _ = make(drawn).locate(np.arange(length), seed)
    total = sum(weight for _, weight in drawn)
    for number, (_, weight) in enumerate(drawn):
        share = weight / total
        come = np.cumsum(source == number)
        # Whole numbers alone: |come - n * share| < 1.
        owed = come * share.denominator - np.arange(1, length + 1) * share.numerator
        assert np.abs(owed).max() < share.denominator


@given(sources, seeds, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_source_comes_whole_in_each_of_its_epochs(drawn, seed, last):
    total = sum(weight for _, weight in drawn)
    # Long enough that the slowest source has gone through `last` epochs.
    length = max(int(((last * size) + 1) * total / weight) + 1 for size, weight in drawn)
    source, epoch, index = make(drawn).locate(np.arange(min(length, 60_000)), seed)
    for number, (size, _) in enumerate(drawn):
        mine = source == number
        assert np.array_equal(epoch[mine], np.arange(mine.sum()) // size)
        for whole in range(mine.sum() // size):
            assert np.array_equal(np.sort(index[mine & (epoch == whole)]), np.arange(size))


@given(sources, seeds, st.integers(0, 10**14), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_a_resumed_mixture_is_the_undisturbed_one(drawn, seed, start, length):
    mixture = make(drawn)
    whole = mixture.locate(np.arange(start, start + length), seed)
    for cut in (0, length // 2, length - 1):
        for column, resumed in zip(
            whole, make(drawn).locate(np.arange(start + cut, start + length), seed), strict=True
        ):
            assert np.array_equal(column[cut:], resumed)
    assert [int(column) for column in mixture.locate(start, seed)] == [int(column[0]) for column in whole]


@given(
    sources, seeds, st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(1, 7), st.integers(0, 10**9)
)
@settings(max_examples=60, deadline=None)
def test_ranks_and_workers_together_read_the_global_batch(drawn, seed, group, world, groups, workers, step):
    mixture, batch = make(drawn), group * world * groups
    expected = np.stack(mixture.locate(np.arange(step * batch, (step + 1) * batch), seed), axis=1)
    merged = np.full((batch // group, group, 3), -1)
    for rank in range(world):
        positions = permutation.rank_positions(step * batch, batch, world, rank, group)
        mine = np.full((len(positions), 3), -1)
        for worker in range(workers):
            share = permutation.worker_positions(positions, workers, worker)
            mine[worker::workers] = np.stack(mixture.locate(share, seed), axis=1)
        merged[rank::world] = mine.reshape(-1, group, 3)
    assert np.array_equal(merged.reshape(-1, 3), expected)


@given(st.integers(1, 400), seeds, st.integers(0, 10**12), weights)
@settings(max_examples=40, deadline=None)
def test_one_source_has_the_order_it_has_without_a_mixture(size, seed, start, weight):
    positions = np.arange(start, start + 50)
    source, epoch, index = Mixture([size], [weight]).locate(positions, seed)
    assert not source.any()
    assert np.array_equal([epoch, index], permutation.locate(positions, size, seed))


def test_golden_values():
    # Saved runs depend on these: they may never change.
    source, epoch, index = Mixture([5, 3, 300], [2, Fraction(1, 2), 1]).locate(np.arange(14), 7)
    assert source.tolist() == [0, 2, 0, 0, 1, 2, 0, 0, 2, 0, 0, 1, 2, 0]
    assert epoch.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1]
    assert index.tolist() == [4, 70, 2, 1, 0, 292, 0, 3, 267, 3, 1, 1, 83, 0]
    far = Mixture([67_660, 11_943], [3, 1]).locate(10**15 + 3, 2022)
    assert [int(column) for column in far] == [0, 11084835944, 39195]


def test_what_is_mixed_in_does_not_change_the_order_of_the_first_source():
    alone = permutation.locate(np.arange(30), 20, 5)[1]
    for others in ([20], [20, 3]):
        source, _, index = Mixture([20, *others], [1] * (1 + len(others))).locate(np.arange(120), 5)
        assert np.array_equal(index[source == 0][:30], alone)
        assert not np.array_equal(index[source == 1][:30], alone), "sources of one size are shuffled differently"


def test_weights_count_by_their_ratio_alone():
    one, other = Mixture([9, 9], [parse_weight("0.2"), parse_weight("0.1")]), Mixture([9, 9], [6, 3])
    for column, same in zip(one.locate(np.arange(99), 1), other.locate(np.arange(99), 1), strict=True):
        assert np.array_equal(column, same)
    assert Counter(one.locate(np.arange(30), 1)[0].tolist()) == {0: 20, 1: 10}
    assert (parse_weight("1e-06"), parse_weight("1/03")) == (Fraction(1, 10**6), Fraction(1, 3))
    assert len({source_seed(5, number) for number in range(4)}) == 4


@pytest.mark.parametrize("text", ["0", "0.0", "0/5", "1/0", "-1", "1e999", "nan", "", "1/2/3", " 1", "9" * 400, "١"])
def test_what_is_no_weight_is_refused(text):
    with pytest.raises(DataError, match="is not a number above 0, such as 2, 0.5 or 1/3"):
        parse_weight(text)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Mixture([], []), "one or more sources"),
        (lambda: Mixture([3, 0], [1, 1]), "each with samples"),
        (lambda: Mixture([3, 3], [1, 0]), "a weight above 0"),
        (lambda: Mixture([3, 3], [LONGEST_PATTERN, 1]), "round them"),
        (lambda: Mixture([3], [1]).locate(np.array([2, -1]), 0), "position -1 is negative"),
        (lambda: permutation.worker_positions(np.arange(3), 2, 2), "worker 2"),
    ],
)
def test_impossible_requests_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
