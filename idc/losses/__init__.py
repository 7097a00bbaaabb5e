"""What is trained: `objectives` has every loss, `places` what losses must know of a batch beforehand, `masking` what is
hidden; `training_model` joins model and losses for an engine.

Here are the names alone, for those who have no need of torch: a command line that lists them.
"""

LOSSES_OF: dict[str, tuple[str, ...]] = {
    "mlm": ("mlm",),
    "mvcl": ("mvcl",),
    "fda": ("fda",),
    "classify": ("class", "match", "class_contrastive"),
    "labels": ("labels",),
    "finetune": ("caption", "changed", "fda", "labels"),
}
"""Objective -> all losses that it can give, in the order of their counts."""

COMPARED = {"mvcl": "mvcl", "classify": "class_contrastive"}
"""Objective -> its loss that compares samples with one another; those without one are not here."""

LOSSES = tuple(dict.fromkeys(loss for losses in LOSSES_OF.values() for loss in losses))
