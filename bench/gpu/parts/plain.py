"""The published network in plain PyTorch, the measure of ours: written from docs/method.md, nothing optimised.

float32 throughout, attention as matmul, masked_fill, softmax, dropout, matmul; query, key and value apart; the unbiased
layer norm operation by operation; boolean indexing; a number read back at every step; Adam one tensor at a time.
Parameters have the names of the reference implementation, so `idc.reference.parity.to_reference` gives weights for it.

Shapes: B samples, N cells of F channels, L words, K negatives, d = d_model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.config import ModelConfig
from idc.model.layers import sinusoid

CLS_BEFORE, BEFORE, CLS_AFTER, AFTER, CLS_TEXT, TEXT = range(1, 7)


class LayerNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_linear = nn.Linear(config.d_model, config.d_model)
        self.k_linear = nn.Linear(config.d_model, config.d_model)
        self.v_linear = nn.Linear(config.d_model, config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """mask: bool, broadcastable to (B, 1, T, T), True where a query may look."""
        batch, tokens, size = x.shape
        query = self.q_linear(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        key = self.k_linear(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        value = self.v_linear(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(size // self.heads)
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e9)
        weights = self.dropout(functional.softmax(scores, dim=-1))
        return self.out(torch.matmul(weights, value).transpose(1, 2).contiguous().view(batch, tokens, size))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(config.d_model, config.d_ff), nn.Linear(config.d_ff, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(functional.relu(self.w_1(x))))


class Sublayer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn, self.feed_forward = Attention(config), FeedForward(config)
        self.sublayer = nn.ModuleList([Sublayer(config), Sublayer(config)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        first, second = self.sublayer
        x = x + first.dropout(self.attn(first.norm(x), mask))
        return x + second.dropout(self.feed_forward(second.norm(x)))


class Stack(nn.Module):
    def __init__(self, config: ModelConfig, blocks: int) -> None:
        super().__init__()
        self.norm = LayerNorm(config.d_model)
        self.layers = nn.ModuleList([Block(config) for _ in range(blocks)])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class PositionEncoding(nn.Module):
    """Types, and the layer norm and dropout that tokens of all kinds share."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.type_pe = nn.Embedding(7, config.d_model)
        self.layernorm = LayerNorm(config.d_model, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        length = max(config.max_length, config.cells)
        self.register_buffer("table", sinusoid(length, config.d_model), persistent=False)

    def forward(self, x: Tensor, kind: int, positions: bool) -> Tensor:
        if positions:
            x = x + self.table[: x.shape[1]]
        kinds = torch.full(x.shape[:2], kind, dtype=torch.long, device=x.device)
        return self.dropout(self.layernorm(x + self.type_pe(kinds)))


class FeatureHead(nn.Module):
    def __init__(self, config: ModelConfig, weight: nn.Parameter) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(config.d_model, config.d_model), nn.GELU(), LayerNorm(config.d_model, eps=1e-12)
        )
        self.weight = weight  # of the projection, (d, F)
        self.bias = nn.Parameter(torch.zeros(config.feature_dim))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.net(x), self.weight.t(), self.bias)


