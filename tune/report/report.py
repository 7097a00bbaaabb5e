"""The report of a sweep: report.html, one file without network, beside results.csv and best.yaml."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from cluster.report.page import data_table, facts, number, page, tiles
from cluster.tracking.following import clock
from shards.format.whole_files import write_whole
from tune.commandline import best_recipe, command_of
from tune.report.charts import SCRIPT, STYLE, bars, curves, parallel, show_value, slice_chart
from tune.report.importance import FEWEST, TRUSTED, importances
from tune.report.results import Results, at_first_rung, results_of, times, write_results
from tune.search.dimension import Dimension
from tune.search.plan import PBT, Sweep
from tune.search.points import rungs
from tune.search.repeats import Repeated, seeds_text
from tune.search.space import recipe_point
from tune.search.table import DIVERGED, FAILED, FINISHED, REPLACED, RUNNING, STOPPED, Table, Trial

FILE, BEST = "report.html", "best.yaml"
SHOWN = 15  # trials in the table of the best
SEARCH_NAMES = {
    "tpe": "Optuna’s TPE", "random": "random values", "grid": "a grid", "pbt": "population based training",
}  # fmt: skip
# Of the dimensions, those that the losses are made of come first.
FIRST = ("temperature", "weights.")


def write_report(sweep: Sweep, table: Table) -> Repeated | None:
    """Writes report.html, results.csv and best.yaml into the sweep's folder; returns the winner, if there is one."""
    results = results_of(sweep, table)
    folder, winner = sweep.plan.folder, results.winner
    write_results(results)
    parts = [_head(results), _tiles(results)]
    if winner is not None:
        above = f"# The winner of the sweep {sweep.plan.name}: trial {winner.trial.number}.\n# {score_text(winner)}\n"
        write_whole(folder / BEST, above + best_recipe(sweep, winner.trial.values))
        parts += [_winner(results, winner), _repeated(results)]
    if results.trials:
        parts += [_table(results), _curves(results), _importance(results), _slices(results), _parallel(results)]
    parts += [_losses(table), _about(results)]
    body = f"<style>{STYLE}</style>{''.join(parts)}<script>{SCRIPT}</script>"
    write_whole(folder / FILE, page(f"Sweep {sweep.plan.name}", body))
    return winner


def score_text(one: Repeated) -> str:
    """What a trial is judged by, in a line: mean, spread and number of further seeds, and its score in the search."""
    own = f"CIDEr {one.trial.score:.1f} in the search ({kept_text(one.trial)})"
    if one.mean is None:
        return f"{own}: of one seed alone ({one.reason or 'no further seeds were asked for'})"
    spread = "" if one.spread is None else f", standard deviation {one.spread:.1f}"
    each = ", ".join(f"{seed}: {score:.1f}" for seed, score in one.scores.items())
    seeds = f"{len(one.scores)} further seed{'s' if len(one.scores) > 1 else ''}"
    return f"mean CIDEr on validation {one.mean:.1f}{spread}, over {seeds} ({each}); {own}"


def kept_text(trial: Trial) -> str:
    """Which checkpoint a trial keeps, and of how many validations it is the choice."""
    count = len(trial.scores)
    by_score = any(value is not None for value in trial.chosen_by.values())
    how = f"the best of {count}" if by_score and count > 1 else f"the last of {count}" if count > 1 else "the only"
    return f"step {trial.kept}, {how} validation{'s' if count > 1 else ''}"


def _head(results: Results) -> str:
    plan, sweep = results.plan, results.sweep
    stopping = "checkpoints taken over at every validation" if plan.search == PBT else "stopped early by ASHA"
    further = (
        f"The best {len(results.repeated)} are trained again with {seeds_text(sweep.further_seeds)}."
        if results.repeated
        else "One seed: differences of a few points may be chance."
    )
    lead = (
        f"{len(results.table.trials)} trials of the recipe {escape(sweep.recipe)}, {len(plan.dimensions)} dimensions, "
        f"chosen by {SEARCH_NAMES[plan.search]}, {stopping}. Scores are CIDEr on the validation split, of the "
        f"checkpoint that a run keeps; the test split was not touched. {further}"
    )
    return f"<h1>Sweep {escape(plan.name)}</h1><p class='lead' style='margin-bottom:24px'>{lead}</p>"


def _tiles(results: Results) -> str:
    trials, winner = results.table.trials.values(), results.winner
    counts = {state: sum(trial.state == state for trial in trials) for state in
              (FINISHED, STOPPED, REPLACED, DIVERGED, FAILED, RUNNING)}  # fmt: skip
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    spent = times(results.plan, results.table)
    share = None if spent.useful_share is None else 100 * spent.useful_share
    entries = []
    if winner is not None:
        which = f"trial {winner.trial.number}"
        if winner.mean is None:
            entries.append((number(winner.trial.score), f"CIDEr of the winner, {which}, with one seed"))
        else:
            spread = "" if winner.spread is None else f" ± {winner.spread:.1f}"
            text = f"mean CIDEr of the winner, {which}, over {len(winner.scores)} further seeds"
            entries.append((f"{winner.mean:.1f}<small>{spread}</small>", text))
        entries.append(_own_tile(results))
    entries += [
        (str(len(trials)), f"trials: {states}"),
        (clock(spent.wall), "wall time, of all times the command ran"),
        (number(share, "the command has not run", 0) + " %" * (share is not None),
         "of slots x wall was training and validation"),
    ]  # fmt: skip
    return tiles(entries)


