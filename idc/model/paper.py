"""The published architecture: every grid cell of both images is a token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.config import ModelConfig
from idc.model.layers import layer_norm, sinusoid, without_autocast
from idc.model.trunk import AFTER, BEFORE, ImageTokens, PairEncoding, Trunk


class FeatureHead(nn.Module):
    """Hidden state -> the features of the cell it stands for: Linear, GELU, LayerNorm, matrix to F channels, bias.

    The matrix is the feature projection's own weight, transposed, unless `config.tie_feature_head` is off.
    """

    def __init__(self, config: ModelConfig, projection: nn.Linear) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.d_model, config.d_model)
        self.norm = layer_norm(config, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(config.feature_dim))
        if config.tie_feature_head:
            self.weight = projection.weight  # (d, F), the same parameter
        else:
            self.weight = nn.Parameter(torch.empty_like(projection.weight))
            nn.init.xavier_uniform_(self.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, d) -> (n, F)."""
        return functional.linear(self.norm(functional.gelu(self.hidden(hidden))), self.weight.t(), self.bias)


class PaperModel(Trunk):
    """Cells = projection + type + sinusoid over the cells in row-major order, the same for both images."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.projection = nn.Linear(config.feature_dim, config.d_model)
        self.regression = FeatureHead(config, self.projection)
        self.register_buffer("cell_positions", sinusoid(config.cells, config.d_model), persistent=False)

    @property
    def visual_tokens(self) -> int:
        """N, the cells of the grid."""
        return self.config.cells

    def embed_images(self, batch: Mapping[str, Tensor], visual_mask: Tensor | None = None) -> ImageTokens:
        """Hidden cells are zeroed before the projection; the rest as in `Trunk.embed_images`."""
        if "photo" in batch:
            return ImageTokens(self._embed(batch["photo"], visual_mask, BEFORE))
        hidden = (None, None) if visual_mask is None else visual_mask.chunk(2, dim=1)
        before = self._embed(batch["before"], hidden[0], BEFORE)
        return ImageTokens(before, self._embed(batch["after"], hidden[1], AFTER))

    def _embed(self, features: Tensor, hidden: Tensor | None, kind: int) -> Tensor:
        expected = (self.config.cells, self.config.feature_dim)
        if tuple(features.shape[1:]) != expected:
            raise ValueError(
                f"features of {tuple(features.shape[1:])} (cells, channels) given to a model made for {expected}; "
                "set grid and feature_dim to those of the feature folder"
            )
        features = features.to(self.dtype)
        if hidden is not None:
            features = features.masked_fill(hidden[..., None], 0.0)
        tokens = self.projection(features)
        if self.config.projection == "sigmoid":
            tokens = tokens.sigmoid()
        return self.embedding.visual(tokens + self.cell_positions, kind)

    def visual_features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The cells' own features, of the type they came in, without gradient: a backbone that is trained must not
        make itself easy to name."""
        if "photo" in batch:
            return batch["photo"].detach()
        with without_autocast(batch["before"]):  # which would refuse to join float16
            return torch.cat([batch["before"], batch["after"]], dim=1).detach()

    def feature_head(self, hidden: Tensor) -> Tensor:
        """(n, d) -> (n, F)."""
        return self.regression(hidden)

    def on_grid(self, images: Mapping[str, Tensor], pair: PairEncoding, share: Tensor) -> Tensor:
        """(B, 2, rows, columns) of the feature grid."""
        return share.view(len(share), 2, *self.config.grid)
