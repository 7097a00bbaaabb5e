"""What a run outlasts: `python bench/faults.py worker hang`, or `--all`. `--write` puts the table into docs/faults.md.

Each fault is done to a run of the recipe `tiny` on two workers, without dropout. The run has to come to its end by
itself, or by the same command again if its driver has gone, with the losses, gradient norms and last weights of a run
that was left alone. Exit code 1 if one does not.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.disturbed.run import EVERY, Run  # noqa: E402
from cluster.training import checkpoint  # noqa: E402
from shards.errors import DataError, Parser, run_main  # noqa: E402
from shards.format.whole_files import PARTIAL, write_whole  # noqa: E402

PAGE, RESULTS = ROOT / "docs" / "faults.md", ROOT / "bench" / "results" / "faults.json"
BEGIN, END = "<!-- faults -->", "<!-- end -->"


@dataclass(frozen=True)
class Found:
    """What became of a run. Seconds are counted from the fault."""

    fault: str
    noticed_s: float | None = None  # until the run said so
    again_s: float | None = None  # until it did a step further than it had come
    repeated: int | None = None  # steps done twice
    equal: bool = False  # losses, gradient norms and last weights
    said: str = ""


class Bench:
    """The faults, and the run that was left alone."""

    def __init__(self, root: Path, kills: int) -> None:
        self._root, self._kills = root, kills
        self._alone = Run(root, "alone")
        self._alone.end()

    def _run(self, name: str, *more: str) -> Run:
        return Run(self._root, name, *more)

    def _ended(self, run: Run, fault: str, since: float | None = None, said: str = "") -> Found:
        """Waits for the end of a run that was disturbed once, at the clock's time `since`, and compares it."""
        noticed = again = repeated = None
        if since is not None:
            run.wait(lambda: run.restarts())
            (line,) = run.restarts()
            noticed, said = datetime.fromisoformat(line["time"]).timestamp() - since, line["line"]
            before = line["reached"][1]
            repeated = before - run.newest().commit.step
            run.wait(lambda: run.reached() > before)
            again = time.time() - since
        run.end()
        return Found(fault, noticed, again, repeated, self._equal(run), said)

    def _equal(self, run: Run) -> bool:
        weights = [one.newest().weights.read_bytes() for one in (run, self._alone)]
        return run.records() == self._alone.records() and weights[0] == weights[1]

    def worker(self) -> Found:
        """kill -9 of a worker"""
        run = self._run("worker")
        run.wait(lambda: run.reached() >= 45)
        os.kill(run.worker(1), signal.SIGKILL)
        return self._ended(run, "worker", time.time())

    def hang(self) -> Found:
        """SIGSTOP of a worker"""
        run = self._run("hang")
        run.wait(lambda: run.reached() >= 45)
        os.kill(run.worker(0), signal.SIGSTOP)
        return self._ended(run, "hang", time.time())

    def driver(self) -> Found:
        """kill -9 of the driver, and the same command again"""
        run = self._run("driver")
        run.wait(lambda: run.reached() >= 45)
        run.kill()
        since, before = time.time(), run.reached()
        repeated = before - run.newest().commit.step
        run.start()
        run.wait(lambda: run.reached() < before)  # its log is cut back to the checkpoint
        run.wait(lambda: run.reached() > before)
        again = time.time() - since
        run.end()
        return Found("driver", None, again, repeated, self._equal(run))

    def stop(self) -> Found:
        """SIGTERM at the driver, and the same command again"""
        run = self._run("stop")
        run.wait(lambda: run.reached() >= 45)
        since = time.time()
        run.driver.send_signal(signal.SIGTERM)
        run.end(85)
        noticed, before, said = time.time() - since, run.reached(), run.last_line()
        repeated = before - run.newest().commit.step
        run.start()
        run.end()
        return Found("stop", noticed, None, repeated, self._equal(run), said)

    def twice(self) -> Found:
        """a second driver on the same run folder"""
        run = self._run("twice")
        run.wait(lambda: run.reached() >= 10)
        first = run.driver
        run.start()
        run.end(2)
        said, run.driver = run.last_line(), first
        run.end()
        return Found("twice", None, None, 0, self._equal(run), said)

    def half(self) -> Found:
        """kill -9 of the driver, which leaves the next two checkpoints half-written, and the same command again"""
        run = self._run("half")
        run.wait(lambda: run.reached() >= 45)
        run.kill()
        newest = run.newest()
        for number, ending in ((1, PARTIAL), (2, "")):
            left = newest.folder.with_name(f"step_{newest.commit.step + number * EVERY:08d}{ending}")
            shutil.copytree(newest.folder, left, dirs_exist_ok=True)
            (left / checkpoint.COMMIT).unlink()
            next(left.glob("optimizer-*")).unlink()
        run.start()
        run.end()
        return Found("half", None, None, None, self._equal(run))

    def byte(self) -> Found:
        """a byte flipped in the newest checkpoint, in each kind of file in turn, and the same command again"""
        said, equal = [], True
        for kind in ("weights", "optimizer", "COMMIT"):
            run = self._run(f"byte-{kind}", "--finetune.keep", "9")
            run.wait(lambda run=run: run.reached() >= 45)
            run.kill()
            path = next(run.newest().folder.glob(f"{kind}*"))
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            run.start()
            run.end()
            named = f"{path.parent.name} is left out" in run.said()
            said.append(f"{path.name} {'named' if named else 'NOT named'}")
            equal = equal and named and self._equal(run)
        return Found("byte", None, None, None, equal, "; ".join(said))

    def writing(self) -> Found:
        """kill -9 of a worker at random moments while checkpoints are written, one after each step"""
        moments = random.Random(0)
        run = self._run("writing", "--finetune.checkpoint_every", "1", "--cluster.restarts", str(self._kills))
        for number in range(self._kills):
            before = run.reached() + 2
            run.wait(lambda before=before, number=number: run.reached() >= before and len(run.restarts()) == number)
            time.sleep(moments.uniform(0, 0.1))
            os.kill(run.worker(number % 2), signal.SIGKILL)
            run.wait(lambda number=number: len(run.restarts()) > number)
        run.end()
        damaged = [one for one in checkpoint.find(run.newest().folder.parent) if checkpoint.damage(one)]
        return Found("writing", None, None, None, self._equal(run) and not damaged, f"{self._kills} kills")

    def node(self) -> Found:
        """kill -9 of a node's raylet, of two nodes with a worker each: one worker goes on, within 1e-5"""
        from ray.cluster_utils import Cluster

        store = {"object_store_memory": 128 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store})
        try:
            other = cluster.add_node(num_cpus=1, **store)
            os.environ["RAY_ADDRESS"] = cluster.address
            run = self._run("node", "--cluster.workers", "1..2")
            run.wait(lambda: run.reached() >= 45)
            since = time.time()
            cluster.remove_node(other, allow_graceful=False)
            found = self._ended(run, "node", since)
        finally:
            os.environ.pop("RAY_ADDRESS", None)
            cluster.shutdown()
        off = _difference(run.records(), self._alone.records())
        return replace(found, equal=off < 1e-5, said=f"largest difference {off:.1g}; {found.said}")