def _own_tile(results: Results) -> tuple[str, str]:
    """The recipe's own values, as far as they can be compared with the winner's."""
    values = recipe_point(results.plan.config, results.plan.dimensions)
    own = None if values is None else results.table.trials.get(results.plan.key(values))
    again = next((one for one in results.repeated if own is not None and one.trial.key == own.key), None)
    if again is not None and again.mean is not None:
        return number(again.mean), f"the recipe’s own values, over {len(again.scores)} further seeds"
    if own is not None and own.state == FINISHED:
        return number(own.score), "the recipe’s own values, with one seed"
    return number(None, "not among the trials" if own is None else own.state), "the recipe’s own values"


def _winner(results: Results, winner: Repeated) -> str:
    best, plan = winner.trial, results.plan
    command = " ".join(map(shlex.quote, command_of(results.sweep, best.values)))
    note = (
        "Its weights came about by other values before, from other trials’ checkpoints (the table below); the commands "
        "train with its last values from the start."
        if best.donor
        else f"Its run, with the checkpoint and the model, is in trials/{best.key}."
    )
    return (
        f"<h2>The winner</h2><p class='note'>Trial {best.number}: {escape(score_text(winner))}. {note}</p>"
        f"<details open><summary>Train and test it</summary><pre class='command'>{escape(command)}</pre>"
        f"<pre>python cluster/train.py {escape(str(plan.folder / BEST))}</pre></details>"
    )


def _repeated(results: Results) -> str:
    if not results.repeated:
        return ""
    seeds = results.sweep.further_seeds
    head = "<th>trial</th><th>in the search</th>" + "".join(f"<th>seed {seed}</th>" for seed in seeds)
    rows = []
    best = results.winner.trial if results.winner else None
    for one in results.repeated:
        cells = [f"{one.trial.number} {_key(one.trial)}", f"{one.trial.score:.1f}"]
        for seed in seeds:
            run = one.runs.get(seed)
            cells.append(number(one.scores.get(seed), "not begun" if run is None else run.state))
        few = one.reason or "one seed has no spread"
        cells += [f"<b>{number(one.mean, one.reason)}</b>", number(one.spread, few)]
        rows.append(_row(cells, "main" if one.trial is best else ""))
    begins = " The members of the population are trained from the start with their last values." * (
        results.plan.search == PBT
    )
    note = (
        f"The {len(rows)} best of the {results.finished} finished trials. Their scores in the search chose them, so "
        f"those are partly luck and are not in the mean. The best mean wins; it is the best of {len(rows)}.{begins}"
    )
    head += "<th>mean</th><th>standard deviation</th>"
    return f"<h2>The best again with further seeds</h2><p class='note'>{note}</p>{data_table(head, rows)}"


def _table(results: Results) -> str:
    dimensions, order = _sorted(results.plan.dimensions), results.trials
    own = recipe_point(results.plan.config, dimensions) or {}
    head = "<th>trial</th><th>state</th><th>step</th><th>CIDEr</th>"
    head += "".join(f"<th>{escape(one.name)}</th>" for one in dimensions)
    rows = []
    for trial in order[:SHOWN]:
        origin = f", from {trial.donor['run']} at step {trial.donor['step']}" if trial.donor else ""
        cells = [f"{trial.number} {_key(trial)}", trial.state + origin, str(trial.step)]
        cells.append(f"<b>{trial.score:.1f}</b>" if trial.state == FINISHED else f"{trial.score:.1f}")
        cells += [escape(show_value(trial.values[one.name])) for one in dimensions]
        rows.append(_row(cells, "main" if results.winner and trial is results.winner.trial else ""))
    recipe = [escape(show_value(own[one.name])) if own else "–" for one in dimensions]
    rows.append(_row(["the recipe", "", "", "", *recipe], "base"))
    more = f" The other {len(order) - SHOWN} are in results.csv." if len(order) > SHOWN else ""
    note = (
        f"First the {results.finished} that finished, the winner on top; then those trained for fewer steps, whose "
        f"scores cannot be compared with theirs. All trials with their scores are in results.csv.{more}"
    )
    return f"<h2>Trials</h2><p class='note'>{note}</p>{data_table(head, rows)}"


