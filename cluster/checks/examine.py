"""One examination of all nodes: their own checks, the folder that they share, their clocks, a sum over all of them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.checks.finding import MISS, OK, Finding, miss, ok, warn
from cluster.checks.nodes import CALL_S, Node, look_everywhere

OWN = ("packages", "gpus", "machine", "java", "slurm")  # of every node by itself
CALLS = 5  # the fastest tells the clock best
SKEW_S, FAR_S = 1.0, 300.0  # munge refuses a job, and S3 a request, at about the second
INSIDE = 0.8  # share of a check's limit after which its own waits end, so that they can say what they waited for
SAME = "install the same environment, and check out the same commit, on every node"


def examine(nodes: Sequence[Node], root: Path, shards: Sequence[str], limit_s: float) -> list[Finding]:
    """What is found on these nodes; each check has `limit_s` seconds."""
    common = {"root": str(root), "token": secrets.token_hex(6), "limit_s": INSIDE * limit_s}
    everyone = [f"node-{number}" for number in range(len(nodes))]

    def own(number: int) -> list[tuple[str, dict]]:
        jobs = [(name, common) for name in (*OWN, "folder")]
        jobs = [(name, {**one, "node": everyone[number]}) for name, one in jobs]
        return jobs + [("data", {**common, "shards": [place]}) for place in shards]

    try:
        first, answered = look_everywhere(nodes, own, limit_s)
        found = [one for several in first for one in several]
        wrote = [name for name, several in zip(everyone, first, strict=True) if _wrote(several)]
        if wrote:
            back = {**common, "nodes": wrote}
            found += _flat(look_everywhere(answered, lambda _: [("readback", back)], limit_s)[0])
    finally:
        look_everywhere(nodes, lambda _: [("tidy", common)], limit_s)
    found += _one_lock(first, root) + _differences(found)
    if len(nodes) > 1:
        found += _clocks(answered)
    return found + _sums(answered, found, limit_s) + _allocation(len(nodes))


def _wrote(several: Sequence[Finding]) -> bool:
    return any("first" in one.facts for one in several)


def _flat(several: Sequence[Sequence[Finding]]) -> list[Finding]:
    return [one for some in several for one in some]


def _one_lock(several: Sequence[Sequence[Finding]], root: Path) -> list[Finding]:
    """All nodes have tried for one lock: one of them has it."""
    got = [one for one in _flat(several) if one.facts.get("first")]
    if len(got) < 2:
        return []
    said = f"{root}: {', '.join(one.node for one in got)} all got one lock, so two runs could write into one folder"
    return [miss("folder", said, "name a folder that all nodes share by --root or IDC_HOME")]


def _differences(found: Sequence[Finding]) -> list[Finding]:
    """Packages and code that are not the same on all nodes."""
    values: dict[str, dict[Any, list[str]]] = {}
    for one in found:
        for name, version in (one.facts.get("versions") or {}).items():
            values.setdefault(name, {}).setdefault(version, []).append(one.node)
        if digest := one.facts.get("sha256"):
            values.setdefault("our code", {}).setdefault(digest[:10], []).append(one.node)
    differing = []
    for name, by_value in values.items():
        if len(by_value) > 1:
            said = ", ".join(f"{value} on {nodes[0]}" for value, nodes in by_value.items())
            differing.append(miss("packages", f"nodes differ in {name}: {said}", SAME))
    return differing


def _clocks(nodes: Sequence[Node]) -> list[Finding]:
    """Each node's clock against this process's, by the fastest of a few calls."""
    off: dict[str, tuple[float, float]] = {}  # seconds, and how well they are known
    for node in nodes:
        calls = []
        for _ in range(CALLS):
            before = time.time()
            try:
                there = node.call("clock").result(CALL_S)
            except TimeoutError:
                return [miss("clock", f"{node.name} did not say its time within {CALL_S} s", "look at its load")]
            after = time.time()
            calls.append((there - (before + after) / 2, (after - before) / 2))
        off[node.name] = min(calls, key=lambda call: call[1])
    values = [seconds for seconds, _ in off.values()]
    spread = max(values) - min(values) - sum(sorted(doubt for _, doubt in off.values())[-2:])
    far = max(off, key=lambda name: abs(off[name][0]))
    said = f"{max(spread, 0.0):.2f} s apart at least, {far} farthest from this machine's ({off[far][0]:+.2f} s)"
    if spread > SKEW_S:
        return [(miss if spread > FAR_S else warn)("clock", said, "run an NTP service (chrony) on every node")]
    return [ok("clock", f"the nodes' clocks agree within {max(values) - min(values):.3f} s")]


def _sums(nodes: Sequence[Node], found: Sequence[Finding], limit_s: float) -> list[Finding]:
    """A sum over ranks on all nodes: one a GPU; of a node without GPUs one, of a machine alone two."""
    gpus = {one.node: one.facts["gpus"] for one in found if "gpus" in one.facts}
    places: list[tuple[int, int | None]] = []  # (node, GPU or None) of each rank
    for number, node in enumerate(nodes):
        there: list[int | None] = list(range(gpus.get(node.name, 0)))
        places += [(number, gpu) for gpu in there or [None] * (2 if len(nodes) == 1 else 1)]
    if not places:
        return []
    try:
        port = nodes[0].call("free_port").result(CALL_S)
    except TimeoutError:
        return [miss("gloo", f"{nodes[0].name} named no free port within {CALL_S} s", "look at its load")]
    ranks = [
        {"rank": rank, "world": len(places), "address": nodes[0].address, "port": port, "gpu": gpu,
         "gpu_ranks": [r for r, (_, g) in enumerate(places) if g is not None], "limit_s": INSIDE * limit_s}
        for rank, (_, gpu) in enumerate(places)
    ]  # fmt: skip

    def mine(number: int) -> list[tuple[str, dict]]:
        return [("reduce", one) for one, (of, _) in zip(ranks, places, strict=True) if of == number]

    summed = _flat(look_everywhere(nodes, mine, limit_s)[0])
    bad = [one for one in summed if one.level == MISS]
    for backend in () if bad else ("gloo", "nccl"):
        right = [one for one in summed if one.check == backend]
        if right:
            slowest = max(one.facts["milliseconds"] for one in right)
            said = f"{right[0].found}, {len(nodes)} node{'s' * (len(nodes) > 1)}: 4 MiB in {slowest:g} ms"
            bad.append(replace(right[0], found=said, level=OK, node="", facts={"milliseconds": slowest}))
    return bad


def _allocation(nodes: int) -> list[Finding]:
    """The nodes of a Slurm job against those that were looked at."""
    granted = int(os.environ.get("SLURM_JOB_NUM_NODES") or 0)
    if granted <= nodes:
        return []
    fix = "sbatch slurm/doctor.sh looks at all of them"
    return [warn("slurm", f"{granted} nodes allocated, {nodes} looked at", fix)]
