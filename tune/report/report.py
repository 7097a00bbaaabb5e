"""The report of a sweep: report.html, one file without network, beside results.csv and best.yaml."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from cluster.report.page import page
from shards.format.whole_files import write_whole
from tune.commandline import Sweep, best_recipe, command_of
from tune.report.charts import SCRIPT, STYLE, bars, curves, parallel, show_value, slice_chart
from tune.report.importance import FEWEST, importances
from tune.report.results import Times, at_first_rung, ranked, times, write_results
from tune.search.dimension import Dimension
from tune.search.plan import PBT
from tune.search.points import rungs
from tune.search.space import recipe_point
from tune.search.table import DIVERGED, FAILED, FINISHED, REPLACED, RUNNING, STOPPED, Table, Trial

FILE, BEST = "report.html", "best.yaml"
SHOWN = 15  # trials in the table of the best
SEARCH_NAMES = {
    "tpe": "Optuna’s TPE", "random": "random values", "grid": "a grid", "pbt": "population based training",
}  # fmt: skip
# Of the dimensions, those that the losses are made of come first.
FIRST = ("temperature", "weights.")


def write_report(sweep: Sweep, table: Table) -> Trial | None:
    """Writes report.html, results.csv and best.yaml into the sweep's folder; returns the best trial, if one scored."""
    plan, order = sweep.plan, ranked(table)
    write_results(plan, table, order)
    parts = [_head(sweep, table)]
    if order:
        write_whole(plan.folder / BEST, best_recipe(sweep, order[0].values))
        parts += [
            _tiles(sweep, table, order, times(plan, table)),
            _winner(sweep, order[0]),
            _table(sweep, order),
            _curves(sweep, order),
            _importance(sweep, order),
            _slices(sweep, order),
            _parallel(sweep, order),
        ]
    parts += [_losses(table), _about(sweep, table)]
    body = f"<style>{STYLE}</style>{''.join(parts)}<script>{SCRIPT}</script>"
    write_whole(plan.folder / FILE, page(f"Sweep {plan.name}", body))
    return order[0] if order else None


def _head(sweep: Sweep, table: Table) -> str:
    plan = sweep.plan
    stopping = "checkpoints taken over at every validation" if plan.search == PBT else "stopped early by ASHA"
    lead = (
        f"{len(table.trials)} trials of the recipe {escape(sweep.recipe)}, {len(plan.dimensions)} dimensions, chosen "
        f"by {SEARCH_NAMES[plan.search]}, {stopping}. Scores are CIDEr on the validation split; the test split was not "
        f"touched. One seed: differences of a few points may be chance."
    )
    return f"<h1>Sweep {escape(plan.name)}</h1><p class='lead'>{lead}</p>"


def _tiles(sweep: Sweep, table: Table, order: Sequence[Trial], spent: Times) -> str:
    own = _own_trial(sweep, table)
    counts = {state: sum(trial.state == state for trial in table.trials.values()) for state in
              (FINISHED, STOPPED, REPLACED, DIVERGED, FAILED, RUNNING)}  # fmt: skip
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    share = spent.useful_share
    tiles = [
        (f"{order[0].best:.1f}", f"best CIDEr: trial {order[0].number}"),
        ("–" if own is None or own.best is None else f"{own.best:.1f}", "the recipe’s own values"),
        (str(len(table.trials)), f"trials: {states}"),
        (_clock(spent.wall), "wall time, of all times the command ran"),
        ("–" if share is None else f"{100 * share:.0f} %", "of slots x wall was training and validation"),
    ]
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in tiles)
    return f'<div class="tiles" style="margin-top:24px">{cells}</div>'


def _own_trial(sweep: Sweep, table: Table) -> Trial | None:
    values = recipe_point(sweep.plan.config, sweep.plan.dimensions)
    return None if values is None else table.trials.get(sweep.plan.key(values))


def _winner(sweep: Sweep, best: Trial) -> str:
    plan = sweep.plan
    command = " ".join(map(shlex.quote, command_of(sweep, best.values)))
    note = (
        "Its weights came about by other values before, from other trials’ checkpoints (the table below); the commands "
        "train with its last values from the start."
        if best.donor
        else f"Its run, with the checkpoint and the model, is in trials/{best.key}."
    )
    return (
        f"<h2>The winner</h2><p class='note'>Trial {best.number}, {best.state}, CIDEr {best.best:.1f} at step "
        f"{max(best.scores, key=best.scores.get)} of {plan.config.finetune.steps}. {note}</p>"
        f"<details open><summary>Train and test it</summary><pre class='command'>{escape(command)}</pre>"
        f"<pre>python cluster/train.py {escape(str(plan.folder / BEST))}</pre></details>"
    )


