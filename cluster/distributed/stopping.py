"""All ranks stop after the same step: rank 0 is asked, and tells the others where they meet about once a second."""

from __future__ import annotations

import time

from cluster.distributed import beat
from cluster.distributed.ranks import Ranks

LOOK_S = 0.5  # aimed at between two meetings
MOST_STEPS = 100  # between two meetings, however fast the last steps were


class Agreement:
    """Whether to stop, asked after every step. It costs a message over CPU memory about twice a second."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._next = 0  # step after which all ranks meet, the same on all
        self._met: tuple[int, float] | None = None  # the last meeting: step, and when

    def why(self, done: int) -> str:
        """Why all ranks stop after `done` steps of the stage, the same on all; empty: they go on."""
        if done < self._next:
            return ""
        # Rank 0 alone has been asked, and has the clock that says when to meet again.
        told = (bool(beat.asked()), self._meet_again(done)) if self._ranks.first else (0, 0)
        stop, self._next = map(int, self._ranks.total(told))
        return self._ranks.share(beat.asked()) if stop else ""

    def _meet_again(self, done: int) -> int:
        now, before = time.monotonic(), self._met
        self._met = (done, now)
        if before is None or now <= before[1]:
            return done + 1
        steps = int(LOOK_S * (done - before[0]) / (now - before[1]))
        return done + min(max(steps, 1), MOST_STEPS)
