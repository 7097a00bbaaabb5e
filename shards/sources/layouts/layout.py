"""Reads published data sets from a folder that others filled: annotation files, photos, names and sentences.

Names in annotation files are not trusted: nothing outside the root is read, by `..`, by an absolute name or by a link.
But a folder that was linked into the root itself (images -> another disk) belongs to it.
Paths of files are relative to the root with forward slashes, so that what is packed does not depend on where it lies.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shards.errors import DataError, shown
from shards.format.record import Split
from shards.format.retries import retried
from shards.format.strict_json import parse_json
from shards.images.decode import format_of
from shards.sources.layouts.names import NO_PHOTO, Names, unicode_form

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SAMPLES_PER_UNIT = 250
KEPT_ENDINGS = (".jpg", ".jpeg", ".png")
CONVERTED_ENDINGS = (".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGE_ENDINGS = KEPT_ENDINGS + CONVERTED_ENDINGS
JSON_LIMIT = 2**30  # bytes of one annotation file

_JSON_NAMES = {dict: "object", list: "list"}


class Losses:
    """What a source leaves out: `dropped` counts by reason, `lost` has a line "name: reason" each."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.lost: list[str] = []

    def add(self, name: str, reason: str, detail: str = "") -> None:
        """Notes one sample; `detail` (a line number, a file) goes to its line and not into the count's reason."""
        self.dropped[reason] += 1
        self.lost.append(f"{name}: {reason}" + (f" ({detail})" if detail else ""))


