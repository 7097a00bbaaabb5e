"""Sweeps: `python tune/sweep.py [RECIPE] [--trials N] [--search tpe|random|grid|pbt] [--resume] [--OPTION RANGE]...`

Ray Tune over trials that are ordinary runs of cluster/train.py, each with its own run folder below
runs/sweeps/NAME/trials. A sweep that was stopped, even by kill -9, goes on when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # `python tune/sweep.py` puts tune/ on the path, whose modules are not top-level ones
    sys.path[0] = str(ROOT)
# Read when Ray is imported. No CSV, JSON and TensorBoard copies of results, and Ctrl-C means the end.
os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1",
               "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_AIR_NEW_OUTPUT": "0"}  # fmt: skip

from cluster.distributed.imports import quickly  # noqa: E402
from cluster.errors import ConfigError, TrainingError  # noqa: E402
from cluster.launch import credentials, run_lock  # noqa: E402
from shards.errors import run_main  # noqa: E402
from shards.progress import say  # noqa: E402
from tune.commandline import CONFIG, HELP, parse, save  # noqa: E402
from tune.search.plan import Plan, Sweep, shared_stages  # noqa: E402
from tune.search.points import how_many_left  # noqa: E402
from tune.search.repeats import repeats_left, seeds_text  # noqa: E402
from tune.search.table import Table  # noqa: E402

TRIAL_MEMORY = 2**30  # bytes of a trial's actor and driver, which are on the first node (0.94 GB seen with `blocks`)
HEAD = "node:__internal_head__"  # a resource that Ray gives to the first node of every cluster, 1 of it
GRAIN = 10_000  # Ray counts resources in units of 1 / GRAIN
PRETRAINING_THREADS = 4  # more gain nothing at the batch sizes of a sweep


def main(arguments: Sequence[str]) -> int:
    """Runs the sweep; exit code 0, 1 where it failed or no trial finished, 2 (by run_main) for mistakes."""
    sweep = parse(arguments)
    if sweep.help:
        print(HELP)
        print(f"Varied in the recipe {sweep.recipe!r}, sweep {sweep.plan.name}:")
        for one in sweep.plan.dimensions:
            print(f"  {'--' + one.name:32} {one}")
        return 0
    try:
        with run_lock.held(sweep.plan.folder):
            return run(sweep)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def run(sweep: Sweep) -> int:
    """Trials that are left, the best again with further seeds, then the report."""
    with quickly():
        from cluster import prepare  # these take seconds, as torch does: not for --help
        from cluster.launch import ray_train
        from tune.report.report import score_text, write_report

    plan = sweep.plan
    save(sweep)
    table = Table(plan.folder)
    left = how_many_left(plan, table, sweep.target)
    varied = f"{len(plan.dimensions)} dimension{'s' if len(plan.dimensions) > 1 else ''}"
    say(f"sweep {plan.folder}: {left} of {sweep.target} trials to run, {varied}, {plan.search}")
    if left and sweep.repeats:
        count = min(sweep.top, sweep.target)
        further = seeds_text(sweep.further_seeds)
        say(f"then the best {count} again with {further}: {count * sweep.repeats} runs more at most")
    if left or repeats_left(sweep, table):
        # Data are made once, before any trial asks for them.
        prepare.main([str(plan.folder / CONFIG), "--stage", "train", "--root", str(plan.root)])
        shutil.rmtree(plan.folder / ray_train.RAY_FOLDER, ignore_errors=True)  # of a sweep that was killed
        try:
            with credentials.handed_over(plan.folder if ray_train.attaches() else None) as secret:
                _tune(sweep, table, secret)
        finally:
            shutil.rmtree(plan.folder / ray_train.RAY_FOLDER, ignore_errors=True)
    best = write_report(sweep, table)
    if best is None:
        say(f"no trial has finished: see what they printed in {plan.folder / 'output'}")
        return 1
    say(f"best: trial {best.trial.number} ({best.trial.key}), {score_text(best)}")
    say(f"report {plan.folder / 'report.html'}; the winner is a recipe: {plan.folder / 'best.yaml'}")
    return 0


def _tune(sweep: Sweep, table: Table, secret: Path | None) -> None:
    """Runs what is left. `secret`: the file by which trials get this process's credentials, if by one."""
    plan = sweep.plan
    threads = os.environ.get("OMP_NUM_THREADS")
    from cluster.launch import ray_train

    ray_train.start_ray(plan.config.cluster)
    with quickly():
        # Ray reads its environment when it is imported.
        import ray
        from ray import tune

        from tune.search.algorithm import scheduler_of, search_of
        from tune.trials.process import Ray
        from tune.trials.trial import SweepTrial, pretrain

    try:
        for name in ("ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's failure is a line of ours
        slots = slots_of(ray.nodes(), plan)
        address = Ray(ray.get_runtime_context().gcs_address, threads, secret, ray_train.is_own())
        say(f"{slots} trial{'s' if slots > 1 else ''} at once")
        table.session(slots)
        shared = shared_stages(plan.config, plan.dimensions)
        if shared and not _touched(plan, shared):
            say(f"pre-training that all trials share: {', '.join(shared)} (output in {plan.folder / 'output'})")
            pretrain(_with_all_cpus(plan, ray.nodes()), {one.name: one.at(0) for one in plan.dimensions}, address)
        trainable = tune.with_resources(
            tune.with_parameters(SweepTrial, plan=plan, ray=address),
            # No CPU, or the workers of the trial would not find enough; never more of them than there is room for.
            {"CPU": 0, HEAD: GRAIN // slots / GRAIN},
        )
        trials = Trials(sweep, table, trainable, slots)
        if left := how_many_left(plan, table, sweep.target):
            search, scheduler = search_of(plan, table, sweep.target), scheduler_of(plan, table, slots)
            trials.fit("search", search, left, scheduler)
        if again := repeats_left(sweep, table):
            say(f"the best again with further seeds: {len(again)} runs")
            search = tune.search.BasicVariantGenerator(points_to_evaluate=again)
            trials.fit("repeats", search, len(again))
        table.close()
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Trials:
    """What the trials of the search and the further seeds have in common."""

    sweep: Sweep
    table: Table
    trainable: Any  # Ray's, with its resources
    slots: int  # trials at once

    def fit(self, name: str, search: Any, count: int, scheduler: Any = None) -> None:
        """Runs `count` trials that Ray's `search` chooses; `scheduler` stops them early, None: nobody does."""
        from ray import tune

        from cluster.launch.ray_train import RAY_FOLDER
        from tune.recorder import Recorder

        plan = self.sweep.plan
        listed = isinstance(search, tune.search.BasicVariantGenerator)
        space = [*(one.name for one in plan.dimensions), "run", "repeat", "of"] if listed else []
        tune.Tuner(
            self.trainable,
            param_space=dict.fromkeys(space),
            tune_config=tune.TuneConfig(
                search_alg=search, scheduler=scheduler, num_samples=count, reuse_actors=True,
                max_concurrent_trials=None if listed else self.slots,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=name, storage_path=str(plan.folder / RAY_FOLDER), verbose=0,
                callbacks=[Recorder(self.sweep, self.table)],
            ),
        ).fit()  # fmt: skip


def _touched(plan: Plan, shared: Sequence[str]) -> bool:
    """Whether a choice touches the shared stages, so that there are several of them, made by the trials."""
    others = set(plan.config.stages) - set(shared)
    return any(option.partition(".")[0] not in others for one in plan.dimensions for option in one.options)


def _with_all_cpus(plan: Plan, nodes: Sequence[dict]) -> Plan:
    """The same with as many threads a worker as a machine has for it, while nothing else runs."""
    from cluster.distributed.devices import place

    cluster = plan.config.cluster
    placement = place(cluster, nodes)
    if placement.gpus_per_worker:
        return plan
    cpus = int(max(node["Resources"].get("CPU", 0) for node in nodes if node["Alive"]) // placement.workers)
    threads = max(min(cpus, PRETRAINING_THREADS), cluster.threads)
    cluster = dataclasses.replace(cluster, threads=threads)
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, cluster=cluster))


def slots_of(nodes: Sequence[dict], plan: Plan) -> int:
    """How many trials there is room for at once on the nodes of a cluster, as `ray.nodes()` gives them.

    ConfigError where there is none.
    """
    from cluster.distributed.devices import place, room

    placement = place(plan.config.cluster, nodes)
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    workers = sum(room(resources, placement) for resources in alive)
    head = next(resources for resources in alive if HEAD in resources)
    slots = min(workers // placement.workers, int(head.get("memory", 0) // TRIAL_MEMORY), GRAIN)
    if slots < 1:
        raise ConfigError(
            f"the Ray cluster has no room for a trial: {workers} workers of --cluster.cpus_per_worker "
            f"{placement.cpus_per_worker:g}, --cluster.workers {placement.workers} wanted, and "
            f"{head.get('memory', 0) / 2**20:.0f} MiB on its first node, {TRIAL_MEMORY // 2**20} wanted"
        )
    return slots


if __name__ == "__main__":
    run_main(main)
