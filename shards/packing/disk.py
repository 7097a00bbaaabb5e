"""A folder of this machine with the operations of an object store, for those that write into either."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shards.format.whole_files import sync_folder, write_whole


class Disk:
    """A local folder with the operations of object_store.Bucket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        """What is in the folder; empty where there is none."""
        return {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()

    def size(self, name: str) -> int:
        """Bytes of a file; FileNotFoundError where there is none."""
        return (self.path / name).stat().st_size

    def read(self, name: str) -> bytes:
        """A file's bytes; FileNotFoundError where there is none."""
        return (self.path / name).read_bytes()

    def read_at(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file from `offset`; fewer than `length` only where it ends."""
        with open(self.path / name, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces a file, whole or not at all."""
        write_whole(self.path / name, data)

    def upload(self, local: Path, name: str) -> None:
        """Moves a file of the same disk into the folder."""
        os.replace(local, self.path / name)

    def delete(self, name: str) -> None:
        """Removes a file or a folder; one that is not there is no error."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def settle(self) -> None:
        """Returns once the disk has the names of all files."""
        sync_folder(self.path)