def _curves(results: Results) -> str:
    plan = results.plan
    marks = [] if plan.search == PBT else rungs(plan)
    note = f"{_drawn(results)} The winner is green. " + (
        "Runs that begin later go on from another trial’s checkpoint."
        if plan.search == PBT
        else "At each rung ASHA lets a trial go on that is among the best third of those that came there before it."
    )
    chart = curves(results.trials, marks, plan.config.finetune.steps)
    return f"<h2>Curves</h2><p class='note'>{note}</p><div class='wide'>{chart}</div>"


def _drawn(results: Results) -> str:
    """How many trials a chart shows, and how those that did not finish are drawn."""
    rest = len(results.trials) - results.finished
    text = f"{results.finished} finished trials, drawn solid"
    return text + (f", and {rest} after fewer steps, broken or hollow." if rest else ".")


def _importance(results: Results) -> str:
    plan, title = results.plan, "<h2>Importance</h2>"
    if plan.search == PBT:
        return f"{title}<p class='note'>Not said of PBT: a score there is the work of several configurations.</p>"
    # In the order of their starts: the forest's draws are then the same, whoever wins.
    there = [(one, score) for one in results.trials if (score := at_first_rung(plan, one)) is not None]
    there.sort(key=lambda found: found[0].number)
    trials, scores = [one for one, _ in there], [score for _, score in there]
    finished = sum(trial.state == FINISHED for trial in trials)
    first = plan.config.finetune.validate_every
    if len(trials) < FEWEST:
        return f"{title}<p class='note'>Not said of {len(trials)} trials: {FEWEST} are the fewest.</p>"
    found = importances(plan.dimensions, trials, scores)
    if found is None:
        return f"{title}<p class='note'>Not said: all {len(trials)} trials have the same score at step {first}.</p>"
    share = f"{max(100 * found.explained, 0):.0f} % of the variance of trials that its trees had not seen"
    if found.explained < TRUSTED:
        note = f"Not said of these {len(trials)} trials: a random forest explains {share}, too little."
        return f"{title}<p class='note'>{note}</p>"
    note = (
        f"Permutation importance in a random forest (scikit-learn) over {len(trials)} trials, {finished} of which "
        f"finished. It is of CIDEr at step {first}, which all of them reached, and says nothing of later steps. The "
        f"forest explains {share}."
    )
    return f"{title}<p class='note'>{note}</p>{bars(list(found.shares.items()))}"


def _slices(results: Results) -> str:
    plan = results.plan
    own = recipe_point(plan.config, plan.dimensions) or {}
    steps = plan.config.finetune.steps
    charts = "".join(slice_chart(one, results.trials, steps, own.get(one.name)) for one in _sorted(plan.dimensions))
    note = (
        f"CIDEr of each trial over one dimension at a time. {_drawn(results)} A larger dot was trained for longer; the "
        f"broken line is the recipe’s value. The other dimensions differ from dot to dot."
    )
    return f"<h2>Slices</h2><p class='note'>{note}</p><div class='charts'>{charts}</div>"


def _parallel(results: Results) -> str:
    chart = parallel(_sorted(results.plan.dimensions), results.trials)
    note = f"{_drawn(results)} A trial under the pointer is lit here and in the charts above."
    return f"<h2>All dimensions at once</h2><p class='note'>{note}</p>{chart}"


def _losses(table: Table) -> str:
    lost = [trial for trial in table.runs if trial.state in (DIVERGED, FAILED)]
    if not lost:
        return ""
    rows = [
        f"<tr><td>{trial.number}{'' if trial.seed is None else f', seed {trial.seed}'} {_key(trial)}</td>"
        f"<td>{trial.state}</td><td class='text' style='text-align:left'>{escape(trial.reason)}</td></tr>"
        for trial in lost
    ]
    note = "A trial that failed is tried again when the command is given again; one that diverged is not."
    head = "<th>trial</th><th>state</th><th></th>"
    return f"<h2>Diverged and failed</h2><p class='note'>{note}</p>{data_table(head, rows)}"


def _about(results: Results) -> str:
    plan, sweep = results.plan, results.sweep
    sessions = [f"{clock(one.end - one.start)} with {one.slots} at once" for one in results.table.sessions]
    known = facts({
        "recipe": sweep.recipe,
        "options": " ".join(f"--{name} {value}" for name, value in sweep.given) or "none",
        "seed": plan.config.seed,
        "the command ran": ", ".join(sessions) or "never",
    })  # fmt: skip
    space = facts({one.name: one for one in plan.dimensions})
    return (
        f"<h2>About</h2>{known}<details><summary>Search space</summary>"
        f"<div style='margin-top:10px'>{space}</div></details>"
    )


def _row(cells: Sequence[str], kind: str) -> str:
    return f"<tr class='{kind}'>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _key(trial: Trial) -> str:
    return f"<span class='missing' title='its key and run folder'>{trial.key}</span>"


def _sorted(dimensions: Sequence[Dimension]) -> list[Dimension]:
    def rank(one: Dimension) -> int:
        return next((number for number, part in enumerate(FIRST) if part in one.name), len(FIRST))

    return sorted(dimensions, key=rank)
