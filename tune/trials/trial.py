"""One trial for Ray Tune: an ordinary run of cluster/train.py, followed by its metrics.jsonl.

Tune's actor takes no CPU: it starts the run as a driver of its own on the same Ray, as `ray job submit` does, hands
every validation to Tune, and kills the run where Tune wants no more of it. With the driver Ray ends the workers and
removes their placement group, so nothing of a stopped trial is left.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from cluster.config.fields import Config
from cluster.config.options import to_yaml
from cluster.distributed.imports import quickly
from cluster.errors import NotFiniteError, TrainingError
from cluster.launch.run_folder import CONFIG
from cluster.tracking.run_log import Follower
from cluster.training.checkpoint import COMMIT, best_step
from shards.format.whole_files import write_whole
from tune.search.dimension import Value
from tune.search.plan import METRIC, PBT, Donor, Plan, has_finished, shared_stages
from tune.search.table import DIVERGED, FINAL, FINISHED, Table
from tune.trials.process import POLL_S, Ray, Run, locked

with quickly():
    from ray import tune

STAGE = "finetune"  # the stage that validates
POINTER = "donor.json"
PRETRAINING_LIMIT_S = 7 * 24 * 3600  # of waiting while another trial makes the shared pre-training, and is heard of


class SweepTrial(tune.Trainable):
    """Its config has a value for every dimension, "run": a run folder to go on in or None.

    That of a repeat has "repeat", another seed, and "of", the key of the trial of the search.
    """

    def setup(self, config: dict[str, Any], plan: Plan, ray: Ray) -> None:  # type: ignore[override]  # with_parameters
        """Tune's constructor."""
        self._sweep_plan, self._ray = plan, ray
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Tune reuses the actor, or the trial gets another configuration."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._plan = plan_of(self._sweep_plan, config)
        self._values: dict[str, Value] = {one.name: config[one.name] for one in self._plan.dimensions}
        self._known: str | None = config.get("run")
        self._donor: Donor | None = None
        self._process: Run | None = None
        self._key, self._step = "", 0
        self._waiting: list[dict] = []  # validations that Tune has not seen, later ones than step

    def step(self) -> dict[str, Any]:
        """The next validation, as Tune wants it; the last one once the run has ended."""
        try:
            if self._process is None and (told := self._start()):
                return told
            return self._next()
        except NotFiniteError as error:
            # The worst score there is: who chooses the next values should know.
            return self._result(0.0, done=True, state=DIVERGED, reason=str(error))

    def _start(self) -> dict[str, Any] | None:
        """Starts the run, or goes on with it; what the table says of a configuration that is done with."""
        plan = self._plan
        self._key = place(plan, self._values, self._known, self._donor, self.trial_id)
        before = Table(plan.folder).begun(self._key)  # the sweep writes its start before Tune asks for a step
        if before.state in FINAL:
            score = 0.0 if before.state == DIVERGED else before.score or 0.0
            return self._result(score, done=True, state=before.state, step=before.step)
        config = plan.run_config(self._key, self._values)
        self._select = config.finetune.select
        # What it kept before a kill, if it goes on.
        self._scores, self._chosen_by = dict(before.scores), dict(before.chosen_by)
        pretrain(plan, self._values, self._ray)
        folder = plan.trial_folder(self._key)
        if before.donor is not None:
            donor = Donor(**before.donor)
            _adopt(folder, config, plan.trial_folder(donor.run), donor.step)
            self._step = donor.step
        if plan.search == PBT and before.scores:
            # It goes on: what was said before the pause or the kill is not said again, except a last word.
            self._step = min(before.step, config.finetune.steps - 1)
        self._log = Follower(folder)
        self._process = Run(config, "train", plan.folder, self._ray)
        return None

    def _next(self) -> dict[str, Any]:
        steps = self._plan.config.finetune.steps
        assert self._process is not None, "it has been started"
        while True:
            ended = self._process.ended()
            for record in self._log.read():
                if "validation" in record and record["stage"] == STAGE and record["step"] > self._last():
                    self._waiting.append(record)
            # The last one waits for the end of the run, every other one for its checkpoint.
            if self._waiting and (ended or self._committed(self._waiting[0]["step"]) < steps):
                record = self._waiting.pop(0)
                self._step = record["step"]
                score = record["validation"][METRIC]
                if score is None:
                    raise TrainingError(
                        f"validation gives no {METRIC}: it needs two pairs or more, with references not all alike"
                    )
                # As the COMMIT of its checkpoint has it; of "last" there is no such score.
                self._chosen_by[self._step] = chosen_by = record["validation"].get(self._select)
                self._scores[self._step] = score
                kept = best_step({step: one for step, one in self._chosen_by.items() if step <= self._step})
                assert kept is not None, "this step is one of them"
                done = self._step >= steps
                state: dict[str, Any] = {"state": FINISHED} if done else {}
                return self._result(self._scores[kept], done=done, score=score, chosen_by=chosen_by, **state)
            if ended:
                raise TrainingError(f"the run has ended after step {self._step} of {steps} without a score")
            time.sleep(POLL_S)

    def _last(self) -> int:
        return self._waiting[-1]["step"] if self._waiting else self._step

    def _committed(self, step: int) -> float:
        """The step, or infinity while its checkpoint is being written."""
        folder = self._plan.trial_folder(self._key) / "checkpoints" / STAGE / f"step_{step:08d}"
        return step if (folder / COMMIT).is_file() else float("inf")

    def _result(self, value: float, step: int | None = None, **more: Any) -> dict[str, Any]:
        return {METRIC: value, "step": self._step if step is None else step, "run": self._key} | more

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Where the weights of the last score are. The checkpoint stays in the run folder: `keep` sees to that."""
        pointer = {"run": self._key, "step": self._step, "trial": self.trial_id}
        write_whole(Path(checkpoint_dir) / POINTER, json.dumps(pointer))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # Ray hands on that folder
        """What `save_checkpoint` wrote, of this trial or of another one."""
        self._donor = read_pointer(Path(checkpoint_dir))

    def cleanup(self) -> None:
        """Ends the run, where it has not ended."""
        if self._process is not None:
            self._process.kill()
            self._process = None


def plan_of(plan: Plan, config: dict[str, Any]) -> Plan:
    """The plan that a trial with this config of Tune's is of: the sweep's, or that with the seed of a repeat."""
    seed = config.get("repeat")
    return plan if seed is None else plan.of_seed(seed)


def place(plan: Plan, values: dict[str, Value], known: str | None, donor: Donor | None, trial: str) -> str:
    """The key of the run folder that a trial works in.

    A trial that was paused goes on in its own folder (its own checkpoint comes back to it), one that takes over
    another's checkpoint gets a new one, one of an earlier command goes on where `known` says.
    """
    if donor is not None and donor.trial == trial:
        return donor.run
    if donor is not None:
        return plan.key(values, Donor(donor.run, donor.step, trial))
    return known or plan.key(values)


def read_pointer(folder: Path) -> Donor:
    """The donor that a checkpoint of Tune's points to."""
    return Donor(**json.loads((folder / POINTER).read_bytes()))


