"""Photos sorted into folders by class: ROOT/CLASS/photo.jpg, or ROOT/train/CLASS/photo.jpg with val/ and test/ beside.

The folder is of the second form where a folder called after a split has folders in it. Otherwise a tenth of the photos
of each class becomes val and another test, by the photos' names.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property

from shards.errors import DataError
from shards.format.record import Record, Split
from shards.format.retries import retried
from shards.sources.layouts.layout import SPLITS, ImageFiles, Losses, Units, image_fault, inside, key_of
from shards.sources.layouts.splits import SPLIT_NAMES, split_groups

OUTSIDE = "a link that leads outside the folder"


@dataclass(frozen=True)
class _Photo:
    path: str  # inside the root
    class_folder: str
    split: Split


class FolderSource(ImageFiles):
    """Records and images of class folders. The classes are the names of the folders in alphabetical order."""

    name = "folder"
    layout = "a folder of photos in class folders (CLASS/photo.jpg)"

    def describe(self) -> dict:
        """What the records depend on, for a manifest: a digest of the photos' names."""
        photos, _ = self._photos
        return {"names_sha256": hashlib.sha256("\n".join(photo.path for photo in photos).encode()).hexdigest()}

    def classes(self) -> list[str]:
        """The names of the classes by id; "_" in a folder's name becomes a space."""
        photos, _ = self._photos
        return [_readable(folder) for folder in _class_ids(photos)]

    def records(self, workers: int = 1) -> list[Record]:
        """A class sample for each photo, sorted by split, class and name. `workers` makes no difference."""
        photos, losses = self._photos
        self.leave_out(losses)
        if not photos:
            first = f"; the first that was looked at, {losses.lost[0]}" if losses.lost else ""
            raise DataError(f"{self.root} has no photos to pack: --root must be {self.layout}{first}")
        class_ids = _class_ids(photos)
        units = Units()
        found = []
        for photo in sorted(photos, key=lambda photo: SPLITS.index(photo.split)):
            found.append(
                Record(
                    kind="class",
                    split=photo.split,
                    key=key_of(photo.path),
                    images={"photo.jpg": photo.path},
                    id=photo.path,
                    class_id=class_ids[photo.class_folder],
                    class_name=_readable(photo.class_folder),
                    unit=units.next_of(photo.split),
                )
            )
        return found

    @cached_property
    def _photos(self) -> tuple[list[_Photo], Losses]:
        """The photos that can be packed, sorted by path, and what else lies in the folders."""
        losses = Losses()
        by_split = self._split_folders()
        found = []
        for top in self._entries("", losses, "a file beside the folders"):
            if not by_split:
                found += self._class_photos(top, None, losses)
            elif top not in by_split:
                losses.add(top, "a folder beside those of the splits")
            else:
                for folder in self._entries(top, losses, "a file beside the class folders"):
                    found += self._class_photos(f"{top}/{folder}", by_split[top], losses)
        return found, losses

    def _class_photos(self, folder: str, split: Split | None, losses: Losses) -> list[_Photo]:
        """The photos of a class folder; without `split` they are divided."""
        paths = []
        for name in self._names(folder, losses):
            path = f"{folder}/{name}"
            if (self.root / path).is_dir():
                losses.add(path, "a folder inside a class folder")
                continue
            fault = image_fault(self.root, path) if self._is_inside(path) else OUTSIDE
            if fault is None:
                paths.append(path)
            else:
                losses.add(path, fault)
        splits = dict.fromkeys(paths, split) if split else split_groups(dict.fromkeys(paths, 1))
        return [_Photo(path, folder.rpartition("/")[2], splits[path]) for path in paths]

    def _split_folders(self) -> dict[str, Split]:
        """The folders called after splits, where one of them has folders in it; empty where photos are not split."""
        named = {name: SPLIT_NAMES[name.lower()] for name in self._names("") if name.lower() in SPLIT_NAMES}
        holds_folders = any((self.root / name / inner).is_dir() for name in named for inner in self._names(name))
        return named if holds_folders else {}

    def _entries(self, folder: str, losses: Losses, reason: str) -> list[str]:
        """The folders in a folder; files, which do not belong there, are noted for this reason."""
        found = []
        for name in self._names(folder, losses):
            path = f"{folder}/{name}".lstrip("/")
            if not (self.root / path).is_dir():
                losses.add(path, reason)
            elif self._is_inside(path):
                found.append(name)
            else:
                losses.add(path, OUTSIDE)
        return found

    def _is_inside(self, path: str) -> bool:
        try:
            inside(self.root, path)
        except DataError:
            return False
        return True

    def _names(self, folder: str, losses: Losses | None = None) -> list[str]:
        """What lies in a folder, sorted, without hidden files; nothing where it is no folder."""
        try:
            there = retried(lambda: os.listdir(self.root / folder), self.root / folder)
            names = sorted(name for name in there if not name.startswith("."))
        except NotADirectoryError:
            return []
        except OSError as error:
            raise DataError(f"{self.root / folder} cannot be read ({error.strerror})") from None
        readable = [name for name in names if _is_text(name)]
        if losses is not None:
            for name in names:
                if not _is_text(name):
                    losses.add(f"{folder}/{name!a}".lstrip("/"), "a name that is not UTF-8")
        return readable


def _class_ids(photos: list[_Photo]) -> dict[str, int]:
    return {folder: place for place, folder in enumerate(sorted({photo.class_folder for photo in photos}))}


def _readable(folder: str) -> str:
    return " ".join(folder.replace("_", " ").split())


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8: others cannot be written into a manifest."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
