"""What a model is made of: sizes, variations and the ids of the special tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAD, BOS, EOS, UNK, CLS, MASK = range(6)
"""Ids of the special tokens in every vocabulary made here; a ModelConfig can carry others."""

NOT_SCORED = -1
"""Label of a word that no loss looks at, and of a pair of which nobody knows whether it changed."""

ARCHITECTURES = ("paper", "idc")
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 32, "heads": 2, "d_ff": 64, "cross_modal_blocks": 1, "cell_size": 32},
    "small": {"d_model": 128, "heads": 4, "d_ff": 512, "cross_modal_blocks": 2, "cell_size": 128},
    "base": {"d_model": 512, "heads": 8, "d_ff": 2048, "cross_modal_blocks": 3, "cell_size": 256},
    "large": {"d_model": 768, "heads": 12, "d_ff": 3072, "cross_modal_blocks": 6, "cell_size": 512},
}
"""Sizes by name: for tests, for two cores, the published one for a GPU, and one for data sets of 80,000 pairs."""
CAPTION_LOSSES = ("causal", "masked")
PROJECTIONS = ("sigmoid", "linear")
LAYER_NORMS = ("unbiased", "standard")
PAPER_ALONE = ("projection", "tie_feature_head")  # fields that architecture "idc" has no use for


class ConfigError(ValueError):
    """A model configuration that cannot be built; the message is one line and names the field."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything `idc.model.build.build` needs to know. Defaults are the published sizes (AAAI 2022, CLEVR-Change)."""

    architecture: str = "paper"  # "paper": the published network on grid cells; "idc": ours, on region tokens
    vocab_size: int = 0  # words, special tokens included; has to be given
    feature_dim: int = 2048  # channels of one grid cell (F)
    grid: tuple[int, int] = (7, 7)  # rows, columns of the feature grid; N = rows * columns
    max_length: int = 40  # tokens of the longest caption, <bos> and <eos> included
    d_model: int = 512  # width of a token
    heads: int = 8  # attention heads; they divide d_model
    d_ff: int = 2048  # hidden width of the feed-forward layers
    cross_modal_blocks: int = 3  # transformer blocks over images and words together
    dropout: float = 0.2  # after the embedding, inside and after each sublayer
    attention_dropout: float = 0.2  # on attention weights; 0 keeps the fused kernel on a CPU, twice as fast
    classes: int = 0  # classes of the classification task; 0 = no classification heads
    mask_padding: bool = True  # False: padding is attended to, as the reference implementation does
    # "causal": the next word at every word; "masked": hidden words under the causal mask, as the reference does, and a
    # <mask> fed at each decoding step to read the next word from.
    caption_loss: str = "causal"
    projection: str = "sigmoid"  # after the linear feature projection; "linear" = nothing
    layer_norm: str = "unbiased"  # "unbiased": (x - mean) / (std + eps), std unbiased; "standard": torch's
    final_norm: bool = False  # normalise the output of each transformer stack (pre-norm stacks usually do)
    tie_feature_head: bool = True  # MVCL's head uses the transposed projection weight; False: a matrix of its own
    # Of the "idc" architecture alone:
    regions: int = 12  # tokens of one image at the peaks of what its cells show
    novelties: int = 8  # and at the peaks of what is new beside the other image
    pooled: int = 7  # and of a coarse grid over the whole image: about so many cells along each side
    cell_size: int = 128  # channels of the hidden state of a cell
    fine_channels: int = 0  # C_fine: the features hold a finer map folded 2 x 2, F = 4 * C_fine + C_coarse; 0: one map
    attributes: bool = False  # the classes are words of which a thing can have several; False: kinds, it has one
    pad: int = PAD
    bos: int = BOS
    eos: int = EOS
    unk: int = UNK
    cls: int = CLS
    mask: int = MASK

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(int(side) for side in self.grid))
        for field, allowed in (
            ("architecture", ARCHITECTURES),
            ("caption_loss", CAPTION_LOSSES),
            ("projection", PROJECTIONS),
            ("layer_norm", LAYER_NORMS),
        ):
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field} is {getattr(self, field)!r}; it can be {' or '.join(map(repr, allowed))}")
        for field in ("feature_dim", "max_length", "d_model", "heads", "d_ff", "cross_modal_blocks"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least 1")
        if self.max_length < 3:
            raise ConfigError(f"max_length is {self.max_length}; it must be at least 3: <bos>, a word, <eos>")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ConfigError(f"grid is {self.grid}; it must be two positive numbers, rows and columns")
        if self.d_model % self.heads or self.d_model % 2:
            raise ConfigError(f"d_model {self.d_model} must be even and a multiple of heads ({self.heads})")
        for field in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least 0 and below 1")
        if self.architecture == "idc":
            for field in PAPER_ALONE:
                default = type(self).__dataclass_fields__[field].default
                if getattr(self, field) != default:
                    raise ConfigError(
                        f"{field} is {getattr(self, field)!r}; architecture 'idc' has no use for it: leave it at "
                        f"{default!r}"
                    )
            if self.d_model % 4:
                raise ConfigError(f"d_model {self.d_model} must be a multiple of 4 in architecture 'idc'")
            for field in ("pooled", "cell_size", "classes"):
                if getattr(self, field) < 1:
                    raise ConfigError(
                        f"{field} is {getattr(self, field)}; architecture 'idc' needs at least 1 (classes come from "
                        "class-labelled photos or words of captions): without them set architecture to 'paper'"
                    )
            for field in ("regions", "novelties", "fine_channels"):
                if getattr(self, field) < 0:
                    raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least 0")
            if 4 * self.fine_channels >= self.feature_dim:
                raise ConfigError(
                    f"feature_dim {self.feature_dim} must be more than 4 * fine_channels ({self.fine_channels})"
                )
        if self.classes < 0:
            raise ConfigError(f"classes is {self.classes}; it must be 0 (no classification) or more")
        special = self.special_ids
        if len(set(special)) != len(special) or min(special) < 0 or max(special) >= self.vocab_size:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}; it must hold the special ids {special}, all different "
                "(take it from the tokenizer)"
            )

    @property
    def special_ids(self) -> tuple[int, ...]:
        """pad, bos, eos, unk, cls, mask."""
        return (self.pad, self.bos, self.eos, self.unk, self.cls, self.mask)

    @property
    def cells(self) -> int:
        """N, the grid cells of one image."""
        return self.grid[0] * self.grid[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or YAML."""
        return dataclasses.asdict(self) | {"grid": list(self.grid)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`. Raises ConfigError for a field that does not exist."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"the model configuration has no field {unknown[0]!r}")
        return cls(**values)
