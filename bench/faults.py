"""What a run outlasts: `python bench/faults.py worker hang`, or `--all`. `--write` puts the table into docs/faults.md.

Each fault is done to a run of the recipe `tiny` on two workers, without dropout. The run has to come to its end by
itself, or by the same command again if it has ended, with the losses, gradient norms and last weights of a run that
was left alone. Exit code 1 if one does not. The faults are in bench/disturbed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.disturbed import checkpoints, data, machines, processes  # noqa: E402
from bench.disturbed.compare import Bench, Fault, Found  # noqa: E402
from shards.errors import DataError, Parser, run_main  # noqa: E402
from shards.format.whole_files import write_whole  # noqa: E402

PAGE, RESULTS = ROOT / "docs" / "faults.md", ROOT / "bench" / "results" / "faults.json"
BEGIN, END = "<!-- faults -->", "<!-- end -->"
MOUNTS = "FAULTS_MOUNTS"  # set where the mounts of this process are its own
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        processes.worker, processes.hang, processes.driver, processes.stop, processes.twice, processes.kills,
        checkpoints.half, checkpoints.byte, checkpoints.full, checkpoints.writing,
        data.nan, data.spike, data.shard, data.store, data.read,
        machines.node, machines.drain,
    )
}  # fmt: skip


def table(found: Sequence[Found]) -> str:
    """Of docs/faults.md."""

    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    lines = ["| fault | noticed, s | trains again, s | steps repeated | equal | it said |", "|---|---|---|---|---|---|"]
    for one in found:
        what = " ".join((FAULTS[one.fault].__doc__ or "").split())
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
    parser.add_argument("--write", action="store_true", help=f"keep the results, and put them into {PAGE.name}")
    options = parser.parse_args(arguments)
    names = list(FAULTS) if options.all else options.faults
    if unknown := sorted(set(names) - set(FAULTS)):
        raise DataError(f"{unknown[0]} is no fault: {', '.join(FAULTS)}")
    if not names:
        raise DataError("name a fault, or --all")
    if "full" in names and not os.environ.get(MOUNTS):
        _with_own_mounts(arguments)
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        bench, found = Bench(root), []
        for name in names:
            made = bench.of(FAULTS[name])
            found.append(replace(made, said=made.said.replace(f"{root}/", "")))  # its folder is gone when it is read
            print(json.dumps(asdict(found[-1])), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if options.write:
        write(found)
    return 0 if all(one.equal for one in found) else 1


def _with_own_mounts(arguments: Sequence[str]) -> None:
    """Begins this command anew where what it mounts is seen by nobody else and goes with it."""
    if not shutil.which("unshare"):
        raise DataError("the fault full needs the program unshare, of util-linux: leave it out")
    os.environ[MOUNTS] = "1"
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    os.execvp("unshare", ["unshare", *user, "--mount", sys.executable, __file__, *arguments])


if __name__ == "__main__":
    run_main(main)
