"""Machines made of Linux namespaces: each has an address, a host name, processes, /tmp and /dev/shm of its own.

They need root. All their processes end with the test that started them, even where that is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

CODE = Path(__file__).resolve().parents[3]
INSTALL_LIMIT_S, LOCK_LIMIT_S, START_LIMIT_S = 300, 540, 20
# The kernel ends a process started so together with the one that started it.
TIED = ("setpriv", "--pdeathsig", "KILL")
# Pid 1 of a machine: mounts, then waits and reaps. Arguments: name, its folder, the hosts file; what lies in /tmp and
# is needed all the same; "--"; then a folder that other users may not enter, such as /root, and what of it they need.
INIT = """
set -eu
name=$1 folder=$2 hosts=$3; shift 3
shared=(); while [ "$1" != -- ]; do shared+=("$1"); shift; done; shift
hostname "$name"
mount --bind "$hosts" /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
if [ $# -gt 0 ]; then
  closed=$1; shift
  for path; do mkdir -p "$folder/kept$path"; mount --bind "$path" "$folder/kept$path"; done
  mount -t tmpfs -o mode=755 tmpfs "$closed"
  for path; do mkdir -p "$path"; mount --bind "$folder/kept$path" "$path"; done
fi
for path in "${shared[@]}"; do
  mkdir -p "$folder/tmp${path#/tmp}"; mount --bind "$path" "$folder/tmp${path#/tmp}"
done
mount --rbind "$folder/tmp" /tmp
touch "$folder/ready"
sleep infinity & wait
"""


def require(commands: Sequence[str], packages: Sequence[str]) -> None:
    """Skips the test, with the reason, where machines cannot be made here or commands are missing and not to be had."""
    if os.geteuid() != 0:
        pytest.skip("machines made of namespaces need root")
    require_commands(commands, packages)
    tried = subprocess.run(["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "true"], check=False)
    if tried.returncode != 0:
        pytest.skip("this machine does not let root make namespaces")


def require_commands(commands: Sequence[str], packages: Sequence[str]) -> None:
    """Installs Debian's packages where commands are missing; skips the test, with the reason, where that cannot be."""
    missing = _missing(commands)
    if missing and shutil.which("apt-get"):
        with _locked("apt-get", "apt-get"):
            if _missing(commands):
                _install(packages)
        missing = _missing(commands)
    if missing:
        pytest.skip(f"{', '.join(missing)} not found, and apt-get could not install {' '.join(packages)}")


def _missing(commands: Sequence[str]) -> list[str]:
    return [command for command in commands if not shutil.which(command)]


def _install(packages: Sequence[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends", *packages]
    for command in (install, ["apt-get", "update"], install):  # the lists may be missing or old
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
        if command is install and done.returncode == 0:
            break


class Machines:
    """Machines NAME0, NAME1, ... with the addresses SUBNET.1, SUBNET.2, ..., on a bridge that is SUBNET.254 here.

    `folder` is seen by all of them and is gone afterwards; /tmp of machine i is folder/NAMEi/tmp.
    """

    def __init__(self, name: str, subnet: str, folder: Path) -> None:
        self.name, self.subnet, self.folder = name, subnet, folder
        self.names: list[str] = []
        self._inits: list[subprocess.Popen] = []

    def add(self) -> None:
        """Starts one more machine."""
        i = len(self.names)
        name, host = f"{self.name}{i}", f"{self.name}{i}-host"
        here = self.folder / name
        (here / "tmp").mkdir(parents=True)
        (here / "tmp").chmod(0o1777)
        _ip("netns", "add", name)
        _ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", host, "master", f"{self.name}br", "up")
        _ip("-n", name, "address", "add", f"{self.address(i)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        self.names.append(name)
        self._inits.append(self._switched_on(name))

    def _switched_on(self, name: str) -> subprocess.Popen:
        here = self.folder / name
        (here / "ready").unlink(missing_ok=True)
        init = subprocess.Popen(
            [*TIED, "nsenter", f"--net=/run/netns/{name}", "unshare", "--uts", "--ipc", "--mount", "--pid",
             "--fork", "--mount-proc", "--kill-child", "bash", "-c", INIT, "init", name, str(here),
             str(self.folder / "hosts"), *_in_tmp(), "--", *_closed()],
        )  # fmt: skip
        until = time.monotonic() + START_LIMIT_S
        while not (here / "ready").exists():
            assert init.poll() is None and time.monotonic() < until, f"machine {name} did not start"
            time.sleep(0.01)
        return init

    def address(self, i: int) -> str:
        """The address of machine i."""
        return f"{self.subnet}.{i + 1}"

    def command(self, i: int, *command: str) -> list[str]:
        """The command line that runs `command` on machine i."""
        unshare = self._inits[i].pid
        init = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0]
        return [*TIED, "nsenter", "--target", init, "--net", "--uts", "--ipc", "--mount", "--pid", *command]

    def run(self, i: int, *command: str, **options: Any) -> subprocess.CompletedProcess:
        """Runs a command on machine i to its end."""
        options = {"capture_output": True, "text": True, "timeout": 60} | options
        return subprocess.run(self.command(i, *command), **options)

    def processes(self, i: int, user: str | None = None) -> list[str]:
        """Command lines of all processes of machine i, or of one user's; without pid 1 and what asks."""
        asked = self.run(i, "ps", "-eo", "user:32=,ppid=,args=")
        lines = [line.split(None, 2) for line in asked.stdout.splitlines()]
        return [line[2] for line in lines if line[1] != "0" and line[2] != "sleep infinity" and user in (None, line[0])]

    def on(self, i: int) -> bool:
        """Whether machine i runs."""
        return self._inits[i].poll() is None

    def kill(self, i: int) -> None:
        """Switches machine i off."""
        self._inits[i].kill()
        self._inits[i].wait(START_LIMIT_S)

    def restart(self, i: int) -> None:
        """Switches machine i on that was killed: nothing runs on it, and its /tmp is empty."""
        shutil.rmtree(self.folder / self.names[i] / "tmp")
        (self.folder / self.names[i] / "tmp").mkdir()
        (self.folder / self.names[i] / "tmp").chmod(0o1777)
        self._inits[i] = self._switched_on(self.names[i])

    def stop(self) -> None:
        """Ends all machines."""
        for i in range(len(self._inits)):
            self.kill(i)


@contextlib.contextmanager
def _locked(name: str, what: str) -> Iterator[None]:
    """Of all tests of this machine, one at a time has it."""
    with open(f"/run/lock/idc-{name}", "w") as lock:
        until = time.monotonic() + LOCK_LIMIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                assert time.monotonic() < until, f"another test still has {what} after {LOCK_LIMIT_S} s"
                time.sleep(0.5)
        yield


@contextlib.contextmanager
def machines(name: str, count: int, subnet: str) -> Iterator[Machines]:
    """`count` machines; one test run at a time has those of a name. What a killed run left is removed first."""
    with _locked(name, f"the machines {name}"):
        _sweep(name)
        # Not in /tmp, which every machine has of its own.
        folder = Path(tempfile.mkdtemp(prefix=f"idc-{name}-", dir="/var/tmp"))
        folder.chmod(0o755)
        hosts = [f"{subnet}.{i + 1} {name}{i}" for i in range(count)]
        (folder / "hosts").write_text(
            "\n".join(["127.0.0.1 localhost", *hosts, f"{subnet}.254 {os.uname().nodename}\n"])
        )
        made = Machines(name, subnet, folder)
        try:
            _ip("link", "add", f"{name}br", "type", "bridge")
            _ip("address", "add", f"{subnet}.254/24", "dev", f"{name}br")
            _ip("link", "set", f"{name}br", "up")
            for _ in range(count):
                made.add()
            yield made
        finally:
            made.stop()
            _sweep(name)


def _sweep(name: str) -> None:
    """Removes network, cgroups and folders of machines whose processes have ended."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=START_LIMIT_S).stdout
    for line in listed.splitlines():
        if line.split()[0].rstrip("0123456789") == name:
            _ip("netns", "delete", line.split()[0])
    # Cables go with their networks, but later, and then their names are still taken.
    for link in Path("/sys/class/net").glob(f"{name}*"):
        if re.fullmatch(rf"{name}(\d+-host|br)", link.name):
            # Not where it has gone in this moment.
            subprocess.run(["ip", "link", "delete", link.name], stderr=subprocess.DEVNULL, timeout=START_LIMIT_S)
    for left in Path("/var/tmp").glob(f"idc-{name}-*"):
        shutil.rmtree(left)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=START_LIMIT_S)


def _needed() -> list[Path]:
    """Python and the checkout."""
    return [Path(sys.base_prefix), CODE]


def _in_tmp() -> list[str]:
    """Which of them lie in /tmp, of which every machine has its own."""
    return [str(path) for path in _needed() if Path("/tmp") in path.parents]


def _closed() -> list[str]:
    """The outermost folder above Python or the checkout that others may not enter, and which of the two are in it."""
    needed = _needed()
    above = sorted({parent for path in needed for parent in path.parents}, key=lambda path: len(path.parts))
    closed = next((path for path in above if not path.stat().st_mode & stat.S_IXOTH), None)
    return [] if closed is None else [str(closed), *(str(path) for path in needed if closed in path.parents)]
