"""Processes of a run that die, stand still or are asked to stop."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time

from bench.disturbed.compare import Bench, Found
from bench.disturbed.run import STOPPED, Run
from cluster.tracking import goodput

KILLS, LONG, LONG_EVERY = 10, 3000, 25  # of the run that is killed often: kills, its steps, those between checkpoints
BAR = 0.85  # of the goodput that restart times allow


def worker(bench: Bench) -> Found:
    """kill -9 of a worker"""
    return _signalled(bench, "worker", 1, signal.SIGKILL)


def hang(bench: Bench) -> Found:
    """SIGSTOP of a worker"""
    return _signalled(bench, "hang", 0, signal.SIGSTOP)


def _signalled(bench: Bench, fault: str, rank: int, number: signal.Signals) -> Found:
    run = bench.run(fault)
    run.wait(lambda: run.reached() >= 45)
    since = time.time()
    os.kill(run.worker(rank), number)
    return bench.restarted(run, fault, since)


def driver(bench: Bench) -> Found:
    """kill -9 of the driver, and the same command again"""
    run = bench.run("driver")
    run.wait(lambda: run.reached() >= 45)
    run.kill()
    repeated, again = bench.again(run)
    run.end()
    return Found("driver", None, again, repeated, bench.equal(run))


def stop(bench: Bench) -> Found:
    """SIGTERM at the driver, and the same command again"""
    run = bench.run("stop")
    run.wait(lambda: run.reached() >= 45)
    since = time.time()
    run.driver.send_signal(signal.SIGTERM)
    run.end(STOPPED)
    noticed, said = time.time() - since, run.last_line()
    repeated, again = bench.again(run)
    run.end()
    return Found("stop", noticed, again, repeated, bench.equal(run), said)


def twice(bench: Bench) -> Found:
    """a second driver on the same run folder"""
    run = bench.run("twice")
    run.wait(lambda: run.reached() >= 10)
    first, since = run.driver, time.time()
    run.start()
    run.end(2)
    noticed, said, run.driver = time.time() - since, run.last_line(), first
    run.end()
    return Found("twice", noticed, None, 0, bench.equal(run), said)


def kills(bench: Bench) -> Found:
    """kill -9 of a worker at ten random moments of a longer run; its goodput"""
    options = "--finetune.steps", str(LONG), "--finetune.checkpoint_every", str(LONG_EVERY)
    calm = bench.run("kills-calm", *options)
    calm.end()
    moments = random.Random(0)
    run = bench.run("kills", *options, "--cluster.restarts", str(KILLS))
    times, repeated = [], 0
    for number, step in enumerate(sorted(moments.sample(range(LONG_EVERY, LONG - LONG_EVERY), KILLS)), start=1):
        run.wait(lambda step=step: run.reached() >= step)
        time.sleep(moments.uniform(0, 0.1))
        since = time.time()
        os.kill(run.worker(moments.randrange(2)), signal.SIGKILL)
        run.wait(lambda number=number: len(run.restarts()) == number)
        before = run.restarts()[-1]["reached"][1]
        repeated += before - run.newest().commit.step
        run.wait(lambda before=before: run.reached() > before)
        times.append(time.time() - since)
    run.end()
    (step_s, wall_s), (calm_step_s, calm_wall_s) = _times(run), _times(calm)
    restart = statistics.median(times)
    reached, allowed = step_s / wall_s, calm_step_s / (calm_wall_s + KILLS * restart)
    said = (
        f"goodput {reached:.2f}, and {allowed:.2f} is what {KILLS} restarts of {restart:.1f} s (the median) allow; "
        f"{calm_step_s / calm_wall_s:.2f} without a fault"
    )
    return Found("kills", None, restart, repeated, bench.equal(run, calm) and reached >= BAR * allowed, said)


def _times(run: Run) -> tuple[float, float]:
    """Seconds of the steps that count, and of the whole training."""
    found = json.loads((run.folder / goodput.FILE).read_bytes())
    return found["step_s"], found["wall_s"]
