"""The best trials of a search once more, with further seeds: which they are, what is left to run, what came of it.

The search tries many values with one seed, so its highest score is partly luck: the more trials, the more of it. The
further seeds had no part in the choice of the best few. Their mean is the value that a trial is judged by.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune.search.plan import Sweep
from tune.search.table import DIVERGED, FINAL, FINISHED, Table, Trial


@dataclass(frozen=True)
class Repeated:
    """A trial of the search with the runs of the further seeds."""

    trial: Trial
    seeds: tuple[int, ...]  # that were asked for
    runs: dict[int, Trial]  # seed -> its run, of those that have begun

    @property
    def scores(self) -> dict[int, float]:
        """Seed -> CIDEr on validation of the checkpoint that is kept, of the runs that finished."""
        return {seed: run.score for seed, run in sorted(self.runs.items())
                if seed in self.seeds and run.state == FINISHED and run.score is not None}  # fmt: skip

    @property
    def mean(self) -> float | None:
        """Of the scores; None while one is not there: see `reason`."""
        return None if self.reason else statistics.fmean(self.scores.values())

    @property
    def spread(self) -> float | None:
        """The standard deviation of the scores (n - 1); None if there is no mean, or one seed alone."""
        return None if self.reason or len(self.seeds) < 2 else statistics.stdev(self.scores.values())

    @property
    def reason(self) -> str:
        """Why there is no mean; empty if there is one."""
        if not self.seeds:
            return "no further seeds were asked for"
        told = {seed: self.runs[seed].state if seed in self.runs else "not begun" for seed in self.seeds}
        return ", ".join(f"seed {seed}: {state}" for seed, state in told.items() if seed not in self.scores)


def finished(table: Table) -> list[Trial]:
    """The trials of the search that were trained to the end, the best first, the earlier of equals."""
    found = [one for one in table.trials.values() if one.state == FINISHED and one.score is not None]
    return sorted(found, key=lambda trial: (-trial.value, trial.number))


def repeated(sweep: Sweep, table: Table) -> list[Repeated]:
    """The best trials of the search, best first by their own score; none if no further seeds are asked for."""
    if not sweep.repeats:
        return []
    # Members of a population can end with the same values.
    best = list({str(sorted(one.values.items())): one for one in reversed(finished(table))}.values())[::-1][: sweep.top]
    return [Repeated(trial, sweep.further_seeds, table.repeats.get(trial.key, {})) for trial in best]


def winner(sweep: Sweep, table: Table) -> Repeated | None:
    """The trial with the best mean over the further seeds; without a mean, the one with the best score of its own.

    None if no trial of the search has finished.
    """
    compared = repeated(sweep, table)
    if with_mean := [(one.mean, one) for one in compared if one.mean is not None]:
        return max(with_mean, key=lambda one: one[0])[1]
    # One that diverges under another seed is no winner, as long as there is another.
    sound = [one for one in compared if not any(run.state == DIVERGED for run in one.runs.values())] or compared
    return sound[0] if sound else next((Repeated(trial, (), {}) for trial in finished(table)), None)


def repeats_left(sweep: Sweep, table: Table) -> list[dict[str, Any]]:
    """What is left to run: the values of a trial, the seed as `repeat`, its key. Each trial gets one seed first."""
    compared = repeated(sweep, table)
    return [
        one.trial.values | {"run": None, "repeat": seed, "of": one.trial.key}
        for seed in sweep.further_seeds
        for one in compared
        if seed not in one.runs or one.runs[seed].state not in FINAL
    ]


def seeds_text(seeds: Sequence[int]) -> str:
    """ "seed 3" or "seeds 1, 2"."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
