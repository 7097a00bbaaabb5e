"""The arms that part `claim` compares, and its seeds."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Arm:
    """One way to spend the steps. ratios: of the tasks of pre-training; empty: fine-tuning alone."""

    label: str
    ratios: str = ""


BASE = "mlm=8,mvcl=1,fda=2"
ARMS = {
    "none": Arm("no pre-training"),
    "mlm": Arm("MLM", "mlm=1"),
    "all": Arm("MLM, MVCL, FDA", BASE),
    "classes": Arm("MLM, MVCL, FDA, class photos", f"{BASE},classify=3"),
    "photos": Arm("MLM, MVCL, FDA, captioned photos", f"{BASE},photo_mlm=8,photo_mvcl=1,photo_fda=2"),
}
