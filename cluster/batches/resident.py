"""Cached grid features held in memory, a GPU's or the worker's: a step then gathers rows and reads no file.

The features of CLEVR-Change at 7x7x2048 in float16 are 24 GB; on a GPU that holds them a batch is a gather of its rows
instead of 80 MB a step through host memory and the bus.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from shards.errors import DataError
from shards.reading.reader import Folder

READERS = 8  # threads: reading, checking and hashing let go of the interpreter
FIRST_ROOM = 256  # images
ROWS = "_feature_rows"  # batches carry before_feature_rows (B,) in place of before (B, N, F)
SHARE = 0.5  # of the free memory of a GPU that `auto` fills with features

Rows = dict[str, np.int64]


class Resident:
    """One table (images, N, F) of float16 on a device; equal images, as pairs of one scene have, are held once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._table: Tensor | None = None
        self._row_of: dict[bytes, int] = {}  # by digest of an image's features
        self._streams: dict[str, list[Rows | DataError]] = {}
        self._lock = threading.Lock()

    def rows(
        self,
        name: str,
        size: int,
        read: Callable[[int], Mapping[str, np.ndarray]],
        condemn: Callable[[int, DataError], None],
    ) -> list[Rows | DataError]:
        """For each sample of the stream `name` {"before_feature_rows": row, ...}; what is not here yet is read first.

        read(i): features (N, F) float16 of sample i by role. Samples that cannot be read are told to `condemn`.
        """
        if name not in self._streams:
            with ThreadPoolExecutor(READERS) as pool:
                self._streams[name] = list(pool.map(lambda i: self._load(read, i), range(size)))
        for i, found in enumerate(self._streams[name]):
            if isinstance(found, DataError):
                condemn(i, found)
        return self._streams[name]

    def _load(self, read: Callable[[int], Mapping[str, np.ndarray]], i: int) -> Rows | DataError:
        try:
            return {role + ROWS: np.int64(self._row(array)) for role, array in read(i).items()}
        except DataError as error:
            return error

    def _row(self, array: np.ndarray) -> int:
        array = np.array(array, dtype=np.float16)
        digest = hashlib.blake2b(array.data, digest_size=16).digest()
        with self._lock:
            if digest not in self._row_of:
                self._row_of[digest] = row = len(self._row_of)
                self._table = self._with_room(row, array.shape)
                self._table[row] = torch.from_numpy(array)
            return self._row_of[digest]

    def _with_room(self, row: int, shape: tuple[int, ...]) -> Tensor:
        """The table, grown by a quarter where it has no such row yet."""
        table = self._table
        if table is not None and row < len(table):
            return table
        larger = torch.empty(max(FIRST_ROOM, row + row // 4), *shape, dtype=torch.float16, device=self.device)
        if table is not None:
            larger[: len(table)] = table
        return larger

    def take(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch with features (B, N, F) float16 in place of the rows that name them, on the table's device."""
        assert self._table is not None, "features are read before a batch asks for them"
        return {
            name.removesuffix(ROWS): self._table.index_select(0, value) if name.endswith(ROWS) else value
            for name, value in batch.items()
        }


def choose(where: str, device: torch.device, folders: Iterable[Folder]) -> Resident | None:
    """The memory that `--data.features_on` names for these folders of features; None: the disk, as it is read.

    auto: the GPU's where all of them fit into half of what is free there, else the disk. DataError for a GPU that is
    not there.
    """
    if where == "gpu" and device.type != "cuda":
        raise DataError("--data.features_on gpu: the workers have no GPU; set it to cpu or disk")
    if where == "disk" or (where == "auto" and device.type != "cuda"):
        return None
    if where == "auto":
        needed = sum(shard["bytes"] for folder in folders for shard in folder.manifest["shards"])
        if needed > SHARE * torch.cuda.mem_get_info(device)[0]:
            return None
    return Resident(torch.device("cpu") if where == "cpu" else device)
