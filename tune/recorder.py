"""Writes what happens to trials into the table and the report, and says it in a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune import Callback

from shards.progress import say
from tune.report.report import write_report
from tune.search.plan import Sweep
from tune.search.table import FAILED, FINAL, REPLACED, STOPPED, Table, Trial
from tune.trials.trial import place, plan_of, read_pointer


class Recorder(Callback):
    """Ray Tune tells it, in the sweep's own process, so that one process writes the table."""

    def __init__(self, sweep: Sweep, table: Table) -> None:
        self._sweep, self._plan, self._table = sweep, sweep.plan, table
        self._run: dict[str, str] = {}  # Ray's id of a trial -> the run folder it works in
        self._member: dict[str, int] = {}  # the same -> member of the population

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial begins, or goes on after a pause, or with the checkpoint of another one."""
        values = {one.name: trial.config[one.name] for one in self._plan.dimensions}
        donor = read_pointer(Path(trial.checkpoint.path)) if trial.checkpoint else None
        plan = plan_of(self._plan, trial.config)
        key = place(plan, values, trial.config.get("run"), donor, trial.trial_id)
        before = self._run.get(trial.trial_id)
        self._run[trial.trial_id] = key
        known = self._table.run(key)
        if known is not None and known.state in FINAL:
            score = "no score" if known.score is None else f"CIDEr {known.score:.1f}"
            say(f"{_named(known)} is {known.state}, {score}: not run again")
            return
        if plan is not self._plan:
            self._table.start_again(key, self._table.trials[trial.config["of"]], plan.config.seed)
            say(f"{_named(self._table.begun(key))} starts")
            return
        member = self._member.get(trial.trial_id, known.member if known else len(set(self._members())) + 1)
        self._member[trial.trial_id] = member
        origin, goes_on = None, ""
        if donor is not None and donor.run != key:
            origin = {"run": donor.run, "step": donor.step, "trial": donor.trial}
            goes_on = f"on from {donor.run} at step {donor.step}"
        self._table.start(key, values, member, origin)
        if before is not None and before != key:  # after the start: killed in between, it goes on in its new run
            self._table.end(before, REPLACED, f"went {goes_on}")
        say(f"{_named(self._table.begun(key))} {f'goes {goes_on}' if goes_on else 'starts'}")

    def _members(self) -> list[int]:
        return [trial.member for trial in self._table.trials.values()]

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """A validation."""
        if "score" in result:
            self._table.score(result["run"], result["step"], result["score"], result["chosen_by"])
            say(f"{_named(self._table.begun(result['run']))} step {result['step']}: CIDEr {result['score']:.1f}")

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """The end of a trial: it finished, diverged, or was stopped."""
        result = trial.last_result or {}
        self._end(trial, result.get("state", STOPPED), result.get("reason", ""))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """The end of a trial that failed."""
        # Ray's own file of it: what trial.get_error() would read is copied only later. The last line is the cause.
        told = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "Ray does not say why"
        self._end(trial, FAILED, told.strip().splitlines()[-1][:500])

    def _end(self, trial: Any, state: str, reason: str) -> None:
        known = self._table.run(self._run.get(trial.trial_id, ""))
        if known is None or known.state in FINAL:
            return
        self._table.end(known.key, state, reason)
        say(f"{_named(known)} {state}" + (f": {reason}" if reason else ""))
        write_report(self._sweep, self._table)  # a sweep may take days, and nobody knows whether it ends


def _named(trial: Trial) -> str:
    seed = "" if trial.seed is None else f" with seed {trial.seed}"
    return f"trial {trial.number}{seed} ({trial.key})"
