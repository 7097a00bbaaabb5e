"""Workers that stand still are found, named and, if they do not answer, ended; the others say where they stand."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from cluster.distributed import beat
from cluster.tracking.worker_logs import keep_output, log_of

TIMEOUT_S = 5.0


@pytest.mark.ray
def test_who_stands_still_is_named_and_the_stacks_are_kept(head: str, tmp_path: Path) -> None:
    import ray
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker, Worker

    from cluster.launch.watch import SHARE, Watch

    ray.init(address=head, logging_level="ERROR", log_to_driver=False)
    try:
        actors = [ray.remote(num_cpus=1)(RayTrainWorker).remote() for _ in range(2)]
        workers = [Worker(actor, ray.get(actor.get_metadata.remote()), {"CPU": 1}) for actor in actors]

        def on(rank: int, *call: object) -> None:
            ray.get(workers[rank].execute_async(*call), timeout=30)

        def until_said(watch: Watch) -> tuple[str, float]:
            since = time.monotonic()
            while not (said := watch.look()):
                assert time.monotonic() - since < 30
                time.sleep(0.05)
            return said, time.monotonic() - since

        for rank in range(2):
            on(rank, keep_output, tmp_path, rank, "cpu")
        # One has done a step that the other has not: it waits for it.
        on(0, beat.stepped, "finetune", 12)
        on(1, beat.stepped, "finetune", 11)
        said, seconds = until_said(Watch(TIMEOUT_S, workers))
        assert said.startswith("no step was done for ") and "after finetune step 11, and worker 1 on " in said
        assert said.endswith("is behind the others") and seconds < TIMEOUT_S + 2
        for rank in range(2):
            log = log_of(tmp_path, rank).read_text()
            assert "where all threads of this process stand, because no step was done" in log and "Thread 0x" in log

        # Before the first step of a stage there is more time; a process that does not answer is found all the same.
        for rank in range(2):
            on(rank, beat.left_stage)
        watch = Watch(TIMEOUT_S, workers)
        while len(watch.beats) < 2:
            assert not watch.look()
            time.sleep(0.05)
        frozen = workers[1].metadata.pid
        os.kill(frozen, signal.SIGSTOP)
        said, seconds = until_said(watch)
        assert "worker 1 on " in said and "does not answer for" in said and "worker 0" not in said
        assert SHARE * TIMEOUT_S - 1 < seconds < TIMEOUT_S + 2
        psutil.wait_procs([psutil.Process(frozen)] if psutil.pid_exists(frozen) else [], timeout=20)
        assert not psutil.pid_exists(frozen)
        assert watch.places() == [], "no step was under way"
    finally:
        ray.shutdown()
