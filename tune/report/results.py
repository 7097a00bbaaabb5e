"""What came out of a sweep, from its table: the order of trials, the winner, times, results.csv."""

from __future__ import annotations

import csv
import datetime
import io
from dataclasses import dataclass
from pathlib import Path

from cluster.tracking.run_log import read_metrics
from shards.format.whole_files import write_whole
from tune.search.plan import PBT, Plan, Sweep
from tune.search.repeats import Repeated, finished, repeated, winner
from tune.search.table import DIVERGED, FAILED, FINISHED, Table, Trial

FILE = "results.csv"


def ranked(table: Table) -> list[Trial]:
    """Trials with a score: those that finished, the best first, then the others, the longest trained first.

    Scores after fewer steps are no measure of what a trial would have come to. Those that diverged or failed are not
    among them.
    """
    others = [one for one in table.trials.values() if one.state not in (FINISHED, DIVERGED, FAILED) and one.scores]
    return finished(table) + sorted(others, key=lambda trial: (-trial.step, -trial.value, trial.number))


@dataclass(frozen=True)
class Results:
    """A sweep, what its table says, and what follows from it."""

    sweep: Sweep
    table: Table
    trials: list[Trial]  # with a score: the winner, then as `ranked` has them
    repeated: list[Repeated]  # the best of the search, by their own scores
    winner: Repeated | None

    @property
    def plan(self) -> Plan:
        """The sweep's."""
        return self.sweep.plan

    @property
    def finished(self) -> int:
        """How many trials of the search finished."""
        return sum(trial.state == FINISHED for trial in self.trials)


def results_of(sweep: Sweep, table: Table) -> Results:
    """The results as the table stands."""
    best = winner(sweep, table)
    first = [] if best is None else [best.trial]
    rest = [trial for trial in ranked(table) if trial not in first]
    return Results(sweep, table, first + rest, repeated(sweep, table), best)


def at_first_rung(plan: Plan, trial: Trial) -> float | None:
    """The score at the first validation, which trials that were stopped have as well as those that were not."""
    return trial.scores.get(plan.config.finetune.validate_every)


@dataclass(frozen=True)
class Times:
    """Where the time of a sweep went, seconds."""

    wall: float  # of all times the command ran
    slots: float  # wall times the trials that ran at once
    useful: float  # steps and validations, of trials and of shared pre-training, in runs as they stand

    @property
    def useful_share(self) -> float | None:
        """Of slots, what was training or validation."""
        return self.useful / self.slots if self.slots else None


def times(plan: Plan, table: Table) -> Times:
    """Read from the table and from the metrics of the runs."""
    runs = [folder for kind in ("trials", "pretraining") for folder in sorted((plan.folder / kind).glob("*"))]
    return Times(
        wall=sum(one.end - one.start for one in table.sessions),
        slots=sum((one.end - one.start) * one.slots for one in table.sessions),
        useful=sum(map(useful_seconds, runs)),
    )


def useful_seconds(run: Path) -> float:
    """Seconds of a run that were steps, validations or checkpoints, by its metrics.jsonl.

    The speed of a line of steps is that since the line before it, whatever came between the two.
    """
    seconds = after = 0.0
    last: dict[str, int] = {}  # stage -> step of its last line
    for record in read_metrics(run):
        if "validation" in record:
            after += record["seconds"]
        elif record.get("steps_per_s"):
            before = last.get(record["stage"], record["step"] - 1)
            seconds += (record["step"] - before) / record["steps_per_s"]
            last[record["stage"]], after = record["step"], 0.0
    return seconds + after


def write_results(results: Results) -> None:
    """results.csv: one line a trial, the winner first, then those without a score, then the runs of further seeds."""
    plan, table = results.plan, results.table
    steps = sorted({step for trial in table.runs for step in trial.scores})
    names = [one.name for one in plan.dimensions]
    rest = [trial for trial in table.runs if trial not in results.trials]
    over_seeds = {one.trial.key: one for one in results.repeated}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    population = ["member", "from"] if plan.search == PBT else []
    writer.writerow(["trial", "further_seed", "key", "state", *population, "attempts", "started", "seconds", "step",
                     "kept_step", "CIDEr", "mean", "standard_deviation", "seeds_of_mean",
                     *(f"CIDEr@{step}" for step in steps), *names, "reason"])  # fmt: skip
    for trial in [*results.trials, *rest]:
        began = datetime.datetime.fromtimestamp(trial.starts[0], datetime.UTC).isoformat(timespec="seconds")
        took = sum(end - start for start, end in zip(trial.starts, trial.ends, strict=True))
        donor = f"{trial.donor['run']}@{trial.donor['step']}" if trial.donor else ""
        again = over_seeds.get(trial.key)
        mean = [None, None, None] if again is None else [again.mean, again.spread, len(again.scores)]
        writer.writerow([trial.number, trial.seed, trial.key, trial.state,
                         *([trial.member, donor] if population else []), len(trial.starts), began, f"{took:.1f}",
                         trial.step, trial.kept, trial.score, *mean,
                         *(trial.scores.get(step) for step in steps), *(trial.values[name] for name in names),
                         trial.reason])  # fmt: skip
    write_whole(plan.folder / FILE, out.getvalue())
