"""Intervals over pairs: against the textbook's for means and shares, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from idc.metrics.bootstrap import RESAMPLES, all_alike, interval, resampled_means


def test_a_mean_is_as_sure_as_its_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(50, 20, 400)
    low, high = interval(resampled_means(values[:, None])[:, 0])
    error = values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.25 * error)


def test_it_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(100):
        low, high = interval(resampled_means(rng.exponential(10, (100, 1)))[:, 0])
        held += low <= 10 <= high
    assert 0.88 <= held / 100 <= 1


def test_columns_share_their_draws_and_pairs_that_do_not_count_are_left_out() -> None:
    rng = np.random.default_rng(3)
    one, some = rng.normal(size=300), rng.normal(size=300)
    some[::3] = np.nan
    draws = resampled_means(np.stack([one, one + 5, some, np.where(np.isnan(some), np.nan, 7.0)], 1))
    assert draws.shape == (RESAMPLES, 4) and np.allclose(draws[:, 1] - draws[:, 0], 5)
    assert np.allclose(draws[:, 3], 7) and draws[:, 2].mean() == pytest.approx(np.nanmean(some), abs=0.02)
    assert np.allclose(draws[:, 2:3], resampled_means(some[:, None])), "the same draws in every call"
    rare = np.array([[1.0], [np.nan], [np.nan]])
    assert np.isnan(resampled_means(rare)).mean() == pytest.approx((2 / 3) ** 3, abs=0.05)


def test_figures_that_are_all_alike_have_no_interval_but_shares_have_an_exact_one() -> None:
    assert interval(resampled_means(np.full((20, 1), 3.3))[:, 0]) is None
    assert interval(np.array([np.nan])) is None
    # The textbook's values: 0 of 10 is at most 30.85 %, 20 of 20 at least 83.16 %.
    assert all_alike(0, 10) == [0.0, pytest.approx(30.85, abs=0.01)]
    assert all_alike(100, 20) == [pytest.approx(83.16, abs=0.01), 100.0]
