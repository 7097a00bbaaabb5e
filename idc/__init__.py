"""The science: a model that says in one sentence what differs between two similar images.

Read in this order: `model.config` (the sizes), `model.layers` (attention, blocks), `model.trunk` (the parts that all
architectures share), `model.paper` (the published one), `losses.objectives` (what is trained), `captioning.decoding`
(how sentences are made).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idc.captioner import Caption, Captioner, ImageError

__all__ = ["Caption", "Captioner", "ImageError"]


def __getattr__(name: str) -> Any:
    """What people import from here, brought in when it is asked for: it takes torch, and seconds."""
    if name in __all__:
        from idc import captioner

        return getattr(captioner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
