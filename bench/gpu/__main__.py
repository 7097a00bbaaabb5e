"""`python -m bench.gpu --out DIR --minutes M`: what a machine with a GPU is asked, as much as fits into the minutes.

Each part is a process of its own with a share of the time: one that crashes or hangs is reported and the rest goes on.
One JSON file a part is written as results arrive, and summary.json. The exit code is 0 wherever the command itself
worked, whatever the figures say. `--write DIR` puts the JSON of a folder into bench/results/gpu and docs/gpu.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import jobs
from bench.gpu.plan import GRACE_S, PARTS, RESERVE_S, Part, share
from bench.gpu.record import ROOT, read_json, write_json

TAIL = 25  # lines of a part's output that are kept
MARGIN_S = 2.0  # that a part thinks it has less, to end by itself


def main(arguments: Sequence[str], parts: Mapping[str, Part] = PARTS) -> int:
    started = time.monotonic()
    given = _parse(arguments, parts)
    if given.write is not None:
        from bench.gpu.page import write

        write(given.write, ROOT)
        return 0
    for folder in (given.out, given.work):
        folder.mkdir(parents=True, exist_ok=True)
    end = started + 60 * given.minutes - RESERVE_S
    waiting = {name: part for name, part in parts.items() if name in given.parts and name not in given.skip}
    summary: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "minutes": given.minutes, "device": given.device,
        "small": given.small, "parts": {name: {"status": "skipped"} for name in parts},
    }  # fmt: skip
    while waiting:
        name, part = next(iter(waiting.items()))
        seconds = share(waiting, end - time.monotonic()).get(name)
        if seconds is None:
            print(f"{name}: not run: time", flush=True)
            summary["parts"][name] = {"status": "not run: time"}
        else:
            print(f"{name}: {seconds:.0f} s", flush=True)
            summary["parts"][name] = _run(name, part, given, seconds, end)
        del waiting[name]
        write_json(given.out / "summary.json", summary | _checks(given.out, parts))
    write_json(given.out / "summary.json", summary | _checks(given.out, parts))
    states = ", ".join(f"{name} {found['status']}" for name, found in summary["parts"].items())
    print(f"summary: {states}; {time.monotonic() - started:.0f} s, {given.out / 'summary.json'}", flush=True)
    for failure in _checks(given.out, parts)["failed"]:
        print(f"FAIL {failure}", flush=True)
    return 0


def _parse(arguments: Sequence[str], parts: Mapping[str, Part]) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        if unknown := set(found) - set(parts):
            raise argparse.ArgumentTypeError(f"no part {min(unknown)!r}; the parts are {', '.join(parts)}")
        return found

    def minutes(text: str) -> float:
        if not 0 < float(text) < 1e6:
            raise ValueError
        return float(text)

    work = Path(tempfile.gettempdir()) / f"bench-gpu-{os.getuid()}"
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of the JSON files; it goes on with what is there")
    parser.add_argument("--minutes", type=minutes, default=8.0, help="of the whole command (default: 8)")
    parser.add_argument("--parts", type=names, default=list(parts), help=f"of {','.join(parts)} (default: all)")
    parser.add_argument("--skip", type=names, default=[], help="parts to leave out")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command itself")
    parser.add_argument("--small", action="store_true", help="all sizes shrunk, to try the command itself")
    parser.add_argument("--work", type=Path, default=work, help=f"folder of data and runs (default: {work})")
    parser.add_argument("--write", type=Path, metavar="DIR", help="no run: puts the JSON of DIR into docs/gpu.md")
    given = parser.parse_args(arguments)
    if given.out is None and given.write is None:
        parser.error("name a folder for the JSON files: --out DIR")
    for name in ("out", "work"):
        if getattr(given, name) is not None:
            setattr(given, name, getattr(given, name).resolve())
    return given


def _run(name: str, part: Part, given: argparse.Namespace, seconds: float, end: float) -> dict[str, Any]:
    """Runs a part to its end or its limit; how it went, which is added to its file too."""
    told = f"{max(seconds - MARGIN_S, 1):.1f}"
    words = ["--out", given.out, "--work", given.work, "--device", given.device, "--seconds", told]
    command = [sys.executable, "-u", "-m", "bench.gpu.part", os.getpid(), name, part.module, *words]
    begun, path = time.monotonic(), given.out / f"{name}.json"
    if not part.goes_on:
        path.unlink(missing_ok=True)  # what an earlier command found is not this one's
    # Small tensors on a CPU: more threads only get in each other's way.
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if given.device == "cpu" else {})
    process = subprocess.Popen(
        [*map(str, command), *["--small"] * given.small], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    tail: deque[str] = deque(maxlen=TAIL)
    reader = threading.Thread(target=_follow, args=(process, name, tail), daemon=True)
    reader.start()
    try:
        code = process.wait(max(min(begun + seconds + GRACE_S, end) - begun, 0.1))
        status = "done" if code == 0 else f"failed: exit code {code}"
    except subprocess.TimeoutExpired:
        status = "stopped: time"
    finally:
        jobs.end(process)  # and whatever it has started
    reader.join(5)
    taken = round(time.monotonic() - begun, 1)
    found = read_json(path) or {"part": name, "device": given.device, "small": given.small, "results": {}}
    write_json(path, found | {"status": status, "seconds": taken, "tail": [] if status == "done" else list(tail)})
    if status != "done":
        print(f"{name}: {status}", flush=True)
    return {"status": status, "seconds": taken, "not_run": found.get("not_run", {})}


def _follow(process: subprocess.Popen, name: str, tail: deque[str]) -> None:
    """Passes on what a part says in its own name; all else it prints is kept for the case that it fails."""
    assert process.stdout is not None
    for line in process.stdout:
        tail.append(line.rstrip()[:400])
        if line.startswith(f"{name}: "):
            print(line, end="", flush=True)


def _checks(out: Path, parts: Mapping[str, Part]) -> dict[str, Any]:
    """How many checks there are in the files, and those that failed."""
    failed, count = [], 0
    for name in parts:
        for check, found in read_json(out / f"{name}.json").get("results", {}).get("checks", {}).items():
            count += 1
            if not found["passed"]:
                failed.append(f"{name}: {check}: {found['text']}")
    return {"checks": count, "failed": failed}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
