"""docs/gpu.md from the JSON files: `python -m bench.gpu --write DIR`. What has not been measured says so."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.arms import ARMS, SEEDS
from bench.gpu.plan import PARTS
from bench.gpu.record import read_json, write_json
from shards.errors import DataError

PAGE, RESULTS = "docs/gpu.md", "bench/results/gpu"
NOT_YET = "not measured yet"
TASKS = ("mlm", "mvcl", "fda", "classify", "finetune")
BARS = {
    "mix_ms": 18.0, "times_plain": 8.0, "share": 0.40, "skill": 1.0, "object": 97.0, "minutes": 10.0,
}  # fmt: skip
Results = dict[str, dict[str, Any]]  # by part


def write(folder: Path, checkout: Path) -> None:
    """Takes the files of a folder into bench/results/gpu and makes the tables of docs/gpu.md from what lies there.

    DataError for figures of a CPU or of shrunken sizes, and for a page without its marks.
    """
    kept = checkout / RESULTS
    for name in PARTS:
        found = read_json(folder / f"{name}.json")
        if not found:
            continue
        if found.get("device") != "cuda" or found.get("small"):
            raise DataError(f"{folder / f'{name}.json'}: not of a GPU at full sizes, so it is no evidence")
        kept.mkdir(parents=True, exist_ok=True)
        if folder.resolve() != kept.resolve():
            write_json(kept / f"{name}.json", found)
    results = {name: read_json(kept / f"{name}.json") for name in PARTS}
    page = checkout / PAGE
    page.write_text(fill(page.read_text(encoding="utf-8"), results, str(page)), encoding="utf-8")


def fill(text: str, results: Results, name: str = PAGE) -> str:
    """The page with its tables made anew."""
    for part, table in TABLES.items():
        place = re.compile(rf"(<!-- {part} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(text):
            raise DataError(f"{name} has no place for {part}: put '<!-- {part} -->' and '<!-- end -->' on two lines")
        found = results.get(part, {})
        block = f"\n{_about(found)}{table(found.get('results', {}), found)}\n"
        text = place.sub(lambda marks, block=block: f"{marks[1]}{block}{marks[2]}", text)
    return text


def _about(found: dict[str, Any]) -> str:
    """What a table was measured on, as its file says."""
    on = found.get("on")
    if not on:
        return ""
    text = f"{on['card']}, torch {on['torch']}, {on['date']}, commit {on['commit']}."
    if found.get("status") != "done":
        text += f" The part was not finished ({found.get('status')})."
    return text + "\n\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))


def _number(value: float | None, digits: int = 1, after: str = "") -> str:
    return NOT_YET if value is None else f"{value:,.{digits}f}{after}"


def _machine(results: dict, found: dict) -> str:
    memory = results.get("card_memory_gib")
    rows = [
        ("card", f"{results['card']}, {memory} GiB, compute capability {results['capability']}" if memory else NOT_YET),
        ("driver, CUDA", f"{results['driver']}, {results['cuda']}" if results else NOT_YET),
        ("torch, Python", f"{results['torch']}, {results['python']}" if results else NOT_YET),
        ("host", f"{results['cores']} cores, {results['memory_gib']:.0f} GiB" if results else NOT_YET),
        ("date, commit", f"{results['date']}, {results['commit']}" if results else NOT_YET),
    ]
    return _table(("machine", ""), rows)


def _ceilings(results: dict, found: dict) -> str:
    products, copied = results.get("matrix_products", {}), results.get("copies", {})
    rows = []
    for kind in ("bf16", "tf32", "fp32"):
        one = products.get(kind)
        text = f"{one['tflops']:,.1f} TFLOP/s, {one['size']} x {one['size']}" if one else NOT_YET
        rows.append((f"matrix product, {kind}", text))
    for name, label in (
        ("device", "copy within the card, read and written"), ("to_device_pinned", "host to card, pinned"),
        ("to_device_pageable", "host to card, pageable"), ("to_host_pinned", "card to host, pinned"),
        ("to_host_pageable", "card to host, pageable"),
    ):  # fmt: skip
        rows.append((label, _number(copied.get(name), 1, " GB/s")))
    return _table(("at best", ""), rows)


def _correctness(results: dict, found: dict) -> str:
    checks = results.get("checks", {})
    rows = [(name, "yes" if check["passed"] else "**no**", check["text"]) for name, check in checks.items()]
    rows += [(name, f"not run: {why}", "") for name, why in found.get("not_run", {}).items() if name not in checks]
    return _table(("check", "passed", ""), rows or [("all", NOT_YET, "")])


def _speed(results: dict, found: dict) -> str:
    mix = results.get("mix", {})
    whole = {name: results.get(name, {}) for name in ("paper", "paper compiled", "plain")}

    def ms(name: str, task: str) -> float | None:
        return whole[name].get("ms", {}).get(task)

    rows = []
    for task in TASKS:
        taken = [one for one in (ms("paper", task), ms("paper compiled", task)) if one is not None]
        slow = ms("plain", task)
        best = "paper compiled" if taken and min(taken) == ms("paper compiled", task) else "paper"
        share = whole[best].get("share_of_bf16", {}).get(task)
        rows.append((
            task, *(_number(ms(name, task), 2) for name in whole),
            _number(slow / min(taken) if slow and taken else None),
            _number(None if share is None else 100 * share, 1, " %"),
            _number(whole[best].get("peak_mib", {}).get(task), 0),
        ))  # fmt: skip
    of_mix = mix.get("ms", {})
    fast = [of_mix[name] for name in ("paper", "paper compiled") if name in of_mix]
    times = of_mix["plain"] / min(fast) if fast and "plain" in of_mix else None
    mean = [_number(of_mix.get(name), 2) for name in whole]
    rows.append(("**mean, MLM 8 : MVCL 1 : FDA 2**", *mean, _number(times), "", ""))
    head = ("ms a step, batch 200", "ours", "ours, compiled", "plain", "plain / ours", "of the bf16 rate", "peak MiB")
    bars = [
        _bar("mean step of the mix, ms", min(fast, default=None), BARS["mix_ms"], least=False),
        _bar("times as fast as plain", times, BARS["times_plain"]),
    ]
    text = _table(head, rows) + "\nThe largest recipe, `blocks_full`:\n\n"
    full, compiled = results.get("blocks_full", {}), results.get("blocks_full compiled", {})
    rows, shares = [], []
    for task in (*TASKS, "class_labels"):
        one = [where for where in (full, compiled) if where.get("ms", {}).get(task) is not None]
        best = min(one, key=lambda where: where["ms"][task], default={})
        share = best.get("share_of_bf16", {}).get(task)
        shares += [share] if share is not None else []
        rows.append((
            task, _number(best.get("batch", {}).get(task), 0), _number(full.get("ms", {}).get(task), 2),
            _number(compiled.get("ms", {}).get(task), 2), _number(best.get("tflops", {}).get(task)),
            _number(None if share is None else 100 * share, 1, " %"), _number(best.get("peak_mib", {}).get(task), 0),
        ))  # fmt: skip
    head = ("ms a step", "batch", "ours", "ours, compiled", "TFLOP/s", "of the bf16 rate", "peak MiB")
    best_share = max(shares, default=None)
    bars.append(_bar("best share of the bf16 rate in `blocks_full`", best_share, BARS["share"], digits=2))
    text += _table(head, rows) + "\n"
    made = results.get("captions", {})
    ways = [f"{way}, {size} at once" for size in (1, 256) for way in ("greedy", "beam 3")]
    text += _table(("captions of 40 words a second", ""), [(way, _number(made.get(way))) for way in ways])
    return text + "\n" + _table(("bar", "aimed at", "measured", ""), bars)


def _bar(name: str, value: float | None, bar: float, least: bool = True, digits: int = 1) -> tuple[str, ...]:
    """A line that says whether a bar has been reached."""
    aimed = f"{'at least' if least else 'at most'} {bar:g}"
    if value is None:
        return (name, aimed, NOT_YET, "")
    reached = value >= bar if least else value <= bar
    return (name, aimed, f"{value:.{digits}f}", "reached" if reached else "**missed**")


def _training(results: dict, found: dict) -> str:
    scores = results.get("scores", {})
    data, accuracy = results.get("data", {}), scores.get("accuracy", {})
    steps = results.get("steps", {})
    rows = [
        ("training scenes, seconds to render them and cache their features",
         f"{data['scenes']:,}, {data['seconds']:.0f}" if data else NOT_YET),
        ("steps", ", ".join(f"{name} {count:,}" for name, count in steps.items()) or NOT_YET),
        ("CIDEr of all pairs, of changed ones",
         f"{_number(scores['CIDEr']['total'])}, {_number(scores['CIDEr']['changed'])}" if scores else NOT_YET),
        ("says change, says none, kind of change, in %",
         ", ".join(_number(accuracy[name]) for name in ("changed", "unchanged", "type")) if accuracy else NOT_YET),
    ]  # fmt: skip
    bars = [
        _bar("skill of changed pairs", scores.get("skill", {}).get("changed"), BARS["skill"], digits=2),
        _bar("right object, %", accuracy.get("object"), BARS["object"]),
        _bar("minutes from nothing to scores", results.get("minutes"), BARS["minutes"], least=False),
    ]
    return _table(("blocks_full", ""), rows) + "\n" + _table(("bar", "aimed at", "measured", ""), bars)


def _claim(results: dict, found: dict) -> str:
    done = results.get("runs", {})
    plan = results.get("plan")
    text = f"{plan['steps']:,} steps an arm, {plan['scenes']:,} training scenes.\n\n" if plan else ""
    rows = []
    for name, arm in ARMS.items():
        runs = [done[f"{name}-{seed}"] for seed in SEEDS if "chosen" in done.get(f"{name}-{seed}", {})]
        best = [one["rates"][one["chosen"]] for one in runs]
        steps = " + ".join(str(count) for count in runs[0]["steps"] if count) if runs else NOT_YET
        values: list[Callable[[dict], float]] = [
            lambda one: one["CIDEr"]["total"], lambda one: one["CIDEr"]["changed"], lambda one: one["skill"]["changed"],
            lambda one: one["accuracy"]["object"],
        ]  # fmt: skip
        rows.append((
            arm.label, steps, ", ".join(one["chosen"] for one in runs) or NOT_YET,
            *(_spread([value(one) for one in best], 2 if number == 2 else 1) for number, value in enumerate(values)),
            str(len(runs)),
        ))  # fmt: skip
    head = ("pre-training", "steps", "learning rate", "CIDEr", "changed", "skill of changed", "object, %", "seeds")
    return text + _table(head, rows)


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean and, of more than one seed, standard deviation (n - 1)."""
    if not values:
        return NOT_YET
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


TABLES: dict[str, Callable[[dict, dict], str]] = {
    "machine": _machine, "ceilings": _ceilings, "correctness": _correctness, "speed": _speed, "training": _training,
    "claim": _claim,
}  # fmt: skip
