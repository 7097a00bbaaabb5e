"""What the runs of bench/ablation.py gave: bench/results/ablation.json, the tables of docs/results.md, a plot."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.ablations.tables import COMMON, MINUTES, SCALES, TABLES, Arm, Setting
from cluster.evaluation.protocol import SETS
from cluster.launch.run_folder import CONFIG
from cluster.pipeline import SCORES
from cluster.recipes.commandline import parse, read_config
from cluster.tracking.run_log import PROVENANCE, read_metrics
from shards.errors import DataError
from shards.format.whole_files import write_whole
from shards.reading.reader import Folder

RESULTS, PAGE = "bench/results/ablation.json", "docs/results.md"
ACCURACIES = ("changed", "unchanged", "type", "object")
TYPES = ("add", "drop", "move", "color", "material")


def write(runs: Path, checkout: Path) -> None:
    """Adds what is in runs/ablation to the results of a checkout, and makes its page and plots from these."""
    path, page = checkout / RESULTS, checkout / PAGE
    results, text = _read(path), page.read_text(encoding="utf-8")
    places = {table: re.compile(rf"(<!-- {table} -->\n).*?(<!-- end -->)", re.DOTALL) for table in TABLES}
    for table, place in places.items():
        if not place.search(text):
            raise DataError(f"{page} has no place for {table}: put '<!-- {table} -->' and '<!-- end -->' on two lines")
    for scale, table, arm, seed, folder in _finished(runs):
        found = collect(folder, curve=TABLES[table].curves)
        results.setdefault(scale, {}).setdefault(table, {})[f"{arm}-{seed}"] = found
    for table, place in places.items():
        scales = [scale for scale in SCALES if table in results.get(scale, {})]
        block = "\n".join(_shown(scale, table, results[scale][table], checkout) for scale in scales)
        text = place.sub(lambda marks, block=block: f"{marks[1]}{block}{marks[2]}", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _json(results))
    write_whole(page, text)


def _read(path: Path) -> dict:
    """Results written before; none where there is no file."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise DataError(f"{path} is not JSON: take it from the repository again") from None


def _finished(runs: Path) -> Iterator[tuple[str, str, str, str, Path]]:
    """(scale, table, arm, seed, run folder) of all runs of arms that have their scores."""
    for path in sorted(runs.glob(f"*/*/*/{SCORES}")):
        scale, table, run = path.parts[-4:-1]
        arm, _, seed = run.rpartition("-")
        if scale in SCALES and table in TABLES and arm in {one.name for one in arms(scale, table)}:
            yield scale, table, arm, seed, path.parent


def arms(scale: str, table: str) -> list[Arm]:
    """The arms of a table by name and label; the steps of those that need a measurement are not theirs."""
    given = COMMON | SCALES[scale]
    config = parse(["blocks", *(word for name, value in given.items() for word in (f"--{name}", value))]).config
    setting = Setting(given, config, MINUTES[scale], lambda arm: dict.fromkeys(arm.config.stages, 1.0))
    return TABLES[table].arms(setting)


def collect(run: Path, curve: bool = False) -> dict:
    """The figures of a finished run: its sizes, seconds of training and scores; curve: CIDEr along the way."""
    config, scores = read_config(run / CONFIG), json.loads((run / SCORES).read_bytes())
    root = Path(config.root)
    provenance = json.loads((run / PROVENANCE).read_bytes())[0]
    git = provenance["git"] or {"sha": "", "diff": ""}
    times, points = timed(run)
    start = config.init
    found = {
        "pairs": Folder.open(root / config.data.shards).manifest["splits"]["train"]["pair"],
        "tested": scores["n"]["total"],
        "batch": config.finetune.global_batch_size,
        "steps": {name: config.stage(name).steps for name in config.stages if config.stage(name).steps},
        "seconds": times,
    }
    if start:
        stages = read_config(root / start / CONFIG).pretraining
        taught = {name: stage.steps for name, stage in stages.items() if stage.steps}
        found["shared"] = {"steps": taught, "seconds": timed(root / start)[0]}
    found |= {
        "CIDEr": {half: _round(scores[half]["CIDEr"]) for half in SETS}
        | {kind: _round(values["CIDEr"]) for kind, values in scores["by_type"].items()},
        "skill": {half: _round(scores["skill"][half], 3) for half in SETS[:2]},
        "accuracy": {name: _round(scores["accuracy"][name]) for name in ACCURACIES},
        "threads": config.cluster.threads,
        "cpus": provenance["cpus"],
        "torch": provenance["packages"]["torch"],
        "commit": git["sha"][:10] + (" with changes" if git["diff"] else ""),
    }
    return found | ({"curve": points} if curve else {})


