"""The global order: nothing lost, nothing twice, the same for any world and any restart, and the same for ever."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.order import permutation

sizes = st.integers(1, 3000) | st.integers(250, 260)
seeds = st.integers(-(2**70), 2**70)
epochs = st.integers(0, 2**40)


@given(sizes, seeds, epochs)
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_every_sample_once(size, seed, epoch):
    shuffled = permutation.permute(np.arange(size), size, seed, epoch)
    assert np.array_equal(np.sort(shuffled), np.arange(size))


@given(st.integers(1, 200), seeds, st.integers(0, 900), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_a_resumed_sequence_is_the_undisturbed_one(size, seed, start, length):
    whole = permutation.locate(np.arange(start + length), size, seed)
    resumed = permutation.locate(np.arange(start, start + length), size, seed)
    assert np.array_equal(whole[0][start:], resumed[0]) and np.array_equal(whole[1][start:], resumed[1])
    assert permutation.locate(start, size, seed) == (resumed[0][0], resumed[1][0])


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 8), st.integers(0, 10**12))
@settings(max_examples=80, deadline=None)
def test_ranks_together_hold_the_global_batch_once_in_whole_groups(groups, group, world, start):
    """Also where the groups do not divide over the ranks: some have one less, or none."""
    batch = groups * group
    ranks = [permutation.rank_positions(start, batch, world, rank, group) for rank in range(world)]
    assert {len(positions) // group for positions in ranks} <= {groups // world, -(-groups // world)}
    assert np.array_equal(np.sort(np.concatenate(ranks)), np.arange(start, start + batch))
    alone = {tuple(g) for g in permutation.rank_positions(start, batch, 1, 0, group).reshape(-1, group)}
    assert alone == {tuple(g) for positions in ranks for g in positions.reshape(-1, group)}


@given(st.integers(1, 300), st.sampled_from([1, 2, 3, 4]), st.integers(1, 4), seeds)
@settings(max_examples=40, deadline=None)
def test_steps_of_any_world_walk_through_epochs_without_loss(size, world, groups, seed):
    batch = 12 * groups
    steps = -(-2 * size // batch)
    positions = np.sort(
        np.concatenate(
            [
                permutation.rank_positions(step * batch, batch, world, rank)
                for step in range(steps)
                for rank in range(world)
            ]
        )
    )
    epoch, index = permutation.locate(positions[: 2 * size], size, seed)
    assert Counter(zip(epoch.tolist(), index.tolist(), strict=True)) == {(e, i): 1 for e in (0, 1) for i in range(size)}


def test_golden_values():
    # Saved runs depend on these: they may never change.
    assert permutation.permute(np.arange(10), 10, 0, 0).tolist() == [2, 6, 5, 3, 0, 4, 7, 1, 8, 9]
    assert permutation.permute(np.arange(7), 7, -3, 1).tolist() == [4, 6, 2, 3, 0, 5, 1]
    assert permutation.permute(np.arange(5), 67660, 2022, 3).tolist() == [20770, 54951, 11401, 12296, 25561]
    assert permutation.permute(2**61, 2**62, 2**64 + 5, 1) == 3061319666653305400
    assert permutation.locate(1_000_003, 1000, 7) == (1000, 777)
    assert permutation.rank_positions(100, 12, 2, 1, 3).tolist() == [103, 104, 105, 109, 110, 111]
    assert permutation.worker_positions(np.arange(103, 112), 4, 1).tolist() == [104, 108]
    assert permutation.generator(1, 2, 3, "mask").bit_generator.random_raw(2).tolist() == [
        3298036782488005703,
        9745411061687189993,
    ]


def test_epochs_seeds_and_places_look_unrelated():
    size = 20_000
    first = permutation.permute(np.arange(size), size, 1, 0)
    for other in (
        permutation.permute(np.arange(size), size, 1, 1),
        permutation.permute(np.arange(size), size, 2, 0),
        np.arange(size),
    ):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.03
        assert (first == other).mean() < 0.001
    # Neighbours go apart: the mean distance of two random places is a third of the size.
    assert abs(np.abs(np.diff(first)).mean() / size - 1 / 3) < 0.01


def test_small_sets_see_every_arrangement_about_equally_often():
    counts = Counter(tuple(permutation.permute(np.arange(3), 3, 9, epoch)) for epoch in range(3000))
    assert len(counts) == 6
    assert max(counts.values()) < 600 and min(counts.values()) > 400


def test_generators_differ_by_every_argument():
    draws = {
        permutation.generator(*arguments).random()
        for arguments in [(0, 0, 0, "mask"), (1, 0, 0, "mask"), (0, 1, 0, "mask"), (0, 0, 1, "mask"), (0, 0, 0, "word")]
    }
    assert len(draws) == 5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: permutation.rank_positions(0, 12, 2, 0, 5), "group size 5"),
        (lambda: permutation.rank_positions(0, 12, 2, 2), "rank 2"),
        (lambda: permutation.permute(10, 10, 0, 0), "outside"),
        (lambda: permutation.locate(-1, 10, 0), "negative"),
        (lambda: permutation.locate(0, 0, 0), "at least one"),
    ],
)
def test_impossible_requests_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
