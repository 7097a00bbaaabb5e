"""Starts the workers: one Ray Train V2 run, on a Ray of our own or on the cluster that RAY_ADDRESS names.

Settings that cost others hours: the controller polls workers every 0.2 s instead of 2 s, the object store is small
because no tensor goes through it (ray#14535), and a local Ray is started with address="local", for the default address
may be that of a stranger's head (ray#59551).
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
from typing import Any

import torch

from cluster import CODE
from cluster.config.fields import ClusterConfig
from cluster.distributed import beat
from cluster.distributed.devices import (
    CPU_WORKERS,
    Placement,
    choose_accelerator,
    local_gpus,
    place,
    require_room,
    resolved,
)
from cluster.distributed.imports import quickly
from cluster.distributed.own_ray import OWN, leave_out_processes
from cluster.errors import ConfigError
from cluster.launch import asked, credentials
from cluster.launch.run_folder import is_installed
from cluster.tracking.worker_logs import keep_output, keep_warnings
from cluster.training.job import Job

OBJECT_STORE_BYTES = 128 * 2**20
RAY_FOLDER = "ray"  # Ray Train wants a folder; nothing of ours is in it
# What workers of a cluster are told of the driver's environment; secrets go another way (cluster.launch.credentials).
_WORKER_VARIABLES = (
    "IDC_HOME", "IDC_CACHE", "IDC_CACHE_GB", "WANDB_BASE_URL", "WANDB_ENTITY", "OMP_NUM_THREADS", "AWS_PROFILE",
    "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS",
)  # fmt: skip
ELASTIC_START_S = 30  # for a group of as many workers as had room a moment ago

CPU = torch.device("cpu")
_TOKEN = secrets.token_hex(32)


def _worker(settings: dict[str, Any]) -> None:
    """Runs in every worker process, in a thread of Ray's (so signal handlers do not work here)."""
    try:
        _work(settings)
    except Exception as error:
        error.worker_traceback = traceback.format_exc()  # type: ignore[attr-defined]  # Ray hands on the rest alone
        raise
    finally:
        beat.end()


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
    with quickly():
        from cluster.training.worker import run

    warnings.simplefilter("ignore", FutureWarning)
    keep_warnings(job.run, rank)
    run(job, device)


def attaches() -> bool:
    """True where the run joins the Ray cluster that RAY_ADDRESS names."""
    return bool(os.environ.get("RAY_ADDRESS"))


def is_own() -> bool:
    """True where nobody adds nodes to the Ray: this process has started it, or who has says so (`OWN`)."""
    return not attaches() or os.environ.get(OWN) == os.environ["RAY_ADDRESS"]


def start_ray(cluster: ClusterConfig) -> Placement:
    """Connects to the cluster that RAY_ADDRESS names, as inside `ray job submit`, or starts a private one here.

    Returns the workers that the options come to there. Raises ConfigError where its nodes have no room for them.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    # An actor that asks whether nodes are to be taken away: `cluster.launch.supervisor` does, without a process more.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
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
        # Two idle workers, which would import Ray beside ours and never be used: ours have an environment of their own.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    with quickly():
        import ray

    # Ray puts the folder that it is started in first on its workers' path: a cluster.py there would hide our package.
    with contextlib.chdir(sys.prefix if is_installed(CODE) else CODE):
        if attaches():
            told = {name: os.environ[name] for name in _WORKER_VARIABLES if name in os.environ}
            ray.init(**quiet, runtime_env={"env_vars": told})
        else:
            leave_out_processes()
            # Workers have the environment of this process. CPUs are a number here: a machine may have more workers.
            workers = cluster.worker_range[1] or max(CPU_WORKERS, 2 * local_gpus())
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
    """Runs `cluster.training.worker.run(job)` on all workers and waits for them, through faults that pass.

    Raises DataError or ConfigError as the workers raised them, Stopped where the run was asked to stop, TrainingError
    for anything else.
    """
    # Ray reads its environment when it is imported, and the controller has it from here.
    limit, (least, most) = job.config.cluster.timeout_s, job.config.cluster.worker_range
    os.environ |= {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(min(limit, ELASTIC_START_S) if least < most else limit),
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(limit),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(limit),
    }
    placement = start_ray(job.config.cluster)
    import ray

    try:
        job = dataclasses.replace(job, config=resolved(job.config, placement))
        print(f"{'training' if job.stages else 'working'} on {placement}", file=sys.stderr, flush=True)
        with credentials.handed_over(job.run if attaches() else None) as secret, asked.heeded(job.run):
            _train(job, placement, {"job": job, "placement": placement, "credentials": secret})
    finally:
        ray.shutdown()
        asked.listen_again()


def _train(job: Job, placement: Placement, settings: dict[str, Any]) -> None:
    with quickly():
        from ray.train.torch import TorchConfig
        from ray.train.v2.api.config import RunConfig, ScalingConfig

        from cluster.launch.controller import Trainer

    logging.getLogger("ray").setLevel(logging.ERROR)
    trainer = Trainer(
        _worker,
        train_loop_config=settings,
        torch_config=TorchConfig(backend=placement.backend, timeout_s=job.config.cluster.timeout_s),
        scaling_config=ScalingConfig(
            num_workers=(placement.least, placement.workers) if placement.least else placement.workers,
            use_gpu=bool(placement.gpus_per_worker),
            resources_per_worker=placement.resources,
            # GPUs of one machine are joined by the fastest links; CPUs of one share its memory's bandwidth.
            placement_strategy="PACK" if placement.gpus_per_worker else "SPREAD",
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(job.run / RAY_FOLDER),
            worker_runtime_env={"env_vars": placement.environment},
        ),
    )
    trainer.supervised(job, placement, own_ray=is_own())
