"""Imports timm where torchvision's compiled operators are missing.

torchvision wheels are linked for CUDA on some machines where torch itself is the CPU build. There `import torchvision`,
which timm needs, dies with "operator torchvision::nms does not exist": torchvision registers shape functions for
operators that its compiled library would have defined. Defining the two operators' signatures by hand is enough for
everything that timm does with images and models; the operators themselves stay without an implementation, so a call to
one still fails loudly. `torchvision.io` stays unusable, and nothing here uses it.
"""

from __future__ import annotations

import sys
from types import ModuleType

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _define_missing_operators() -> None:
    import torch
    from torch import library as operators

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            operators.define(f"torchvision::{name}", _SIGNATURE)


def import_timm() -> ModuleType:
    """Returns the module `timm`. Imported here and not at the top of a file: it costs seconds that most commands do not
    need."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]  # half-imported
        _define_missing_operators()
    import timm

    return timm
