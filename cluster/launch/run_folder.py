"""The run folder `runs/NAME/`: where it lies, which configuration it belongs to, and where that came from."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.config.fields import DERIVED, LEFT_OPEN, Config, is_harmless, is_lowered
from cluster.config.options import differences, show, to_yaml
from cluster.errors import ConfigError
from cluster.launch import run_lock
from cluster.recipes.commandline import read_config
from cluster.tracking.run_log import PROVENANCE
from cluster.training import checkpoint
from shards.format.whole_files import write_whole

HOME_VARIABLE = "IDC_HOME"
CONFIG, DATA = "config.yaml", "data.json"
CHANGES = "changes.jsonl"  # a line an option that was lowered while its stage was under way
SCHEDULER_VARIABLES = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "RAY_ADDRESS")
GIT_LIMIT_S = 20
DISTRIBUTION, PACKAGES = "image-difference-captioning", ("idc", "shards", "cluster")


def find_root(option: str, code: Path) -> Path:
    """The folder of data/ and runs/: the option --root, else $IDC_HOME, else the checkout `code`.

    Code that is installed has no checkout: there it is the working folder. Inside `ray job submit --working-dir` the
    code is a copy that Ray deletes; there the last resort is ~/idc.
    """
    if option or os.environ.get(HOME_VARIABLE):
        return Path(option or os.environ[HOME_VARIABLE]).expanduser().resolve()
    if "runtime_resources" in code.parts:
        return Path.home() / "idc"
    return Path.cwd() if is_installed(code) else code


def is_installed(code: Path) -> bool:
    """True where our packages lie in `code` as pip puts them there: beside what it notes of them."""
    return any(code.glob("image_difference_captioning-*.dist-info"))


def check_run(root: Path, config: Config) -> Path:
    """The run folder root/runs/NAME, which need not exist yet. What the data decide is not looked at.

    Raises ConfigError where the folder was made with another configuration, naming the first field that differs. Fields
    that cannot change what is learned may differ, and so may those of a stage that has not begun. In one under
    way fields.LOWERED may be lower: what a run that diverged needs.
    """
    run = root / "runs" / config.name
    path = run / CONFIG
    if path.is_file():
        _check_same(run, config, read_config(path))
    elif run.is_dir() and any(not entry.name.startswith(run_lock.FILE) for entry in run.iterdir()):
        raise ConfigError(f"{run} is not a run folder (it has no {CONFIG}): choose another --name")
    return run


def open_run(run: Path, config: Config, fingerprint: dict[str, str]) -> None:
    """Makes or reopens a run folder that `check_run` let pass, and leaves `config` there.

    `fingerprint`: part of the data -> checksum of its manifest; ConfigError where training began with other data. What
    was lowered in a stage under way is noted in changes.jsonl, with the step from which it holds.
    """
    path = run / DATA
    if path.is_file() and _unbegun(run, config) != set(config.stages):
        saved = json.loads(path.read_bytes())
        changed = [name for name in fingerprint if saved.get(name) != fingerprint[name]]
        if changed:
            raise ConfigError(
                f"{run} was trained on other {changed[0]} than those that are there now: bring those back, or begin "
                f"anew with another --name"
            )
    run.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(fingerprint, indent=1) + "\n")
    _note_changes(run, config)
    write_whole(run / CONFIG, to_yaml(config))


def _unbegun(run: Path, config: Config) -> set[str]:
    return {name for name in config.stages if not checkpoint.find(run / "checkpoints" / name)}


def _check_same(run: Path, config: Config, saved: Config) -> None:
    unbegun = _unbegun(run, saved)
    if unbegun == set(saved.stages):
        return
    for name, new, old in differences(config, saved):
        if is_harmless(name) or name in DERIVED or name.partition(".")[0] in unbegun:
            continue
        if name in LEFT_OPEN and old == LEFT_OPEN[name]:
            continue
        if is_lowered(name, new, old) and _step_under_way(run, saved, name):
            continue
        raise ConfigError(
            f"{run} was made with --{name} {show(old)} and this command has {show(new)}: "
            f"give the old value to go on, or another --name to begin anew"
        )


def _step_under_way(run: Path, config: Config, option: str) -> int:
    """The step that the stage of an option is resumed at; 0 where it has not begun, or is over."""
    stage = option.partition(".")[0]
    newest = checkpoint.latest(run / "checkpoints" / stage) if stage in config.stages else None
    return newest.commit.step if newest and newest.commit.step < config.stage(stage).steps else 0


def _note_changes(run: Path, config: Config) -> None:
    """A line of changes.jsonl for each option that was lowered in a stage under way, and the same on stderr."""
    if not (run / CONFIG).is_file():
        return
    for option, new, old in differences(config, read_config(run / CONFIG)):
        step = _step_under_way(run, config, option) if is_lowered(option, new, old) else 0
        if step:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            record = {"time": now, "option": option, "old": old, "new": new, "step": step}
            with open(run / CHANGES, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(f"--{option} was {show(old)} and is {show(new)} from step {step} on ({CHANGES})", file=sys.stderr)


def with_root(config: Config, root: Path) -> Config:
    """The configuration with the root that it resolved to."""
    return dataclasses.replace(config, root=str(root))


def write_provenance(run: Path, code: Path) -> None:
    """provenance.json: one entry for each time the command was given; git state, packages, command and host."""
    path = run / PROVENANCE
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError):
        entries = []
    entries.append(
        {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": [sys.executable, *sys.argv],
            "host": socket.gethostname(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "git": None if is_installed(code) else git_state(code),
            "packages": _packages(),
            "scheduler": {name: os.environ[name] for name in SCHEDULER_VARIABLES if name in os.environ},
        }
    )
    write_whole(path, json.dumps(entries, indent=1, sort_keys=True) + "\n")


def _packages() -> dict[str, str]:
    """The version of each installed package; only the head of its metadata is read, the whole takes half a second."""
    found = {}
    for distribution in importlib.metadata.distributions():
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields = dict(re.findall(r"^(Name|Version): *(.*?)\s*$", text.partition("\n\n")[0], re.MULTILINE))
        if len(fields) == 2:
            found[fields["Name"]] = fields["Version"]
    return found


def code_state(code: Path) -> dict[str, Any]:
    """Which code it is: {"commit", "dirty", "version", "sha256"}.

    commit and dirty (whether files differ from it) are None outside a git checkout, version where the package is not
    installed. sha256 is of all Python files of PACKAGES, so that it tells code apart in any case.
    """
    git, digest = git_state(code), hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (code / package).rglob("*.py")):
        digest.update(f"{path.relative_to(code).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return {
        "commit": git and git["sha"],
        "dirty": git and bool(git["status"]),
        "version": version,
        "sha256": digest.hexdigest(),
    }


def git_state(code: Path) -> dict[str, str] | None:
    """The commit and what differs from it; None where the code is no git checkout or git is not there."""

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(code), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=GIT_LIMIT_S, check=True).stdout

    try:
        sha, status, diff = ask("rev-parse", "HEAD"), ask("status", "--short"), ask("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"sha": sha.strip(), "status": status, "diff": diff}
