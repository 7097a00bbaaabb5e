"""All photos below a folder, in sub-folders of any depth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError
from shards.format.retries import retried
from shards.sources.layouts.layout import IMAGE_ENDINGS, Losses, image_fault, inside

_NAMED_AS_PHOTOS = (*IMAGE_ENDINGS, ".heic", ".heif", ".avif")


def photos_below(root: Path, losses: Losses) -> list[str]:
    """The paths inside `root` of all photos that can be packed by their first bytes, sorted.

    Files that are neither photos nor named like some are passed over, and hidden ones. What is named like a photo and
    is none is noted. Links out of the root are not followed, but for folders that lie in the root itself.
    """
    found = []
    for path in _files(root, "", losses):
        try:
            inside(root, path)
        except DataError:
            losses.add(path, "a link that leads outside the folder")
            continue
        fault = image_fault(root, path)
        if fault is None:
            found.append(path)
        elif os.path.splitext(path)[1].lower() in _NAMED_AS_PHOTOS:
            losses.add(path, fault)
    return sorted(found)


def _files(root: Path, folder: str, losses: Losses) -> Iterator[str]:
    """The paths of all files below a folder; linked folders count in the root alone, so that no circle is walked."""
    try:
        entries = retried(lambda: sorted(os.scandir(root / folder), key=lambda entry: entry.name), root / folder)
    except OSError as error:
        raise DataError(f"{root / folder} cannot be read ({error.strerror}): make it readable") from None
    for entry in entries:
        path = f"{folder}/{entry.name}".lstrip("/")
        if entry.name.startswith("."):
            continue
        try:
            path.encode()
        except UnicodeEncodeError:
            losses.add(ascii(path), "a name that is not UTF-8")
            continue
        if entry.is_dir(follow_symlinks=not folder):
            yield from _files(root, path, losses)
        elif not entry.is_dir():
            yield path
