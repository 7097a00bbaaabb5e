"""Files whose names annotations spell otherwise, and why a photo is not there: each cause has its own words.

"é" is one character (NFC) or a letter and an accent (NFD). Tables tend to have the first, files from a Mac the second.
Both are the same name, so the photo is taken. A name in other upper or lower case may be another photo, so it is told.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

from shards.format.retries import retried

NO_PHOTO = "no photo"
OTHER_CASE = "no photo of this name, but one in other upper or lower case"
OTHER_ENDING = "no photo of this name, but one with another ending"
DEAD_LINK = "a link to a file that is not there"
A_FOLDER = "a folder in the place of a photo"
_ENDING = re.compile(r"\.(?:jpe?g|png|webp|gif|bmp|tiff?|heic|avif)$")


class Names:
    """Names of files below a root by what is the same in them. A folder is listed once, when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.respelt: dict[str, str] = {}  # name as it was asked for -> the file's, in another Unicode form
        self._listed: dict[tuple[str, Callable[[str], str]], tuple[set[str], dict[str, list[str]]]] = {}

    def spelt(self, name: str) -> str:
        """The name as the file of it is spelt; the same name where there is no such file, or several."""
        if name.isascii() or os.path.lexists(self.root / name):
            return name
        found = self._find(name, unicode_form)
        if found is None:
            return name
        self.respelt[name] = found
        return found

    def why_missing(self, name: str) -> str:
        """Why there is no photo of this name, which leads to no plain file inside the root."""
        path = self.root / name
        if os.path.isdir(path):
            return A_FOLDER
        if os.path.exists(path):  # a pipe, a device
            return NO_PHOTO
        if os.path.islink(path):
            return DEAD_LINK
        if self._find(name, _letters) is not None:
            return OTHER_CASE
        return NO_PHOTO if self._find(name, _stem) is None else OTHER_ENDING

    def tell(self) -> None:
        """Says on stderr, in one line, how many files were found under another spelling."""
        if self.respelt:
            print(
                f"{self.root}: photos taken though their file is spelt in another Unicode form (NFC or NFD): "
                f"{len(self.respelt)}, the first: {min(self.respelt)}",
                file=sys.stderr,
            )

    def _find(self, name: str, key: Callable[[str], str]) -> str | None:
        """The only file that is called so in each of its folders, by what `key` keeps of a name; None otherwise."""
        found: list[str] = []
        for part in name.split("/"):
            names, by_key = self._list("/".join(found), key)
            alike = [part] if part in names else by_key.get(key(part), [])
            if len(alike) != 1:
                return None
            found += alike
        return "/".join(found)

    def _list(self, folder: str, key: Callable[[str], str]) -> tuple[set[str], dict[str, list[str]]]:
        if (folder, key) not in self._listed:
            try:
                names = sorted(retried(lambda: os.listdir(self.root / folder), self.root / folder))
            except OSError:
                names = []
            by_key: dict[str, list[str]] = {}
            for name in names:
                by_key.setdefault(key(name), []).append(name)
            self._listed[folder, key] = set(names), by_key
        return self._listed[folder, key]


def unicode_form(name: str) -> str:
    """A name in the form NFC."""
    return unicodedata.normalize("NFC", name)


def _letters(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _ENDING.sub("", _letters(name))