def require(root: Path, names: Iterable[str], layout: str) -> None:
    """Raises DataError where the folder `root` or a file or folder in it is missing; `layout` is what it must be."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --root must be {layout}")
    for name in names:
        if not (root / name).exists():
            raise DataError(f"{root / name} is missing: --root must be {layout} that has it")


def inside(root: Path, name: str) -> Path:
    """The path of a file by its name relative to the root; DataError where it leads outside, as `..` or links do."""
    try:
        top = os.path.realpath(root)
        real = os.path.realpath(os.path.join(top, name))
        linked = os.path.join(top, name.split("/")[0])
        tops = [top, os.path.realpath(linked)] if os.path.islink(linked) and os.path.isdir(linked) else [top]
    except ValueError:  # a NUL in the name
        raise DataError(f"{root}: {name!r} cannot be the name of a file; correct it in the annotations") from None
    if not any(os.path.commonpath((folder, real)) == folder for folder in tops):
        raise DataError(f"{root}: {name!r} leads outside this folder; put the file into it, not a link or a path to it")
    return root / name


def read_bytes(root: Path, name: str) -> bytes:
    """A file's bytes; DataError where it is outside the root or cannot be read, Unreachable where its disk fails."""
    path = inside(root, name)
    try:
        return retried(path.read_bytes, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


class Units:
    """The units of a source, SAMPLES_PER_UNIT samples of a split each: a worker packs one at a time."""

    def __init__(self) -> None:
        self._placed: Counter[Split] = Counter()

    def next_of(self, split: Split) -> int:
        """The unit of the next sample of a split."""
        unit = self._placed[split] // SAMPLES_PER_UNIT
        self._placed[split] += 1
        return unit


class ImageFiles:
    """A source of the folder `root`; the ids of its images are their paths in there. A subclass has `name`, `layout`,
    and `needed` if it cannot do without some files or folders. DataError if these or the root are missing."""

    name: str
    layout: str  # what --root must be
    needed: tuple[str, ...] = ()

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.dropped: dict[str, int] = {}
        self.lost: list[str] = []
        require(self.root, self.needed, self.layout)

    def classes(self) -> list[str]:
        """None: the data have no class labels."""
        return []

    def leave_out(self, losses: Losses) -> None:
        """Says in `dropped` and `lost` what records() leaves out."""
        self.dropped, self.lost = dict(losses.dropped), losses.lost

    def image(self, image_id: str) -> bytes:
        """The bytes of an image; the words of a DataError do not say where the folder lies."""
        try:
            path = inside(self.root, image_id)
        except DataError:
            raise DataError("its name leads outside the folder") from None
        try:
            return retried(path.read_bytes, path)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from None

    def stamp(self, image_id: str) -> str:
        """Size and time of change of an image: other ones if it was replaced; empty where it is not there."""
        path = self.root / image_id
        try:
            found = retried(path.stat, path)
        except OSError:
            return ""
        return f"{found.st_size} {found.st_mtime_ns}"


def read_text(root: Path, name: str) -> str:
    """A text file in UTF-8, with or without a byte order mark; line ends become "\\n"."""
    try:
        return read_bytes(root, name).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{root / name} is not UTF-8 text at byte {error.start}: save it as UTF-8") from None


def read_json(root: Path, name: str, kind: type[dict] | type[list] = dict) -> Any:
    """A JSON file that must hold an object (dict) or a list; a byte order mark is accepted."""
    data = read_bytes(root, name).removeprefix(codecs.BOM_UTF8)
    try:
        parsed = parse_json(data, JSON_LIMIT)
    except DataError as error:
        raise DataError(f"{root / name} is not a JSON {_JSON_NAMES[kind]} ({error}): fetch the file again") from None
    if not isinstance(parsed, kind):
        raise DataError(f"{root / name} is not a JSON {_JSON_NAMES[kind]}: fetch the file again")
    return parsed


def digest(root: Path, names: Iterable[str]) -> str:
    """One SHA-256 over files, in the order given: what the records of a source depend on, for its describe()."""
    total = hashlib.sha256()
    for name in names:
        total.update(hashlib.sha256(read_bytes(root, name)).digest())
    return total.hexdigest()


class Photos:
    """Finds photos by name in folders of a root; a folder is listed once, when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = Names(root)
        self._listed: dict[str, tuple[set[str], dict[str, list[str]]]] = {}

    def locate(self, name: str, folders: Sequence[str]) -> tuple[str | None, str | None]:
        """(the path that `find` gives, None), or (None, why there is no photo)."""
        path = self.find(name, folders)
        if path is not None:
            return path, None
        reasons = [self.names.why_missing(_joined(folder, name)) for folder in folders]
        return None, next((reason for reason in reasons if reason != NO_PHOTO), NO_PHOTO)

    def find(self, name: str, folders: Iterable[str]) -> str | None:
        """The path inside the root of the photo `name` in the first folder that has it; None where none has.

        It is the file of that name, or one whose name without the ending (in any case) is `name`, or `name` without its
        own: copies with other endings are about. The name may be spelt in another Unicode form. JPEG and PNG go before
        what has to be converted. Raises DataError where that leaves a choice.
        """
        stem, ending = os.path.splitext(name)
        if ending.lower() not in IMAGE_ENDINGS:
            stem = name
        for folder in folders:
            names, by_stem = self._list(folder)
            found = [name] if name in names else by_stem.get(unicode_form(stem), [])
            if len(found) > 1:
                raise DataError(f"{self.root / folder} has {' and '.join(found)} for the photo {name!r}: remove one")
            if found:
                path = _joined(folder, found[0])
                if found[0] != name and os.path.splitext(found[0])[0] != stem:
                    self.names.respelt[_joined(folder, name)] = path
                return path
        return None

    def _list(self, folder: str) -> tuple[set[str], dict[str, list[str]]]:
        """All files in a folder, and those of photos by their names without the ending; nothing of a missing folder."""
        if folder not in self._listed:
            path = inside(self.root, folder)
            try:
                names = retried(lambda: _files_of(path), path)
            except OSError as error:
                raise DataError(f"{path} cannot be listed ({error.strerror}): make it readable") from None
            by_stem: dict[str, list[str]] = {}
            for endings in (CONVERTED_ENDINGS, KEPT_ENDINGS):
                found: dict[str, list[str]] = {}
                for name in names:
                    stem, ending = os.path.splitext(name)
                    if ending.lower() in endings:
                        found.setdefault(unicode_form(stem), []).append(name)
                by_stem |= found
            self._listed[folder] = set(names), by_stem
        return self._listed[folder]


def _files_of(folder: Path) -> list[str]:
    """The names of the files in a folder, sorted; none where there is no such folder."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def image_fault(root: Path, name: str | None, names: Names | None = None) -> str | None:
    """Why a photo (None: not found) cannot be packed by its first bytes, None where it can.

    `names` has folders that are listed already. Unreachable where the disk fails, which says nothing about the photo.
    """
    if name is None:
        return NO_PHOTO
    path = inside(root, name)
    try:
        start = retried(lambda: _start(path), path)
    except PermissionError:
        return "a photo that may not be read"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return NO_PHOTO
        return f"a photo that cannot be read ({error.strerror})"
    if start is None:
        return (names or Names(root)).why_missing(name)
    if format_of(start) is not None:
        return None
    if start[4:8] == b"ftyp":  # as phones take them
        return "HEIC, AVIF or a film: convert it to JPEG"
    return "no photo in a known format" if start else "an empty file"


def _start(path: Path) -> bytes | None:
    """The first bytes of a file; None where there is no plain file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would be waited for
            return None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    with open(path, "rb") as file:
        return file.read(16)


def text_of(value: Any, where: str) -> str:
    """A string of an annotation file, white space made single; DataError naming `where` for any other value."""
    if not isinstance(value, str):
        raise DataError(f"{where} is {shown(value)}, not text: fetch the file again or correct the entry")
    return " ".join(value.split())


def name_of(value: Any, where: str) -> str:
    """A name that is part of a file name (a number will do); DataError where it is empty or could lead elsewhere."""
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(name, str):
        raise DataError(f"{where} is {shown(value)}, not a name: fetch the file again or correct the entry")
    if not name.strip() or name in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise DataError(f"{where} is {shown(value)}, which cannot be part of a file name: correct the entry")
    return name


def sentences_of(value: Any, where: str) -> tuple[str, ...]:
    """A list of sentences without the empty ones, white space made single; DataError for anything else."""
    if not isinstance(value, list):
        raise DataError(f"{where} is {shown(value)}, not a list of sentences: fetch the file again")
    texts = (text_of(text, f"{where}, number {number + 1},") for number, text in enumerate(value))
    return tuple(text for text in texts if text)


def entry_of(value: Any, fields: Iterable[str], where: str) -> dict:
    """An object of an annotation file that has these fields; DataError naming `where` and the first that is missing."""
    if not isinstance(value, dict):
        raise DataError(f"{where} is {shown(value)}, not an object: fetch the file again")
    for field in fields:
        if field not in value:
            raise DataError(f"{where} has no {field!r}: fetch the file again or add it")
    return value


def key_of(name: str) -> str:
    """A sample key that can be read: the name itself where it is one, otherwise its letters and a short hash."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
        return name
    letters = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:60]
    return f"{letters}-{hashlib.sha256(name.encode()).hexdigest()[:12]}".lstrip("-")
