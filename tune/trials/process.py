"""A run of cluster/train.py as a process of its own: started on the sweep's Ray, watched, ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import CODE
from cluster.config.fields import Config
from cluster.config.options import to_yaml
from cluster.distributed.own_ray import OWN
from cluster.errors import NotFiniteError, TrainingError
from cluster.launch import credentials
from cluster.tracking.run_log import METRICS
from shards.format.whole_files import write_whole

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # the variable by which Ray tells a driver its runtime environment
END_LIMIT_S = 30
LOCK_LIMIT_S = 60  # longer than a killed run needs to end
POLL_S = 0.1


@dataclass(frozen=True)
class Ray:
    """The Ray that runs are started on."""

    address: str
    threads: str | None = None  # OMP_NUM_THREADS of the sweep; Ray sets its own for every process
    secret: Path | None = None  # the file of the sweep's credentials, where Ray's processes have not its environment
    own: bool = False  # whether nobody adds nodes to it


class Run:
    """A running `cluster/train.py`, in a process that ends with this one."""

    def __init__(self, config: Config, stage: str, sweep: Path, ray: Ray) -> None:
        """Starts it. Waits for an earlier process in the same run folder to end; TrainingError where that lasts."""
        name = config.name.rpartition("/")[2]
        self._folder = Path(config.root) / "runs" / config.name
        self._output = sweep / "output" / f"{name}.txt"
        recipe = sweep / "configs" / f"{name}.yaml"
        for path in (self._output, recipe):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(recipe, to_yaml(config))
        self._limit = 3 * config.cluster.timeout_s
        with locked(sweep, name, LOCK_LIMIT_S) as lock, self._output.open("ab") as output:
            self._said = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tune.trials.run", str(os.getpid()), str(recipe), "--stage", stage],
                cwd=CODE, env=_environment(ray), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=(lock,),  # held as long as the process is there
            )  # fmt: skip
        self._started = time.time()

    def ended(self) -> bool:
        """Whether it has ended, well. TrainingError where it failed or says nothing any more, NotFiniteError where
        it diverged."""
        code = self._process.poll()
        if code is None:
            silent = time.time() - max(self._started, *map(_changed, (self._output, self._folder / METRICS)))
            if silent > self._limit:
                self.kill()
                raise TrainingError(f"nothing was heard for {silent:.0f} s and it was ended (output: {self._output})")
            return False
        if code == NotFiniteError.exit_code:
            raise NotFiniteError(self._last_line())
        if code:
            raise TrainingError(f"exit code {code}: {self._last_line()} (output: {self._output})")
        return True

    def wait(self) -> None:
        """Until it has ended, well; errors as of `ended`."""
        while not self.ended():
            time.sleep(POLL_S)

    def kill(self) -> None:
        """Ends it at once. Ray ends its workers and removes its placement group."""
        self._process.kill()
        self._process.wait(END_LIMIT_S)

    def _last_line(self) -> str:
        with self._output.open("rb") as file:
            file.seek(self._said)
            lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "no output")


@contextlib.contextmanager
def locked(sweep: Path, name: str, limit_s: float) -> Iterator[int]:
    """Holds the lock of a name in a sweep, as a file descriptor. TrainingError where it is not free in time."""
    path = sweep / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + limit_s
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrainingError(f"another process still holds {path} after {limit_s:.0f} s") from None
            time.sleep(POLL_S)
        yield file.fileno()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _environment(ray: Ray) -> dict[str, str]:
    """The variables of a driver on the sweep's Ray; the code comes along where Ray brought it here."""
    import ray as ray_module

    variables = os.environ | credentials.read(ray.secret) | {"RAY_ADDRESS": ray.address}
    if ray.own:
        variables[OWN] = ray.address
    variables.pop("OMP_NUM_THREADS", None)
    if ray.threads is not None:
        variables["OMP_NUM_THREADS"] = ray.threads
    brought = {}
    if ray_module.is_initialized():
        brought = dict(ray_module.get_runtime_context().runtime_env)
    if "working_dir" in brought:
        variables[JOB_CONFIG] = json.dumps({"runtime_env": brought})
    return variables
