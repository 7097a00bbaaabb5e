"""All ranks stop after the same step, whichever of them is asked when."""

from __future__ import annotations

import time

import pytest
from testing.multirank import run_ranks

from cluster.distributed import beat
from cluster.distributed.ranks import Ranks
from cluster.distributed.stopping import LOOK_S, Agreement


def steps_until_asked(asked_at: int) -> tuple[int, str, int, float]:
    """(step of the stop, why, meetings, seconds from the ask to the stop) of a rank whose steps take 10 ms."""
    ranks = Ranks(60)
    agreement, meetings, total = Agreement(ranks), 0, ranks.total

    def counted(values):
        nonlocal meetings
        meetings += 1
        return total(values)

    ranks.total = counted
    asked = 0.0
    for done in range(1, 10_000):
        time.sleep(0.01)
        if ranks.first and done == asked_at:
            beat.ask_to_stop("as asked")
            asked = time.monotonic()
        beat.stepped("finetune", done)
        if why := agreement.why(done):
            return done, why, meetings, time.monotonic() - asked
    raise AssertionError("never stopped")


@pytest.mark.ranks
def test_all_ranks_stop_after_the_same_step_within_a_second() -> None:
    (first, why, meetings, seconds), other = run_ranks(2, steps_until_asked, 120)
    assert other[:3] == (first, why, meetings) and why == "as asked"
    assert 120 <= first <= 220 and seconds < 3 * LOOK_S
    assert meetings <= 12, "about twice a second, not at every step"
