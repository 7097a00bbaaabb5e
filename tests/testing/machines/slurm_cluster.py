"""A real Slurm of namespaced machines: munge, slurmctld here and a slurmd on every machine, nothing in /etc."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testing.machines.namespaces import CODE, TIED, Machines, machines, require
from testing.suite import marked

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "iproute2")
COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare", "setpriv")
UP_LIMIT_S, JOB_LIMIT_S, COMMAND_LIMIT_S = 30, 240, 30
FREEZER = Path("/sys/fs/cgroup/freezer")
NAME = "slurm"
# Why the lines that are not obvious: the controller's name must be this host's; without the cgroup tracker, what Ray
# detaches escapes and a job never ends; config_overrides lets small machines declare what they do not have; slurmd
# wants a device file behind every GPU; batch_sched_delay and the rest take 3 s off every job.
CONF = """
ClusterName=idc
SlurmctldHost={host}({controller})
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000,bf_interval=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
MailProg=/bin/true
GresTypes=gpu
SlurmdTimeout=10
ReturnToService=2
{nodes}
NodeName=big[0-15] NodeAddr={controller} CPUs=128 RealMemory=1000000 Gres=gpu:8 State=CLOUD
PartitionName=main Nodes={name}[0-{last}] Default=YES State=UP
PartitionName=big Nodes=big[0-15] State=UP
SuspendTime=-1
SuspendProgram=/bin/true
ResumeProgram=/bin/true
"""


class Slurm:
    """A running cluster; commands are run as the user who is asked for, from the checkout."""

    def __init__(self, nodes: Machines) -> None:
        self.machines = nodes
        self.folder = nodes.folder  # seen by all nodes
        self._daemons: list[subprocess.Popen] = []

    def start(self, *command: str) -> None:
        """A daemon, until `stop`."""
        environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        with open(self.folder / "daemons.log", "a") as log:
            self._daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def start_node(self, i: int) -> None:
        """slurmd on machine i."""
        self.start(*self.machines.command(i, "slurmd", "-D", "-N", self.machines.names[i]))

    def wait_until_idle(self, count: int) -> None:
        """Until so many nodes wait for jobs."""
        idle = ["sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D"]
        self.wait_for(
            f"{count} idle nodes (see {self.folder}/daemons.log)",
            lambda: self.run("root", *idle).stdout.strip() == str(count),
            UP_LIMIT_S,
        )

    def stop(self) -> None:
        """Ends all daemons."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def home(self, user: str) -> Path:
        """A folder of a user's own, seen by all nodes."""
        path = self.folder / user
        if not path.is_dir():
            path.mkdir(mode=0o700)
            account = pwd.getpwnam(user)
            os.chown(path, account.pw_uid, account.pw_gid)
        return path

    def run(self, user: str, *command: str | Path, **variables: str) -> subprocess.CompletedProcess:
        """Runs a command as a user; `variables` are added to an environment that has nothing of the test's own."""
        account, home = pwd.getpwnam(user), self.home(user)
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "IDC_HOME": str(home / "idc"), "LANG": "C.UTF-8",
                       "SLURM_CONF": str(self.folder / "slurm.conf")} | variables  # fmt: skip
        identity = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        return subprocess.run(
            [*identity, *command], env=environment, cwd=CODE, capture_output=True, text=True, timeout=COMMAND_LIMIT_S
        )

    def submit(self, user: str, *arguments: str, **variables: str) -> str:
        """sbatch; the job's number. Output goes to the file that `output` gives."""
        log = self.home(user) / "job-%j.log"
        done = self.run(user, "sbatch", "--parsable", f"--output={log}", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def output(self, user: str, job: str) -> str:
        """What a job has printed so far."""
        log = self.home(user) / f"job-{job}.log"
        return log.read_text() if log.exists() else ""

    def show(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        text = self.run("root", "scontrol", "show", "job", "-o", job).stdout
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def wait(self, job: str, limit: float = JOB_LIMIT_S) -> dict[str, str]:
        """Until a job has ended, its processes too; its fields."""
        until = time.monotonic() + limit
        while self.run("root", "squeue", "-h", "-j", job).stdout.strip():
            assert time.monotonic() < until, f"job {job} has not ended after {limit} s: {self.show(job)}"
            time.sleep(0.5)
        return self.show(job)

    def wait_for(self, what: str, found: Callable[[], bool], limit: float = JOB_LIMIT_S) -> None:
        """Until `found()` is true."""
        until = time.monotonic() + limit
        while not found():
            assert time.monotonic() < until, f"no {what} after {limit} s"
            time.sleep(0.2)

    def wait_while_running(self, user: str, job: str, found: Callable[[], bool]) -> None:
        """Until `found()` is true of a job that has not ended. To ask Slurm takes processes: once a second."""
        asked = 0.0

        def found_or_ended() -> bool:
            nonlocal asked
            there = found()
            if there or time.monotonic() - asked > 1:
                assert self.show(job)["JobState"] in ("PENDING", "RUNNING"), self.output(user, job)
                asked = time.monotonic()
            return there

        self.wait_for(f"sign of life from job {job}", found_or_ended)

    @contextlib.contextmanager
    def standing_still(self, user: str, job: str, found: Callable[[], bool]) -> Iterator[None]:
        """Once `found()` is true of a job that has not ended, its workers stand still, those that are there then."""
        self.wait_while_running(user, job, found)
        self._signal_workers(user, "STOP")
        try:
            yield
        finally:
            self._signal_workers(user, "CONT")

    def _signal_workers(self, user: str, name: str) -> None:
        for i in range(len(self.machines.names)):
            if self.machines.on(i):
                self.machines.run(i, "pkill", f"-{name}", "-u", user, "-f", "RayTrainWorker")

    def left_behind(self, user: str) -> list[str]:
        """Processes and files in /tmp and /dev/shm of a user, on all nodes."""
        found, uid = [], pwd.getpwnam(user).pw_uid
        for i, name in enumerate(self.machines.names):
            found += [f"{name}: {line}" for line in self.machines.processes(i, user)]
            for place in ("/tmp", "/dev/shm"):
                listed = self.machines.run(i, "find", place, "-mindepth", "1", "-maxdepth", "1", "-uid", str(uid))
                found += [f"{name}: {line}" for line in listed.stdout.splitlines()]
        return found


@contextlib.contextmanager
def slurm(count: int, cpus: int, memory_mib: int) -> Iterator[Slurm]:
    """A cluster of `count` nodes that are there, and sixteen of 8 GPUs (partition big) that are only declared."""
    marked.needs("slurm")
    require(COMMANDS, PACKAGES)
    if not (FREEZER / "tasks").exists():
        pytest.skip(f"Slurm's process tracking needs the cgroup v1 freezer, and {FREEZER} is not there")
    _remove_cgroups()
    with machines(NAME, count, "198.18.7") as nodes:
        folder = nodes.folder
        declared = [
            f"NodeName={name} NodeAddr={nodes.address(i)} CPUs={cpus} RealMemory={memory_mib}"
            for i, name in enumerate(nodes.names)
        ]
        (folder / "slurm.conf").write_text(
            CONF.format(folder=folder, host=os.uname().nodename, controller=f"{nodes.subnet}.254", name=NAME,
                        nodes="\n".join(declared), last=count - 1)
        )  # fmt: skip
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (folder / "gres.conf").write_text(f"NodeName=big[0-15] Name=gpu File={folder}/nvidia[0-7]\n")
        for i in range(8):
            os.mknod(folder / f"nvidia{i}", 0o20666, os.makedev(1, 3))
        (folder / "state").mkdir()
        (folder / "munge").mkdir()
        key = folder / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        munge = [f"--{name}={folder}/munge/{name.removesuffix('-file')}"
                 for name in ("socket", "key-file", "pid-file", "log-file", "seed-file")]  # fmt: skip
        cluster = Slurm(nodes)
        try:
            cluster.start(*TIED, "munged", "--foreground", "--force", *munge)
            cluster.start(*TIED, "slurmctld", "-D")
            for i in range(count):
                cluster.start_node(i)
            cluster.wait_until_idle(count)
            yield cluster
        finally:
            cluster.stop()
            nodes.stop()
            _remove_cgroups()


def _remove_cgroups() -> None:
    """Empty cgroups that the nodes' slurmds made."""
    for top in Path("/sys/fs/cgroup").glob(f"*/{NAME}*"):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # not empty: somebody's, or of processes that are just ending
                os.rmdir(folder)
