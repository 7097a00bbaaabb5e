"""Starts the workers: one Ray Train V2 run, on a Ray of our own or on the cluster that RAY_ADDRESS names.

Settings that cost others hours: the controller polls workers every 0.2 s instead of 2 s, the object store is small
because no tensor goes through it (ray#14535), and a local Ray is started with address="local", for the default address
may be that of a stranger's head (ray#59551). Ray Train's placement-group cleaner is left out: it takes up to 12 s to
stop, and where the driver is killed and no dashboard answers, it stays for ever (a detached actor, once a run). A
driver of ours is one run, and Ray removes the placement groups of a driver that has gone. The actor that hands
out Ray's datasets, of which there are none, is left out too: a process that takes a second or two to start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import secrets
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from cluster.config.fields import ClusterConfig
from cluster.distributed.devices import (
    CPU_WORKERS,
    Placement,
    choose_accelerator,
    local_gpus,
    place,
    require_room,
    resolved,
)
from cluster.errors import ConfigError, NoSpaceError, NotFiniteError, TrainingError
from cluster.launch import credentials
from cluster.launch.run_folder import is_installed
from cluster.tracking.worker_logs import keep_output, keep_warnings, log_of
from cluster.training.disk_space import no_space
from cluster.training.job import Job
from idc.backbone.weights import BackboneError
from idc.captioning.model_folder import ExportError
from idc.captioning.tokenizer import TokenizerError
from shards.errors import DataError
from shards.format.whole_files import write_whole

OBJECT_STORE_BYTES = 128 * 2**20
FAILURE = "failure.txt"
RAY_FOLDER = "ray"  # Ray Train wants a folder; nothing of ours is in it
# What workers of a cluster are told of the driver's environment; secrets go another way (cluster.launch.credentials).
_WORKER_VARIABLES = (
    "IDC_HOME", "IDC_CACHE", "IDC_CACHE_GB", "WANDB_BASE_URL", "WANDB_ENTITY", "OMP_NUM_THREADS", "AWS_PROFILE",
    "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS",
)  # fmt: skip
# What a rank says when another one has gone: never the cause.
_ECHOES = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "not all workers came within")

CPU = torch.device("cpu")
_TOKEN = secrets.token_hex(32)
CODE = Path(__file__).resolve().parents[2]


def _worker(settings: dict[str, Any]) -> None:
    """Runs in every worker process, in a thread of Ray's (so signal handlers do not work here)."""
    try:
        _work(settings)
    except Exception as error:
        error.worker_traceback = traceback.format_exc()  # type: ignore[attr-defined]  # Ray hands on the rest alone
        raise


def _work(settings: dict[str, Any]) -> None:
    import ray.train.torch

    job: Job = settings["job"]
    placement: Placement = settings["placement"]
    # Ray would say cuda:0 of any worker that sees a GPU.
    device = ray.train.torch.get_device() if placement.gpus_per_worker else CPU
    choose_accelerator(device, placement.precision)
    rank = ray.train.get_context().get_world_rank()
    keep_output(job.run, rank, device)
    os.environ |= credentials.read(settings["credentials"])
    from cluster.training.worker import run

    warnings.simplefilter("ignore", FutureWarning)
    keep_warnings(job.run, rank)
    run(job, device)


def attaches() -> bool:
    """True where the run joins the Ray cluster that RAY_ADDRESS names."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start_ray(cluster: ClusterConfig) -> Placement:
    """Connects to the cluster that RAY_ADDRESS names, as inside `ray job submit`, or starts a private one here.

    Returns the workers that the options come to there. Raises ConfigError where its nodes have no room for them.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it takes what is printed away from the rank's log
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what CPU workers see is ours to say
    # The variables of a job (`ray job submit --runtime-env-json`) and those below may be the same: else Ray refuses.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not attaches():
        # A token of its own, in the environment of this process and its children alone. Without one the first local
        # Ray of a user writes ~/.ray/auth_token, and their other clusters then ask for it. Read when Ray is imported,
        # so it is the same for all runs of a process.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets anything else on the machine go first
    import ray

    # Ray puts the folder that it is started in first on its workers' path: a cluster.py there would hide our package.
    with contextlib.chdir(sys.prefix if is_installed(CODE) else CODE):
        if attaches():
            told = {name: os.environ[name] for name in _WORKER_VARIABLES if name in os.environ}
            ray.init(**quiet, runtime_env={"env_vars": told})
        else:
            # Workers have the environment of this process. CPUs are a number here: a machine may have more workers.
            workers = cluster.workers or max(CPU_WORKERS, 2 * local_gpus())
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, math.ceil(workers * cluster.cpus_per_worker)),
                num_gpus=local_gpus(),  # as torch sees them: Ray counts those, too, that a torch for CPUs cannot use
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )
    try:
        placement = place(cluster, ray.nodes())
        require_room(placement, ray.nodes())
    except ConfigError:
        ray.shutdown()
        raise
    return placement


