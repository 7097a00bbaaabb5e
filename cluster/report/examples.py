"""A few pairs of the test split as plain files in the run folder: what `idc.demo` offers to try the model with."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from cluster.evaluation.scores import change_of, type_of
from shards.reading.reader import IMAGES, Stream

FOLDER = "examples"
COUNT = 8


def write_examples(run: Path, predictions: Sequence[Mapping[str, Any]], stream: Stream) -> Path:
    """Writes run/examples/before/ and after/, in place of earlier ones, and returns the folder; files are as packed.

    predictions: of the pairs of `stream`, in their order. The first of each kind of change come in turn, and files have
    its name.
    """
    by_kind: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for prediction in predictions:
        changed = {True: "changed", False: "unchanged", None: "pair"}[change_of(prediction)]
        kind = re.sub(r"\W", "_", type_of(prediction) or changed)
        by_kind[kind].append((kind, prediction["key"]))
    in_turn = [pair for pair in chain.from_iterable(zip_longest(*by_kind.values())) if pair is not None]
    folder = run / FOLDER
    partial = folder.with_name(FOLDER + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for number, (kind, key) in enumerate(in_turn[:COUNT], start=1):
        for suffix, data in stream.read(stream.find(key)).items():
            role, ending = os.path.splitext(suffix)
            if ending in IMAGES:
                (partial / role).mkdir(parents=True, exist_ok=True)
                (partial / role / f"{number}-{kind}{ending}").write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return folder