def timed(run: Path) -> tuple[float, list[list[float | None]]]:
    """(seconds of training, [[seconds so far, CIDEr, CIDEr of changed pairs] of each validation]) by metrics.jsonl.

    A line's speed is of all time since the line before it, validations with it; these are taken out again.
    """
    seconds, points, last = 0.0, [], {}
    validating: dict[str, float] = {}  # since the last line of the stage
    for record in read_metrics(run):
        stage, step = record["stage"], record["step"]
        if "validation" in record:
            scores = record["validation"]
            points.append([round(seconds, 1), scores["CIDEr"], scores["CIDEr_changed"]])
            validating[stage] = validating.get(stage, 0.0) + record["seconds"]
        elif record.get("steps_per_s"):
            seconds += max(0.0, (step - last.get(stage, 0)) / record["steps_per_s"] - validating.pop(stage, 0.0))
            last[stage] = step
    return round(seconds, 1), points


def _round(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def _json(results: dict) -> str:
    """One line a run."""
    scales = []
    for scale, tables in results.items():
        texts = []
        for table, runs in tables.items():
            lines = ",\n".join(f"   {json.dumps(run)}: {json.dumps(runs[run])}" for run in sorted(runs))
            texts.append(f"  {json.dumps(table)}: {{\n{lines}\n  }}")
        scales.append(f" {json.dumps(scale)}: {{\n" + ",\n".join(texts) + "\n }")
    return "{\n" + ",\n".join(scales) + "\n}\n"


# --- Markdown -------------------------------------------------------------------------------------------------------


def _shown(scale: str, table: str, results: dict[str, dict], checkout: Path) -> str:
    """The tables of one scale, and the plot where there are curves."""
    rows = []
    for arm in arms(scale, table):
        seeds = {run.rpartition("-")[2]: found for run, found in results.items() if run.rpartition("-")[0] == arm.name}
        if seeds:
            rows.append((arm, seeds))
    if not rows:
        return ""
    every = [found for _, seeds in rows for found in seeds.values()]
    head, by_name = TABLES[table].head, {arm.name: seeds for arm, seeds in rows}
    scores = _table(
        (head, "CIDEr", "CIDEr, changed", "CIDEr, unchanged", "skill", "skill, changed", "gain"),
        [
            (arm.label, *(_mean(seeds, lambda found, half=half: found["CIDEr"][half]) for half in SETS),
             *(_mean(seeds, lambda found, half=half: found["skill"][half], 2) for half in SETS[:2]),
             _gain(seeds, by_name.get(TABLES[table].beside(arm.name), {})))
            for arm, seeds in rows
        ],
    )  # fmt: skip
    right = _table(
        (head, "says change", "says none", "kind", "object"),
        [
            (arm.label, *(_mean(seeds, lambda found, name=name: found["accuracy"][name]) for name in ACCURACIES))
            for arm, seeds in rows
        ],
    )
    by_kind = _table(
        (head, *TYPES),
        [
            (arm.label, *(_mean(seeds, lambda found, kind=kind: found["CIDEr"].get(kind)) for kind in TYPES))
            for arm, seeds in rows
        ],
    )
    run = _table(
        (head, "steps", "pairs", "seconds", "seeds"),
        [
            (arm.label, " or ".join(sorted(set(map(_steps, seeds.values())))),
             " or ".join(sorted({f"{found['pairs']:,}" for found in seeds.values()})),
             f"{statistics.mean(found['seconds'] for found in seeds.values()):.0f}", ", ".join(sorted(seeds, key=int)))
            for arm, seeds in rows
        ],
    )  # fmt: skip
    note = f"\n{TABLES[table].note}\n" if TABLES[table].note else ""
    plot = _overtaken(table, rows) + _plot(scale, table, rows, checkout) if TABLES[table].curves else ""
    figures = f"{scores}\nRight sentences in %:\n\n{right}\n"
    figures += _folded("CIDEr by kind of change", by_kind) + _folded("What was run", f"{_about(every)}\n\n{run}")
    return f"{note}\nScale `{scale}`.\n\n{figures}{plot.lstrip()}\n"


def _folded(title: str, text: str) -> str:
    """What few read, behind its title."""
    return f"<details><summary>{title}</summary>\n\n{text}\n</details>\n\n"


def _about(found: Sequence[dict]) -> str:
    """What all the runs of a table have in common, as they say themselves."""

    def said(name: str) -> str:
        return " or ".join(sorted({str(one[name]) for one in found}))

    shared = [one["shared"]["seconds"] for one in found if "shared" in one]
    text = (
        f"{said('tested')} pairs of the test split, batches of {said('batch')}, threads a process: {said('threads')}, "
        f"CPUs: {said('cpus')}, torch {said('torch')}, commit {said('commit')}."
    )
    if shared:
        text += (
            f" Steps in brackets were trained once a seed for all arms with the same in brackets: "
            f"{statistics.mean(shared):.0f} s on average, not part of the seconds of the arms."
        )
    return text


def _steps(found: dict) -> str:
    shared = [f"({steps})" for steps in found.get("shared", {}).get("steps", {}).values()]
    return " + ".join([*shared, *map(str, found["steps"].values())])


def _mean(seeds: dict[str, dict], value: Callable[[dict], float | None], digits: int = 1) -> str:
    """Mean and, of more than one seed, standard deviation (n - 1)."""
    values = [one for one in map(value, seeds.values()) if one is not None]
    return _spread(values, digits) if values else "–"


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean and, of more than one, standard deviation (n - 1)."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _gain(seeds: dict[str, dict], others: dict[str, dict]) -> str:
    """CIDEr of changed pairs more than in the other arm's run of the same seed: mean and standard error."""
    gains = [seeds[seed]["CIDEr"]["changed"] - others[seed]["CIDEr"]["changed"] for seed in seeds if seed in others]
    if not gains or seeds is others:
        return "–"
    error = f" ± {statistics.stdev(gains) / len(gains) ** 0.5:.1f}" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.1f}{error}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _overtaken(table: str, rows: Sequence[tuple[Arm, dict[str, dict]]]) -> str:
    """How soon each arm was above all that the one beside it ever had, in the share of that one's training time."""
    slow = next((row for row in rows if TABLES[table].beside(row[0].name) == row[0].name), None)
    lines = []
    for arm, seeds in rows if slow else ():
        if arm is slow[0]:
            continue
        shares, never = [], []
        for seed in seeds.keys() & slow[1].keys():
            best = max((changed for _, _, changed in slow[1][seed]["curve"] if changed is not None), default=0.0)
            passed = [time for time, _, changed in seeds[seed]["curve"] if changed is not None and changed > best]
            if passed:
                shares.append(100 * passed[0] / slow[1][seed]["seconds"])
            else:
                never.append(seed)
        text = f"after {_spread(shares, 1)} % of its time" if shares else ""
        text += f"{' and ' * bool(shares)}never with seed {', '.join(sorted(never, key=int))}" if never else ""
        lines += [f"{arm.label}: {text}"] if text else []
    if not lines:
        return ""
    said = f"When an arm passed the best CIDEr of changed validation pairs that “{slow[0].label}” ever had:\n\n"
    return f"\n{said}" + "".join(f"- {line}\n" for line in lines)


def _plot(scale: str, table: str, rows: Sequence[tuple[Arm, dict[str, dict]]], checkout: Path) -> str:
    """Draws CIDEr on validation over seconds of training; the line of the page that shows it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharex=True, layout="constrained")
    for number, (arm, seeds) in enumerate(rows):
        for place, found in enumerate(seeds.values()):
            for column, panel in enumerate(panels, start=1):
                points = [(point[0], point[column]) for point in found["curve"] if point[column] is not None]
                label = arm.label if place == 0 else None
                panel.plot(*zip(*points, strict=True), color=f"C{number}", linewidth=1.2, label=label)
    for panel, title in zip(panels, ("all pairs", "changed pairs"), strict=True):
        panel.set(xscale="log", xlabel="seconds of training", title=f"CIDEr on validation, {title}")
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    path = checkout / "docs" / "img" / f"ablation_{table}_{scale}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return f"\n![CIDEr over time](img/{path.name})\n"
