"""CLEVR-Change (Park et al. 2019) in the layout it is published in.

images/CLEVR_default_%06d.png, sc_images/CLEVR_semantic_%06d.png (with a change), nsc_images/CLEVR_nonsemantic_%06d.png
(without), change_captions.json, no_change_captions.json, splits.json, type_mapping.json. Each scene gives two pairs.
Image bytes are kept as they are, whatever their names say: copies with JPEG bytes under .png names are about.
"""

from __future__ import annotations

import re
from typing import Any

from shards.errors import DataError
from shards.format.record import Record, Split
from shards.sources.layouts.layout import SPLITS, ImageFiles, Losses, digest, image_fault, read_json
from shards.wording.claims import truth_of_references

SCENES_PER_UNIT = 250
FOLDERS = {"default": "images", "semantic": "sc_images", "nonsemantic": "nsc_images"}
ANNOTATIONS = ("change_captions.json", "no_change_captions.json", "splits.json", "type_mapping.json")
_SCENE_NAME = re.compile(r"(?:CLEVR_[a-z]+_)?([0-9]{1,9})(?:\.png)?")
TYPE_NAMES = {"texture": "material"}  # the paper's tables call it so


class ClevrChangeSource(ImageFiles):
    """Records and images of a CLEVR-Change folder."""

    name = "clevr_change"
    layout = "a CLEVR-Change folder"
    needed = (*FOLDERS.values(), *ANNOTATIONS)

    def describe(self) -> dict:
        """What the records depend on, for a manifest: a digest of the annotation files, not where the folder lies."""
        return {"annotations_sha256": digest(self.root, ANNOTATIONS)}

    def records(self, workers: int = 1) -> list[Record]:
        """Two pairs a scene, scenes in the order of their numbers. Reading is quick; `workers` makes no difference."""
        changed, unchanged, splits, types = (read_json(self.root, name) for name in ANNOTATIONS)
        type_of = self._types(types)
        losses = Losses()
        seen: dict[int, str] = {}
        found = []
        for split in SPLITS:
            for place, number in enumerate(self._scene_numbers(splits, split)):
                if number in seen:
                    raise DataError(
                        f"{self.root / 'splits.json'}: scene {number} is in {seen[number]} and again in {split}; "
                        f"remove it from one"
                    )
                seen[number] = split
                unit = place // SCENES_PER_UNIT
                name = f"CLEVR_default_{number:06d}.png"
                for view, captions in (("semantic", changed), ("nonsemantic", unchanged)):
                    reason = self._fault(number, view, captions.get(name))
                    if reason is not None:
                        losses.add(f"CLEVR_{view}_{number:06d}.png", reason)
                        continue
                    found.append(self._record(split, unit, number, view, captions[name], type_of.get(number)))
        self.leave_out(losses)
        return found

    def _record(self, split: Split, unit: int, number: int, view: str, captions: list, change: str | None) -> Record:
        references = tuple(" ".join(caption.split()) for caption in captions if caption.strip())
        is_changed = view == "semantic"
        truth = truth_of_references(references) if is_changed else {"type": "none", "object": None, "to": None}
        if truth is not None and is_changed and truth["type"] != change:
            truth = None  # the references say another change than the type mapping, or it has none to say
        return Record(
            kind="pair",
            split=split,
            key=f"{number:06d}-{view}",
            images={"before.jpg": _path("default", number), "after.jpg": _path(view, number)},
            id=f"CLEVR_{view}_{number:06d}.png",
            captions=references,
            changed=is_changed,
            change_type=change if is_changed else "none",
            truth=truth,
            unit=unit,
        )

    def _fault(self, number: int, view: str, captions: Any) -> str | None:
        """Why a pair cannot be packed, None where it can."""
        if not isinstance(captions, list) or not any(isinstance(c, str) and c.strip() for c in captions):
            return "no captions"
        if not all(isinstance(caption, str) for caption in captions):
            return "captions that are not text"
        for side in ("default", view):
            fault = image_fault(self.root, _path(side, number))
            if fault is not None:
                return f"{fault} in {FOLDERS[side]}/"
        return None

    def _types(self, mapping: dict) -> dict[int, str]:
        """Scene number -> change type."""
        found = {}
        for change, names in mapping.items():
            if not isinstance(names, list):
                raise DataError(
                    f"{self.root / 'type_mapping.json'}: {change!r} has no list of names like 000012.png: it must say "
                    f"which scenes have each type of change"
                )
            for name in names:
                number = _SCENE_NAME.fullmatch(str(name))
                if number is None:
                    raise DataError(f"{self.root / 'type_mapping.json'}: {name!r} is not a name like 000012.png")
                found[int(number[1])] = TYPE_NAMES.get(change, change)
        return found

    def _scene_numbers(self, splits: dict, split: str) -> list[int]:
        numbers = splits.get(split, [])
        if not isinstance(numbers, list) or not all(str(number).isdecimal() for number in numbers):
            raise DataError(f"{self.root / 'splits.json'}: {split!r} is not a list of scene numbers")
        return sorted({int(number) for number in numbers})


def _path(view: str, number: int) -> str:
    return f"{FOLDERS[view]}/CLEVR_{view}_{number:06d}.png"