def _difference(one: list[dict], other: list[dict]) -> float:
    """The largest relative difference of a loss or gradient norm, step by step."""
    found = 0.0
    for mine, theirs in zip(one, other, strict=True):
        pairs = [(mine["grad_norm"], theirs["grad_norm"])] + [
            (mine["loss"][k], theirs["loss"][k]) for k in mine["loss"]
        ]
        found = max(found, *(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs))
    return found


FAULTS = ("worker", "hang", "driver", "stop", "twice", "half", "byte", "node", "writing")


def table(found: Sequence[Found]) -> str:
    """Of docs/faults.md."""

    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    lines = ["| fault | noticed, s | trains again, s | steps repeated | equal | it said |", "|---|---|---|---|---|---|"]
    for one in found:
        what = " ".join((getattr(Bench, one.fault).__doc__ or "").split())
        cells = (what, number(one.noticed_s, 1), number(one.again_s, 1), number(one.repeated, 0),
                 "yes" if one.equal else "**no**", one.said.replace("|", "/"))  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(found: Sequence[Found]) -> None:
    """Keeps these results beside those of other faults, and makes the table of the page anew."""
    saved = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    day = {"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count()}
    saved |= {one.fault: day | {"found": asdict(one)} for one in found}
    write_whole(RESULTS, json.dumps(saved, indent=1) + "\n")
    head, tail = PAGE.read_text().partition(BEGIN)[0], PAGE.read_text().partition(END)[2]
    shown = [Found(**saved[name]["found"]) for name in FAULTS if name in saved]
    write_whole(PAGE, f"{head}{BEGIN}\n\n{table(shown)}\n{END}{tail}")


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = Parser(prog="bench/faults.py", description="What a run outlasts, and how long it takes.")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"any of {', '.join(FAULTS)}")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--kills", type=int, default=10, help="of the fault writing (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"keep the results, and put them into {PAGE.name}")
    options = parser.parse_args(arguments)
    names = FAULTS if options.all else options.faults
    if unknown := sorted(set(names) - set(FAULTS)):
        raise DataError(f"{unknown[0]} is no fault: {', '.join(FAULTS)}")
    if not names:
        raise DataError("name a fault, or --all")
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        bench, found = Bench(root, options.kills), []
        for name in names:
            found.append(getattr(bench, name)())
            print(json.dumps(asdict(found[-1])), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if options.write:
        write(found)
    return 0 if all(one.equal for one in found) else 1


if __name__ == "__main__":
    run_main(main)