class PlainModel(nn.Module):
    """Losses by name for each task; batches as in `idc.losses.objectives`, whole-batch contrast, temperature 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size = config.d_model
        self.word_embedding = nn.Embedding(config.vocab_size, size)
        self.position_encoding = PositionEncoding(config)
        self.img_project = nn.Sequential(nn.Linear(config.feature_dim, size), nn.Sigmoid())
        self.single_img_encoder, self.double_img_encoder = Stack(config, 1), Stack(config, 1)
        self.encoder = Stack(config, config.cross_modal_blocks)
        self.output_layer = nn.Linear(size, config.vocab_size)
        self.feat_regress = FeatureHead(config, self.img_project[0].weight)
        self.pooler = nn.Sequential(nn.Linear(2 * size, 2))
        self.classifier = nn.Sequential(nn.Linear(size, config.classes))
        self.aligner = nn.Sequential(nn.Linear(2 * size, 2))

    def forward(self, task: str, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "mlm": self.mlm, "mvcl": self.mvcl, "fda": self.fda, "classify": self.classify, "finetune": self.finetune,
        }[task](batch)  # fmt: skip

    # ---- encoding

    def cls(self, kind: int, batch: int, device: torch.device) -> Tensor:
        ids = torch.full((batch, 1), self.config.cls, dtype=torch.long, device=device)
        return self.position_encoding(self.word_embedding(ids), kind, positions=False)

    def text(self, ids: Tensor) -> Tensor:
        words = self.word_embedding(ids) * math.sqrt(self.config.d_model)
        return self.position_encoding(words, TEXT, positions=True)

    def encode_pair(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, F) each -> the 2N + 2 tokens of the pair and the two single-image CLS (B, 2, d)."""
        batch = len(before)
        singles = []
        for features, cls, kind in ((before, CLS_BEFORE, BEFORE), (after, CLS_AFTER, AFTER)):
            cells = self.position_encoding(self.img_project(features), kind, positions=True)
            tokens = torch.cat([self.cls(cls, batch, features.device), cells], dim=1)
            singles.append(self.single_img_encoder(tokens))
        single_cls = torch.stack([single[:, 0] for single in singles], dim=1)
        return self.double_img_encoder(torch.cat(singles, dim=1)), single_cls

    def cross_modal(self, pair: Tensor, ids: Tensor) -> Tensor:
        """[images, cls-text, text], all see all but padding."""
        tokens = torch.cat([pair, self.cls(CLS_TEXT, len(ids), ids.device), self.text(ids)], dim=1)
        seen = torch.ones(tokens.shape[:2], dtype=torch.bool, device=ids.device)
        if self.config.mask_padding:
            seen[:, pair.shape[1] + 1 :] = ids != self.config.pad
        return self.encoder(tokens, seen[:, None, None, :])

    def word_loss(self, text: Tensor, labels: Tensor, reduction: str) -> Tensor:
        chosen = labels != -1
        return functional.cross_entropy(self.output_layer(text[chosen]), labels[chosen], reduction=reduction)

    # ---- tasks

    def mlm(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pair, _ = self.encode_pair(batch["before"], batch["after"])
        hidden = self.cross_modal(pair, batch["caption_masked"])
        return {"mlm": self.word_loss(hidden[:, pair.shape[1] + 1 :], batch["caption_labels"], "mean")}

    def mvcl(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        hidden_before, hidden_after = batch["visual_mask"].chunk(2, dim=1)
        before = batch["before"].masked_fill(hidden_before[..., None], 0.0)
        after = batch["after"].masked_fill(hidden_after[..., None], 0.0)
        pair, _ = self.encode_pair(before, after)
        fused = self.cross_modal(pair, batch["caption"])
        cells = before.shape[1]
        visual = torch.cat([fused[:, 1 : cells + 1], fused[:, cells + 2 : 2 * cells + 2]], dim=1)
        truth = torch.cat([batch["before"], batch["after"]], dim=1)
        hidden = batch["visual_mask"]
        predicted = functional.normalize(self.feat_regress(visual[hidden]), dim=-1)
        true = functional.normalize(truth[hidden], dim=-1)
        wrong = functional.normalize(self.feat_regress(visual[~hidden]), dim=-1)
        scores = torch.cat([predicted @ true.t(), predicted @ wrong.t()], dim=1)
        return {"mvcl": functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))}

    def fda(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        captions = batch["caption_with_negatives"]
        size, choices, _ = captions.shape
        pair, _ = self.encode_pair(batch["before"], batch["after"])
        pair = pair.repeat_interleave(choices, dim=0)
        hidden = self.cross_modal(pair, captions.flatten(0, 1))
        image = (hidden[:, 0] + hidden[:, self.config.cells + 1]) / 2
        similarity = functional.cosine_similarity(image, hidden[:, pair.shape[1]], dim=-1).view(size, choices)
        targets = torch.zeros(size, dtype=torch.long, device=similarity.device)
        return {"fda": functional.cross_entropy(similarity, targets)}

    def classify(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pair, single = self.encode_pair(batch["before"], batch["after"])
        photos = single.flatten(0, 1)
        labels = torch.stack([batch["class_before"], batch["class_after"]], dim=1).flatten()
        both = torch.cat([pair[:, 0], pair[:, self.config.cells + 1]], dim=-1)
        unit = functional.normalize(photos, dim=-1)
        cosine = unit @ unit.t()
        same = labels[:, None] == labels[None, :]
        apart = (1 - cosine[same]).sum() + (cosine[~same] - 0.4).clamp(min=0).sum()
        return {
            "class": functional.cross_entropy(self.classifier(photos), labels),
            "match": functional.cross_entropy(self.aligner(both), batch["same_class"]),
            "class_contrastive": apart / len(photos) ** 2,
        }

    def finetune(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over words and over pairs, as the reference adds them up."""
        ids = batch["caption_masked"]
        pair, _ = self.encode_pair(batch["before"], batch["after"])
        images, tokens = pair.shape[1], pair.shape[1] + ids.shape[1]
        seen = torch.ones(tokens, tokens, dtype=torch.bool, device=ids.device).tril()
        seen[:, :images] = True
        seen[:images, images:] = False
        hidden = self.encoder(torch.cat([pair, self.text(ids)], dim=1), seen[None, None])
        both = torch.cat([hidden[:, 0], hidden[:, self.config.cells + 1]], dim=-1)
        return {
            "caption": self.word_loss(hidden[:, images:], batch["caption_labels"], "sum"),
            "changed": functional.cross_entropy(self.pooler(both), batch["changed"], reduction="sum"),
        }


class PlainLoop:
    """One step at a time: a batch from the host's memory, a loss, its number, backward, Adam."""

    def __init__(self, model: PlainModel, device: torch.device | str, lr: float = 1e-4) -> None:
        self.model, self.device = model.to(device).train(), device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr, foreach=False, fused=False)

    def step(self, task: str, batch: Mapping[str, Tensor]) -> float:
        """batch: features float32 (B, N, F), everything in the host's memory."""
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        loss = sum(self.model(task, batch).values())
        number = loss.item()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return number
