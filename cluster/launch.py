"""Starts the workers: one Ray Train V2 run, on a Ray of our own or on the cluster that RAY_ADDRESS names.

Settings that cost others hours: the controller polls workers every 0.2 s instead of 2 s, the object store is small
because no tensor goes through it (ray#14535), and a local Ray is started with address="local", for the default address
may be that of a stranger's head (ray#59551). Ray Train's placement-group cleaner is left out: it takes up to 12 s to
stop, and where the driver is killed and no dashboard answers, it stays for ever (a detached actor, once a run). A
driver of ours is one run, and Ray removes the placement groups of a driver that has gone.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import traceback
import warnings
from pathlib import Path
from typing import Any

from cluster.checkpoint import write_whole
from cluster.config import ClusterConfig
from cluster.errors import ConfigError, NotFiniteError, TrainingError
from cluster.job import Job
from idc.backbone_weights import BackboneError
from idc.export import ExportError
from idc.tokenizer import TokenizerError
from shards.errors import DataError

OBJECT_STORE_BYTES = 128 * 2**20
FAILURE, WARNINGS = "failure.txt", "warnings.txt"
RAY_FOLDER = "ray"  # Ray Train wants a folder; nothing of ours is in it
_WORKER_VARIABLES = (
    "IDC_HOME", "IDC_CACHE", "IDC_CACHE_GB", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "OMP_NUM_THREADS",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS",
)  # fmt: skip
# What a rank says when another one has gone: never the cause.
_ECHOES = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "not all workers came within")


def _worker(settings: dict[str, Any]) -> None:
    """Runs in every worker process, in a thread of Ray's (so signal handlers do not work here)."""
    import ray.train.torch

    from cluster.worker import run

    warnings.simplefilter("ignore", FutureWarning)
    job: Job = settings["job"]
    handler = logging.FileHandler(job.run / WARNINGS, delay=True)
    handler.setFormatter(logging.Formatter(f"%(asctime)s worker {os.environ.get('RANK')}: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    run(job, ray.train.torch.get_device())


def start_ray(cluster: ClusterConfig) -> None:
    """Connects to the cluster that RAY_ADDRESS names, as inside `ray job submit`, or starts a private one here.

    Raises ConfigError where a cluster has fewer CPUs or GPUs than the workers need.
    """
    attach = bool(os.environ.get("RAY_ADDRESS"))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The variables of a job (`ray job submit --runtime-env-json`) and those below may be the same: else Ray refuses.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    if not attach:
        # A token of its own, in the environment of this process and its children alone. Without one the first local
        # Ray of a user writes ~/.ray/auth_token, and their other clusters then ask for it. Read when Ray is imported.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets anything else on the machine go first
    import ray

    need_cpus = cluster.workers * cluster.cpus_per_worker
    need_gpus = cluster.workers * cluster.gpus_per_worker
    environment = {"env_vars": {name: os.environ[name] for name in _WORKER_VARIABLES if name in os.environ}}
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "runtime_env": environment}
    if attach:
        ray.init(**quiet)
    else:
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(need_cpus)),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    have = ray.cluster_resources()
    for resource, need, option in (("CPU", need_cpus, "cpus"), ("GPU", need_gpus, "gpus")):
        if need > have.get(resource, 0):
            ray.shutdown()
            raise ConfigError(
                f"--cluster.workers {cluster.workers} x --cluster.{option}_per_worker needs {need:g} {resource}s and "
                f"the Ray cluster has {have.get(resource, 0):g}: lower one of the two"
            )


def fit(job: Job) -> None:
    """Runs `cluster.worker.run(job)` on all workers and waits for them.

    Raises DataError or ConfigError as the workers raised them, TrainingError for anything else.
    """
    cluster = job.config.cluster
    start_ray(cluster)
    # Ray reads its environment when it is imported.
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller):
            """Ray's would end an interrupted run with exit code 0; KeyboardInterrupt reaches our caller instead."""

        def _create_default_callbacks(self):
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]

    logging.getLogger("ray").setLevel(logging.ERROR)
    resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if cluster.gpus_per_worker else {})
    trainer = Trainer(
        _worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if cluster.gpus_per_worker else "gloo", timeout_s=cluster.timeout_s),
        scaling_config=ray.train.ScalingConfig(
            num_workers=cluster.workers,
            use_gpu=bool(cluster.gpus_per_worker),
            resources_per_worker=resources,
            # GPUs of one machine are joined by the fastest links; CPUs of one share its memory's bandwidth.
            placement_strategy="PACK" if cluster.gpus_per_worker else "SPREAD",
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(job.run / RAY_FOLDER),
            failure_config=ray.train.FailureConfig(max_failures=0),  # the same command again goes on
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error, job.run) from None
    finally:
        ray.shutdown()


def _cause(error: Exception, run: Path) -> Exception:
    """The exception that started it, as the user should see it."""
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
    text = str(failures[ranks[0]]) if ranks else "".join(traceback.format_exception(error))
    write_whole(run / FAILURE, text + "\n")
    what = f"worker {ranks[0]}: {_one_line(causes[ranks[0]])}" if ranks else _one_line(error)
    return TrainingError(f"training failed, {what} (traceback: {run / FAILURE})")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
