"""Samples that cannot be read while training: told to all workers, logged once, and past a limit the end of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cluster.distributed.ranks import Ranks
from cluster.tracking.run_log import RunLog, read_metrics
from shards.errors import DataError

NAMED = 3  # in the message that ends a run


class Bad(NamedTuple):
    """A sample that another one stood in for: its stream ("pair samples of train in blocks"), its key, and why."""

    stream: str
    key: str
    why: str


class BadSamples:
    """The distinct bad samples of a run so far, the same on every worker.

    Which samples a step meets is a function of the step, and what is known lies in metrics.jsonl, which a resumed run
    cuts back to its checkpoint: so the run stops at the same step on any number of workers, resumed or not.
    """

    def __init__(
        self, run: Path, stage: str, sizes: Mapping[str, int], share: float, ranks: Ranks, log: RunLog | None
    ) -> None:
        """`sizes`: samples of each stream; `share`: data.bad_samples. All workers make one, after RunLog.rewind."""
        self._stage, self._sizes, self._share, self._ranks, self._log = stage, sizes, share, ranks, log
        self._noted: list[tuple[int, str, str, str]] = []
        read = [Bad(**record["bad_sample"]) for record in read_metrics(run) if "bad_sample" in record]
        self._known = {bad[:2]: bad for bad in ranks.share(read)}

    def note(self, step: int, found: list[Bad]) -> None:
        """What this worker found bad in a step; told to the others by `meet`."""
        self._noted += [(step, *bad) for bad in found]

    def meet(self) -> None:
        """Takes what all workers have noted; all call it after the same step. DataError, on all, past the limit.

        A stream may have `share` of its samples bad, and at least one unless the share is 0.
        """
        if not self._ranks.total([len(self._noted)])[0]:
            return
        noted, self._noted = self._ranks.gather(self._noted), []
        last = max(step for step, *_ in noted)
        for step, *named in sorted(set(noted)):
            bad = Bad(*named)
            if bad[:2] in self._known:
                continue
            self._known[bad[:2]] = bad
            if self._log is not None:
                self._log.write({"stage": self._stage, "step": step, "bad_sample": bad._asdict()})
        for stream, size in self._sizes.items():
            mine = [bad for bad in self._known.values() if bad.stream == stream]
            allowed = max(1, int(self._share * size)) if self._share else 0
            if len(mine) > allowed:
                raise DataError(
                    f"{self._stage} step {last}: {len(mine)} of {size} {stream} are bad and --data.bad_samples "
                    f"{self._share:g} allows {allowed}: " + "; ".join(f"{bad.key} ({bad.why})" for bad in mine[:NAMED])
                )