def fit(job: Job) -> None:
    """Runs `cluster.training.worker.run(job)` on all workers and waits for them.

    Raises DataError or ConfigError as the workers raised them, TrainingError for anything else.
    """
    # Ray reads its environment when it is imported, and the controller has it from here. By itself it tries for ever.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(job.config.cluster.timeout_s)
    placement = start_ray(job.config.cluster)
    import ray

    try:
        job = dataclasses.replace(job, config=resolved(job.config, placement))
        print(f"{'training' if job.stages else 'working'} on {placement}", file=sys.stderr, flush=True)
        with credentials.handed_over(job.run if attaches() else None) as secret:
            _train(job, placement, {"job": job, "placement": placement, "credentials": secret})
    finally:
        ray.shutdown()


def _train(job: Job, placement: Placement, settings: dict[str, Any]) -> None:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    left_out = (PlacementGroupCleanerCallback, DatasetsCallback)

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller):
            """Ray's would end an interrupted run with exit code 0; KeyboardInterrupt reaches our caller instead."""

        def _create_default_callbacks(self):
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if not isinstance(one, left_out)]

    logging.getLogger("ray").setLevel(logging.ERROR)
    trainer = Trainer(
        _worker,
        train_loop_config=settings,
        torch_config=TorchConfig(backend=placement.backend, timeout_s=job.config.cluster.timeout_s),
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.workers,
            use_gpu=bool(placement.gpus_per_worker),
            resources_per_worker=placement.resources,
            # GPUs of one machine are joined by the fastest links; CPUs of one share its memory's bandwidth.
            placement_strategy="PACK" if placement.gpus_per_worker else "SPREAD",
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(job.run / RAY_FOLDER),
            # The same command again goes on. A group that cannot start is waited for once, timeout_s long.
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
            worker_runtime_env={"env_vars": placement.environment},
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error, job, placement) from None


def _cause(error: Exception, job: Job, placement: Placement) -> Exception:
    """The exception that started it, as the user should see it."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    run = job.run
    if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
        return TrainingError(_not_started(job, placement))
    failures = dict(getattr(error, "worker_failures", {}))
    causes = {rank: getattr(failure, "_base_exc", failure) for rank, failure in failures.items()}
    for cause in causes.values():
        if isinstance(cause, DataError):
            return cause
        if isinstance(cause, (BackboneError, ExportError, TokenizerError)):
            return ConfigError(str(cause))
        if isinstance(cause, NotFiniteError):
            return cause
    echoes = [rank for rank, cause in causes.items() if any(echo in str(cause) for echo in _ECHOES)]
    ranks = [rank for rank in causes if rank not in echoes] or list(causes)
    full = {rank: cause if isinstance(cause, NoSpaceError) else no_space(cause, run) for rank, cause in causes.items()}
    ranks.sort(key=lambda rank: full[rank] is None)
    if not ranks:
        return TrainingError(f"training failed, {_one_line(error)}{_kept(run, error)})")
    first = ranks[0]
    said = f"{_kept(run, causes[first])}, its output: {log_of(run, first)})"
    if full[first] is not None:
        return NoSpaceError(f"{full[first]}{said}")
    return TrainingError(f"training failed, worker {first}: {_one_line(causes[first])}{said}")


def _kept(run: Path, error: BaseException) -> str:
    """Writes the traceback into the run folder; where it is, behind an opening bracket."""
    text = getattr(error, "worker_traceback", None) or "".join(traceback.format_exception(error))
    try:
        write_whole(run / FAILURE, text.rstrip() + "\n")
    except OSError as fault:  # the disk is full
        return f" (traceback: not written, {fault.strerror}"
    return f" (traceback: {run / FAILURE}"


def _not_started(job: Job, placement: Placement) -> str:
    """Why a group of workers did not start: what it waited for, and what is free on the nodes."""
    import ray

    free, limit = ray.available_resources(), job.config.cluster.timeout_s
    wanted = " and ".join(f"{value:g} {name}s" for name, value in placement.resources.items())
    left = " and ".join(f"{free.get(name, 0):g} {name}s" for name in placement.resources)
    return (
        f"no room was free within --cluster.timeout_s {limit} for {placement.workers} workers, each with {wanted}: the "
        f"nodes of the Ray cluster have {left} free, the rest is in use by others; wait for them, or lower "
        f"--cluster.workers"
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not text:  # an assertion without words: the line that it stands in
        lines = getattr(error, "worker_traceback", "").rstrip().splitlines()
        text = " ".join(line.strip() for line in lines[-3:-1]) or "no message"
    return f"{type(error).__name__}: {text[:300]}"
