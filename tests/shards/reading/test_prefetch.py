"""The prefetcher: in order, bounded, honest about errors, and never waiting for ever."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from shards.errors import DataError
from shards.reading.prefetch import Prefetcher


def test_results_come_in_order_from_other_threads():
    def fetch(position):
        time.sleep(0.002 * (position % 3))
        return position, threading.current_thread()

    with Prefetcher(fetch, range(40), threads=4, depth=8) as results:
        found = list(results)
    assert [position for position, _ in found] == list(range(40))
    assert threading.main_thread() not in {thread for _, thread in found}


def test_it_runs_ahead_but_not_further_than_its_depth():
    started = []
    with Prefetcher(lambda position: started.append(position), itertools.count(), threads=2, depth=5) as results:
        next(results)
        time.sleep(0.1)
        assert sorted(started) == [0, 1, 2, 3, 4]
        next(results)
        time.sleep(0.1)
        assert sorted(started) == [0, 1, 2, 3, 4, 5]


def test_an_error_comes_where_its_result_would_and_the_rest_follows():
    def fetch(position):
        if position in (2, 4):
            raise DataError(f"sample {position}")
        if position == 3:
            raise TimeoutError("the fetch's own")
        return position

    with Prefetcher(fetch, range(6), threads=3, depth=4) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(DataError, match="sample 2"):
            next(results)
        with pytest.raises(TimeoutError, match="the fetch's own"):
            next(results)
        with pytest.raises(DataError, match="sample 4"):
            next(results)
        assert list(results) == [5]


def test_close_joins_its_threads_and_ends_the_iteration():
    threads = threading.active_count()
    results = Prefetcher(lambda position: position, itertools.count(), threads=3)
    next(results)
    results.close()
    results.close()
    assert threading.active_count() == threads
    with pytest.raises(DataError, match="closed"):
        next(results)


def test_a_read_that_hangs_is_reported():
    gate = threading.Event()
    results = Prefetcher(lambda position: gate.wait(30), [7], threads=1, time_limit=0.1)
    with pytest.raises(DataError, match="sample 7 was not read within 0.1 s"):
        next(results)
    gate.set()
    results.close()


def test_impossible_settings_are_refused():
    with pytest.raises(DataError, match="at least 1 thread"):
        Prefetcher(str, [], threads=0)
