"""CUB-200-2011 (Wah et al. 2011) in the layout it is published in, with the sentences of Reed et al. (2016) if there.

images.txt, image_class_labels.txt, train_test_split.txt and classes.txt have an id and a value in each line (without
classes.txt, which some copies lack, classes are called after the folders of their photos);
images/CLASS/PHOTO.jpg; text_c10/CLASS/PHOTO.txt, where there is one, has a sentence about the photo in each line. A
photo gives a class sample, and a photo sample where it has sentences. The published split has train and test alone.
"""

from __future__ import annotations

import os
import re

from shards.errors import DataError
from shards.format.record import Record, Split
from shards.sources.layouts.layout import ImageFiles, Losses, Units, digest, image_fault, inside, read_text
from shards.sources.layouts.names import Names

IMAGES = "images"
CAPTIONS = "text_c10"
PHOTOS, LABELS, SPLIT, CLASSES = "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"
SPLIT_OF_FLAG: dict[str, Split] = {"1": "train", "0": "test"}


class CubSource(ImageFiles):
    """Records and images of a CUB-200-2011 folder, or of one of the same layout."""

    name = "cub"
    layout = "a folder in the layout of cub"
    needed: tuple[str, ...] = (PHOTOS, LABELS, SPLIT, IMAGES)

    def describe(self) -> dict:
        """What the records depend on, for a manifest: digests of the tables and the sentences."""
        tables = [name for name in (PHOTOS, LABELS, SPLIT, CLASSES) if (self.root / name).exists()]
        described = {"annotations_sha256": digest(self.root, tables)}
        if self._has_captions():
            paths = (path for path in self.root.glob(f"{CAPTIONS}/*/*.txt") if path.is_file())
            files = sorted(path.relative_to(self.root).as_posix() for path in paths)
            described["captions_sha256"] = digest(self.root, files)
        return described

    def classes(self) -> list[str]:
        """Names of the classes that have photos, in the order of the published class ids: "Black footed Albatross"."""
        names = self._class_names()
        return [_readable(names[published]) for published in self._class_ids()]

    def records(self, workers: int = 1) -> list[Record]:
        """Class and photo samples in the order of images.txt. `workers` makes no difference."""
        labels, flags, names = self._table(LABELS), self._table(SPLIT), self._class_names()
        class_ids = self._class_ids()
        has_captions = self._has_captions()
        losses = Losses()
        units = Units()
        found: list[Record] = []
        fault: str | None
        files = Names(self.root)
        for number, photo in self._table(PHOTOS).items():
            path = files.spelt(f"{IMAGES}/{photo}")
            published, split = labels.get(number), SPLIT_OF_FLAG.get(flags.get(number, ""))
            if published is None:
                fault = f"no class in {LABELS}"
            elif published not in class_ids:
                fault = f"its class is not in {CLASSES}"
            elif split is None:
                fault = f"neither 0 nor 1 in {SPLIT}"
            else:
                fault = image_fault(self.root, path, files)
            if fault is not None:
                losses.add(photo, fault)
                continue
            assert published is not None and split is not None, "else there is a fault"
            images, unit = {"photo.jpg": path}, units.next_of(split)
            found.append(
                Record(
                    kind="class",
                    split=split,
                    key=f"class-{number}",
                    images=images,
                    id=photo,
                    class_id=class_ids[published],
                    class_name=_readable(names[published]),
                    unit=unit,
                )
            )
            if has_captions:
                try:
                    captions = self._captions(photo)
                except DataError as error:
                    losses.add(photo, "sentences that cannot be read", str(error))
                    continue
                if captions:
                    found.append(Record("photo", split, f"photo-{number}", images, photo, captions, unit=unit))
                else:
                    losses.add(photo, "no sentences", "its class sample is there")
        self.leave_out(losses)
        files.tell()
        return found

    def _has_captions(self) -> bool:
        return inside(self.root, CAPTIONS).is_dir()

    def _captions(self, photo: str) -> tuple[str, ...]:
        """The sentences of a photo; none where it has no file."""
        name = f"{CAPTIONS}/{os.path.splitext(photo)[0]}.txt"
        if not inside(self.root, name).is_file():
            return ()
        # Published files have U+FFFD where a character was lost.
        lines = (" ".join(line.replace("\ufffd", " ").split()) for line in read_text(self.root, name).split("\n"))
        return tuple(line for line in lines if line)

    def _class_names(self) -> dict[str, str]:
        """Published id -> name."""
        if (self.root / CLASSES).exists() or CLASSES in self.needed:
            return self._table(CLASSES)
        labels = self._table(LABELS)
        names: dict[str, str] = {}
        for number, photo in self._table(PHOTOS).items():
            if number in labels:
                names.setdefault(labels[number], os.path.dirname(photo) or labels[number])
        return names

    def _class_ids(self) -> dict[str, int]:
        """Published id -> our id: places in the numerical order of the ids that photos are listed with."""
        listed = set(self._table(LABELS).values()) & self._class_names().keys()
        return {published: place for place, published in enumerate(sorted(listed, key=lambda id: (len(id), id)))}

    def _table(self, name: str) -> dict[str, str]:
        """The id and the value of each line."""
        found: dict[str, str] = {}
        for place, line in enumerate(read_text(self.root, name).split("\n"), 1):
            number, *value = line.split(None, 1)[:2] or [""]
            if not number:
                continue
            where = f"{self.root / name}, line {place}"
            if not value:
                raise DataError(f"{where}: {number[:60]!r} stands alone, not an id and a value; fetch the file again")
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", number):
                raise DataError(f"{where}: {number[:60]!r} is no id (letters, digits, _ and -); fetch the file again")
            if number in found:
                raise DataError(f"{where}: the id {number} comes again; remove one of the two lines")
            found[number] = value[0].strip()
        return found


def _readable(name: str) -> str:
    """ "Black footed Albatross" of "001.Black_footed_Albatross"; names in plain words stay as they are."""
    return " ".join(re.sub(r"^\d+\.", "", name).replace("_", " ").split())
