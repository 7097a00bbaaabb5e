"""Captions matched with the pairs of a split, by the samples' keys or by the names that the data set gives its pairs.

Of CLEVR-Change also the names in the results of its authors' code: 000012.png, and 000012.png_n without a change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.evaluation.predict import COPIED
from cluster.scoring.caption_files import Row, read_captions
from shards.errors import DataError
from shards.reading.reader import Folder

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
_CLEVR = re.compile(r"(?:CLEVR_(default|semantic|nonsemantic)_)?(\d+)(?:\.png)?(_n)?")
_NAMED = 3  # names in a message


def references(shards: Folder, split: str, limit: int = 0) -> list[dict[str, Any]]:
    """The pairs of a split, or its first `limit`: {"index", "key", "references"} and what COPIED names."""
    stream = shards.stream("pair", split)
    pairs = []
    for place in range(min(limit, len(stream)) if limit else len(stream)):
        record = stream.metadata(place)
        pair = {"index": place, "key": stream.keys[place], "references": record["captions"]}
        pairs.append(pair | {name: record[name] for name in COPIED if name in record})
    return pairs


def with_captions(
    pairs: Sequence[Mapping[str, Any]], paths: Sequence[Path], source: str, split: str
) -> list[dict[str, Any]]:
    """The pairs, each with the "caption" that the files give it.

    source: of the data. DataError, in one line, unless every pair that has references has one caption and every caption
    a pair. The same sentence twice for a pair is one. A pair without references is left out if it has no caption.
    """
    known = _names(pairs, source)
    said: dict[str, str] = {}
    unknown, twice = [], []
    for row in (row for path in paths for row in read_captions(path)):
        key = _find(row, known, source)
        if key is None:
            unknown.append(row.name)
        elif said.setdefault(key, row.caption) != row.caption:
            twice.append(row.name)
    missing = [pair["key"] for pair in pairs if pair["references"] and pair["key"] not in said]
    faults = [
        f"{len(names)} {what} ({_some(names)})"
        for names, what in (
            (missing, f"of {len(pairs)} pairs of the {split} split have no caption"),
            (unknown, "captions are of no such pair"),
            (twice, "captions are of a pair that has another one already"),
        )
        if names
    ]
    if faults:
        like = f"; a pair is called, for example, {_alike(pairs[0])}" if unknown and pairs else ""
        if twice and len(paths) > 1:
            like += "; of another method? Then its file goes behind --against"
        where = ", ".join(map(str, paths))
        raise DataError(f"{where}: {'; '.join(faults)}: give each pair one caption{like}")
    return [dict(pair) | {"caption": said[pair["key"]]} for pair in pairs if pair["key"] in said]


def _names(pairs: Iterable[Mapping[str, Any]], source: str) -> dict[str, str | None]:
    """Name -> key: keys before the data set's own names, those before what else they are called; None = of several."""
    pairs = list(pairs)
    known: dict[str, str | None] = {pair["key"]: pair["key"] for pair in pairs}
    for names in (lambda pair: [pair["id"]] if "id" in pair else [], lambda pair: _aliases(pair, source)):
        found: dict[str, str | None] = {}
        for pair in pairs:
            for name in names(pair):
                found[name] = pair["key"] if found.get(name, pair["key"]) == pair["key"] else None
        known = found | known
    return known


def _aliases(pair: Mapping[str, Any], source: str) -> Iterator[str]:
    name = pair.get("id", pair["key"])
    yield from _plainer(name)
    if source == "clevr_change" and (clevr := _clevr(name)):
        yield clevr


def _find(row: Row, known: Mapping[str, str | None], source: str) -> str | None:
    """The key of the pair that a row is for; None where there is none. DataError where there are several."""
    names = [row.name, *_plainer(row.name)]
    if source == "clevr_change" and (clevr := _clevr(PurePosixPath(row.name).name)):
        names.append(clevr)
    for name in names:
        if name in known:
            key = known[name]
            if key is None:
                raise DataError(f"{row.place}: several pairs are called {row.name!r}: name pairs by their keys")
            return key
    return None


def _plainer(name: str) -> Iterator[str]:
    """A file's name without its folder, and without its ending."""
    last = PurePosixPath(name).name
    if last != name:
        yield last
    if last.lower().endswith(ENDINGS):
        yield last[: last.rindex(".")]


def _clevr(name: str) -> str | None:
    """One name for all that a pair of CLEVR-Change is called; none of them has a space."""
    found = _CLEVR.fullmatch(name)
    if found is None:
        return None
    view, number, without = found.groups()
    return f"{'unchanged' if without or view == 'nonsemantic' else 'changed'} {int(number)}"


def _alike(pair: Mapping[str, Any]) -> str:
    return " or ".join(dict.fromkeys([pair["key"], pair.get("id", pair["key"])]))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