def _table(sweep: Sweep, order: Sequence[Trial]) -> str:
    dimensions = _sorted(sweep.plan.dimensions)
    own = recipe_point(sweep.plan.config, dimensions) or {}
    head = "<th>trial</th><th>state</th><th>step</th><th>CIDEr</th>"
    head += "".join(f"<th>{escape(one.name)}</th>" for one in dimensions)
    rows = []
    for trial in order[:SHOWN]:
        cells = [f"{trial.number} <span class='missing' title='its key and run folder'>{trial.key}</span>"]
        origin = f", from {trial.donor['run']} at step {trial.donor['step']}" if trial.donor else ""
        state = trial.state + origin
        cells += [state, str(trial.step), f"<b>{trial.best:.1f}</b>"]
        cells += [escape(show_value(trial.values[one.name])) for one in dimensions]
        kind = "main" if trial is order[0] else ""
        rows.append(f"<tr class='{kind}'>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    recipe = "".join(f"<td>{escape(show_value(own[one.name])) if own else '–'}</td>" for one in dimensions)
    rows.append(f"<tr class='base'><td>the recipe</td><td></td><td></td><td></td>{recipe}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    more = f" The other {len(order) - SHOWN} are in results.csv." if len(order) > SHOWN else ""
    return (
        f"<h2>Best trials</h2><p class='note'>All trials with their scores are in results.csv.{more}</p>"
        f'<div class="scroll"><table>{body}</table></div>'
    )


def _curves(sweep: Sweep, order: Sequence[Trial]) -> str:
    plan = sweep.plan
    marks = [] if plan.search == PBT else rungs(plan)
    note = (
        "Each line is a trial, the winner green; runs that begin later go on from another trial’s checkpoint."
        if plan.search == PBT
        else "Each line is a trial, the winner green. At each rung ASHA lets a trial go on that is among the best "
        "third of those that came there before it."
    )
    chart = curves(order, marks, plan.config.finetune.steps)
    return f"<h2>Curves</h2><p class='note'>{note}</p><div class='wide'>{chart}</div>"


def _importance(sweep: Sweep, order: Sequence[Trial]) -> str:
    plan = sweep.plan
    title = "<h2>Importance</h2>"
    if plan.search == PBT:
        return f"{title}<p class='note'>Not said of PBT: a score there is the work of several configurations.</p>"
    trials = [trial for trial in order if at_first_rung(plan, trial) is not None]
    first = plan.config.finetune.validate_every
    found = importances(plan.dimensions, trials, [at_first_rung(plan, trial) for trial in trials])
    if found is None:
        return f"{title}<p class='note'>Not said of fewer than {FEWEST} trials, or of equal scores.</p>"
    trust = "so these are hardly more than guesses" if found.explained < 0.2 else "so these are worth something"
    note = (
        f"Permutation importance in a random forest (scikit-learn) over {len(trials)} trials, of CIDEr at step "
        f"{first}, which all of them reached. On trials that its trees had not seen the forest explains "
        f"{max(100 * found.explained, 0):.0f} % of the variance, {trust}."
    )
    return f"{title}<p class='note'>{note}</p>{bars(list(found.shares.items()))}"


def _slices(sweep: Sweep, order: Sequence[Trial]) -> str:
    plan = sweep.plan
    own = recipe_point(plan.config, plan.dimensions) or {}
    steps = plan.config.finetune.steps
    charts = "".join(slice_chart(one, order, steps, own.get(one.name)) for one in _sorted(plan.dimensions))
    note = (
        "Best CIDEr of each trial over one dimension at a time; a larger dot was trained for longer, the broken line "
        "is the recipe’s value. The other dimensions differ from dot to dot."
    )
    return f"<h2>Slices</h2><p class='note'>{note}</p><div class='charts'>{charts}</div>"


def _parallel(sweep: Sweep, order: Sequence[Trial]) -> str:
    chart = parallel(_sorted(sweep.plan.dimensions), order)
    note = "A trial under the pointer is lit here and in the charts above."
    return f"<h2>All dimensions at once</h2><p class='note'>{note}</p>{chart}"


def _losses(table: Table) -> str:
    lost = [trial for trial in table.trials.values() if trial.state in (DIVERGED, FAILED)]
    if not lost:
        return ""
    rows = "".join(
        f"<tr><td>{trial.number} <span class='missing'>{trial.key}</span></td><td>{trial.state}</td>"
        f"<td class='text' style='text-align:left'>{escape(trial.reason)}</td></tr>"
        for trial in lost
    )
    head = "<thead><tr><th>trial</th><th>state</th><th></th></tr></thead>"
    note = "A trial that failed is tried again when the command is given again; one that diverged is not."
    return (
        f"<h2>Diverged and failed</h2><p class='note'>{note}</p>"
        f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'
    )


def _about(sweep: Sweep, table: Table) -> str:
    plan = sweep.plan
    space = "".join(f"<dt>{escape(one.name)}</dt><dd>{escape(str(one))}</dd>" for one in plan.dimensions)
    sessions = ", ".join(f"{_clock(one.end - one.start)} with {one.slots} at once" for one in table.sessions)
    given = " ".join(f"--{name} {value}" for name, value in sweep.given)
    facts = [("recipe", sweep.recipe), ("options", given or "none"), ("seed", str(plan.config.seed)),
             ("the command ran", sessions or "never")]  # fmt: skip
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return (
        f"<h2>About</h2><dl>{listed}</dl><details><summary>Search space</summary>"
        f"<dl style='margin-top:10px'>{space}</dl></details>"
    )


def _sorted(dimensions: Sequence[Dimension]) -> list[Dimension]:
    def rank(one: Dimension) -> int:
        return next((number for number, part in enumerate(FIRST) if part in one.name), len(FIRST))

    return sorted(dimensions, key=rank)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
