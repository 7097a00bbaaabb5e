"""Every command of every page is taken by the parser that will read it, and the cheap ones run."""

from __future__ import annotations

import argparse
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages.doc_pages import CURRENT, ROOT, commands

from bench import ablation
from bench.ablations import page as ablation_page
from cluster import plan
from cluster.config.options import to_yaml
from cluster.recipes import commandline as training
from cluster.recipes.registry import RECIPES
from tune import commandline as sweeping

ELSEWHERE = {  # run by test_contributing.py, by test_comparing.py
    "python -m shards.pack twins --root TWINS --out data/twins",
    "python methods.py CLEVR .",
}
COMMANDS = [
    pytest.param(page, line, id=f"{page} {line[:60]}")
    for page in CURRENT
    for line in commands(page)
    if line not in ELSEWHERE
]
# Programs of others, and what the shell does by itself: nothing of ours reads their arguments.
FOREIGN = {"export", "cd", "git", "open", ".", "source", "ssh"}
RAN = (
    r"python cluster/train\.py --help|python -m idc\.reference tests/data/\S+\.npz|make -n \w+"
    r"|python -m cluster\S*\.options_page.*|python -m shards\.pack|python -m pytest --collect-only .*"
)
LIMIT_S = 300


class Parsed(BaseException):
    """Raised in the place of what a command does after its arguments were read."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pages name: the configuration of a run, and a sweep that was begun."""
    root = tmp_path_factory.mktemp("home")
    run = root / "runs" / "blocks"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(RECIPES["blocks"]()))
    sweeping.save(sweeping.parse(["blocks", "--root", str(root)]))
    return root


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which commands are read."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def stop_when_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *arguments, **keywords):
        raise Parsed(parse_args(self, *arguments, **keywords))

    def begin(*arguments) -> None:
        raise Parsed(arguments)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    # This one reads its arguments by itself.
    monkeypatch.setattr(ablation, "Bench", begin)
    monkeypatch.setattr(ablation_page, "write", begin)


@pytest.mark.timeout(60)  # nothing but arguments is read
@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_the_command_is_understood(page: str, line: str, folder: Path, stop_when_parsed, monkeypatch) -> None:
    understand(shlex.split(line, comments=True), folder, monkeypatch)


def understand(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a command, split into words, would not be taken."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    words = [re.sub(r"^\.venv/bin/", "", words[0]), *words[1:]]
    if ">" in words:
        words = words[: words.index(">")]
    program, *rest = words
    if program == "python" and rest[0] == "-m":
        _module(rest[1], rest[2:], monkeypatch)
    elif program == "python":
        _script(rest[0], rest[1:], folder, monkeypatch)
    elif program in ("sbatch", "slurm/dryrun.sh") or program.startswith("slurm/"):
        script = next(number for number, word in enumerate(words) if re.fullmatch(r"slurm/\w+\.sh", word))
        script += program == "slurm/dryrun.sh"
        while words[script].startswith("--"):
            script += 1
        assert (ROOT / words[script]).is_file()
        if words[script].endswith("doctor.sh"):
            _module("cluster.doctor", words[script + 1 :], monkeypatch)
        else:
            _driver("tune" if words[script].endswith("sweep.sh") else "cluster", words[script + 1 :], folder)
    elif program == "ray" and rest[:2] == ["job", "submit"]:
        own = rest[: rest.index("--")]
        if "--runtime-env-json" in own:
            json.loads(own[own.index("--runtime-env-json") + 1])
        understand(rest[rest.index("--") + 1 :], folder, monkeypatch)
    elif program == "make":
        targets = [word for word in rest if not word.startswith("-") and "=" not in word]
        assert set(targets) <= set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    elif program in ("docker", "apptainer") and "idc-train" in rest:
        _driver("cluster", rest[rest.index("idc-train") + 1 :], folder)
    elif program in ("docker", "apptainer"):
        file = rest[rest.index("-f") + 1] if "-f" in rest else rest[-1]
        assert rest[0] == "build" and (ROOT / file).is_file()
    elif program in ("kubectl", "cp", "chromium"):
        (file,) = [word for word in rest if "/" in word][:1]
        assert (ROOT / file).is_file()
    elif program == "pip":
        extras = re.findall(r"\[(\w+)\]", " ".join(rest))
        assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras)
    elif program == "ray":
        assert rest[0] in ("start", "stop", "status")
    else:
        assert program in FOREIGN, f"{program}: no test reads the arguments of this"


def _module(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "pytest":
        files = [word.partition("::")[0] for word in arguments if word.startswith("tests")]
        assert all((ROOT / file).exists() for file in files)
        return
    if name == "cluster.plan":
        training.parse(plan.split(arguments)[1])
        return
    if name in ("cluster.train", "tune.sweep"):
        _driver(name.partition(".")[0], arguments, Path.cwd())
        return
    if name.endswith(".options_page"):  # it has no arguments
        assert not arguments
        return
    if not arguments:  # such a command prints its help
        return
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(Parsed):
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def _script(path: str, arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ROOT / path).is_file()
    if path in ("cluster/train.py", "tune/sweep.py"):
        _driver(path.partition("/")[0], arguments, folder)
        return
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(Parsed):
        if path == "bench/ablation.py":
            ablation.main(arguments)
        else:
            runpy.run_path(str(ROOT / path), run_name="__main__")


def _driver(package: str, arguments: list[str], folder: Path) -> None:
    if package == "tune":
        begun = {"--add", "--resume"} & set(arguments)
        root = folder if begun else folder / "another"
        assert sweeping.parse([*arguments, "--root", str(root)]).target > 0
    else:
        training.parse(arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "line"), [one for one in COMMANDS if re.fullmatch(RAN, one.values[1].partition("#")[0].strip())]
)
def test_the_cheap_command_runs(page: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0], comments=True)
    words[0] = sys.executable if words[0] == "python" else shutil.which(words[0])
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    # Without arguments `shards.pack` prints its help, and says by its exit code that something is missing.
    assert done.returncode == (2 if words[1:] == ["-m", "shards.pack"] else 0), done.stderr


def test_a_command_that_would_not_be_taken_is_found(folder: Path, stop_when_parsed, monkeypatch) -> None:
    for line in (
        "python cluster/train.py --finetune.lrr 1",
        "python -m shards.verify",
        "python -m shards.pack blocks --outt data/blocks",
        "python -m idc.caption --checkpoint runs/blocks",
        "python tune/sweep.py nothing",
        "sbatch slurm/nothing.sh",
        "make nothing",
        "nothing at all",
    ):
        with pytest.raises((AssertionError, ValueError, SystemExit, StopIteration)):
            if line == "python -m shards.verify":
                monkeypatch.setattr(sys, "argv", ["shards.verify"])
                runpy.run_module("shards.verify", run_name="__main__", alter_sys=True)
            else:
                understand(shlex.split(line), folder, monkeypatch)
