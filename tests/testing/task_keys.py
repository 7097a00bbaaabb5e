"""What the batch of each task has besides its images."""

from __future__ import annotations

KEYS = {
    "mlm": ("caption_masked", "caption_labels"),
    "mvcl": ("caption", "visual_mask"),
    "fda": ("caption_with_negatives",),
    "classify": ("class_before", "class_after", "same_class"),
    "finetune": ("caption", "changed", "caption_with_negatives"),
}