def pretrain(plan: Plan, values: dict[str, Value], ray: Ray) -> None:
    """Runs the stages that trials share, where that has not been done; waits where another trial does it."""
    shared = shared_stages(plan.config, plan.dimensions)
    if not shared:
        return
    config = plan.pretraining_config(plan.config_of(values))
    run = Path(config.root) / "runs" / config.name
    key = config.name.rpartition("/")[2]
    with locked(plan.folder, f"pretraining-{key}", PRETRAINING_LIMIT_S):
        if not has_finished(run, config, shared):
            process = Run(config, "pretrain", plan.folder, ray)
            try:
                process.wait()
            finally:
                process.kill()


def _adopt(folder: Path, config: Config, donor: Path, step: int) -> None:
    """Makes a run folder of `config` whose newest checkpoint is the donor's. Files are linked, not copied."""
    if any((folder / "checkpoints").glob(f"{STAGE}/*/{COMMIT}")):
        return  # done before, and gone on from
    name = f"step_{step:08d}"
    target, source = folder / "checkpoints" / STAGE / name, donor / "checkpoints" / STAGE / name
    if not (source / COMMIT).is_file():
        raise TrainingError(f"{source}, which a trial was to go on from, is not there any more")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG, to_yaml(config))
    shutil.rmtree(target, ignore_errors=True)

    def link(one: str, other: str) -> str:
        try:
            os.link(one, other)
        except OSError:  # a file system that has no links
            shutil.copy2(one, other)
        return other

    shutil.copytree(source, target, copy_function=link, ignore=shutil.ignore_patterns(COMMIT))
    write_whole(target / COMMIT, (source / COMMIT).read_text())
