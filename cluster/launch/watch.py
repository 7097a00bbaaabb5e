"""Watches over a group of workers from Ray Train's controller: where each one is, and which of them stands still."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray

from cluster.distributed import beat
from cluster.distributed.beat import Beat

# A rank that waits in a collective gives up after --cluster.timeout_s. Who hangs is found a little earlier, while all
# of them still stand where it happened.
SHARE = 0.9
START_S = 600.0  # least limit while no step is under way: workers start, a backbone is compiled, a store is slow
ANSWER_S = 3.0  # for workers to say where they are once a fault has been seen
STACKS_S = 5.0


class Watch:
    """Asks every worker in turn where it is, without waiting for the answers."""

    def __init__(self, timeout_s: float, workers: Sequence[Any]) -> None:
        """`timeout_s`: --cluster.timeout_s; `workers`: of Ray Train's worker group, in the order of ranks."""
        self._limit = SHARE * timeout_s
        self._every = min(5.0, self._limit / 10)
        self.workers = list(workers)
        self.beats: dict[int, Beat] = {}
        now = time.monotonic()
        self._next = now
        self._answered = dict.fromkeys(range(len(self.workers)), now)
        self._asked: dict[Any, int] = {}
        self.gone: dict[int, ray.exceptions.RayError] = {}  # workers that cannot answer any more

    @property
    def names(self) -> Mapping[int, str]:
        """rank -> what a line calls the worker."""
        return {
            rank: f"worker {rank} on {worker.metadata.hostname}, process {worker.metadata.pid},"
            for rank, worker in enumerate(self.workers)
        }

    def look(self) -> str:
        """What stands still, in words; empty: nothing. Called often, it asks anew now and then."""
        self._collect(0)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            self._ask()
        silent = {rank: now - at for rank, at in self._answered.items()}
        idle = {rank: one.idle_s + silent[rank] for rank, one in self.beats.items() if not one.ended}
        limits = {rank: self._limit if one.stage else max(self._limit, START_S) for rank, one in self.beats.items()}
        if max(silent.values()) < self._limit and all(idle[rank] < limits[rank] for rank in idle):
            return ""
        return self._stands_still(silent, idle)

    def places(self) -> list[tuple[str, int]]:
        """Stages and steps that the workers have reached, asked now; of those that are gone, as they last said."""
        self._ask()
        self._collect(ANSWER_S)
        return [one.place for one in self.beats.values() if one.place is not None]

    def keep_stacks(self, why: str, mute: Collection[int] = ()) -> None:
        """Every worker but those that do not answer writes where it stands into its log."""
        asked = [one.execute_async(beat.keep_stacks, why) for n, one in enumerate(self.workers) if n not in mute]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=STACKS_S)

    def _ask(self) -> None:
        busy = set(self._asked.values())
        for rank, worker in enumerate(self.workers):
            if rank not in busy and rank not in self.gone:
                self._asked[worker.execute_async(beat.read)] = rank

    def _collect(self, seconds: float) -> None:
        """Takes the answers that are there within so many seconds."""
        if not self._asked:
            return
        done, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=seconds)
        for answer in done:
            rank = self._asked.pop(answer)
            try:
                self.beats[rank] = ray.get(answer)
            except ray.exceptions.RayError as error:
                self.gone[rank] = error
                continue
            self._answered[rank] = time.monotonic()

    def _stands_still(self, silent: Mapping[int, float], idle: Mapping[int, float]) -> str:
        """Names who stands still, keeps the stacks of all and ends those that do not answer."""
        unheard = min(self._limit, 2 * self._every + ANSWER_S)
        mute = [rank for rank, seconds in silent.items() if seconds >= unheard]
        names = self.names
        if mute:
            which = f"{', '.join(names[rank] for rank in mute)} does not answer for {max(silent.values()):.0f} s"
        else:
            places = {rank: self.beats[rank].place or ("", 0) for rank in sorted(idle)}
            least = min(places.values())
            behind = [rank for rank, place in places.items() if place == least]
            # The others have done the step that these have not. If all have done the same ones, nobody stands out.
            who = "nobody" if len(behind) == len(places) else ", ".join(names[rank] for rank in behind)
            where = "{} step {}".format(*least) if least[0] else "the start of a stage"
            which = f"no step was done for {max(idle.values()):.0f} s after {where}, and {who} is behind the others"
        self.keep_stacks(which, mute)
        for rank in mute:
            ray.kill(self.workers[rank].actor)
        return which
