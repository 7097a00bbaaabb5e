"""The data sets that can be packed, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.record import Source

NAMES = ("blocks", "clevr_change")


def make_source(name: str, root: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Source:
    """The source called `name`: read from the folder `root`, or, for blocks, made as `options` (BlocksOptions) say.

    Raises DataError for a name that is not known, a folder that is missing or options that do not belong to the source.
    """
    options = dict(options or {})
    if name == "blocks":
        # The renderer compiles on import; only those who render wait for it.
        from shards.sources.blocks import BlocksSource

        if root is not None:
            raise DataError("--root does not fit blocks: its scenes are rendered, not read; leave --root out")
        return BlocksSource(**options)
    if name == "clevr_change":
        from shards.sources.clevr_change import ClevrChangeSource

        if options:
            named = ", ".join("--" + option.replace("_", "-") for option in options)
            raise DataError(f"{named}: only blocks has this, {name} is read from its folder; leave it out")
        if root is None:
            raise DataError(f"{name} needs --root DIR: the folder that has images/ and change_captions.json")
        return ClevrChangeSource(root)
    raise DataError(f"no source {name!r}: choose one of {', '.join(NAMES)}")
