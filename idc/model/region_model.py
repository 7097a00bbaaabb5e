"""Our architecture: the published network on region tokens that carry what matches them in the other image.

The published one sees grid cells and has to learn by itself which cell of one image belongs to which of the other. Here
a token is a region (`idc.model.regions`) and is told, before the first transformer block, its best counterparts in the
other image: by looks, by place, and by both, each with what differs, how far it has moved, and how good the match is.
No counterpart: added or dropped; same place and other looks: recoloured; same looks elsewhere: moved. Matching shares
all weights between the two directions and needs no closed label set.

Shapes: B pairs, T regions an image, D = cell_size, d = d_model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.config import ModelConfig
from idc.model.layers import upcast, without_autocast
from idc.model.regions import RegionFinder, Regions, image_labels_loss
from idc.model.trunk import AFTER, BEFORE, ImageTokens, PairEncoding, Trunk

VIEWS = ("looks", "place", "both")
CLASS_WORDS = 8  # of a class name, at most
SPREAD = 3.0  # fine cells: how far from its centre a thing may reach, in the map of what is pointed at


def code(position: Tensor, size: int, extent: float) -> Tensor:
    """(..., 2) x, y -> (..., size): sines and cosines of each coordinate, wavelengths 2 * extent to extent / 16."""
    octaves = torch.linspace(0, 5, size // 4, device=position.device)
    angle = position[..., None] * (math.pi / extent * 2.0**octaves)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def camera_motion(position: Tensor, target: Tensor, trust: Tensor, scale: float, prior: Tensor) -> Tensor:
    """Where the camera's motion alone takes each region: (B, T, 2) -> (B, T, 2), with gradient for the prior alone.

    An affine map fitted to the pairs (position, target), each weighed by its trust (B, T); pairs far from the fit,
    things that moved or were mistaken for others, lose weight (iteratively reweighted least squares, Cauchy weights).
    prior (6, 6): precision of the map's coefficients (1, x, y for x, then for y) where there is no evidence.
    """
    basis = torch.cat([torch.ones_like(position[..., :1]), (position - scale / 2) / scale], dim=-1)  # (B, T, 3)
    moved = target - position

    def fit(weight: Tensor, prior: Tensor) -> Tensor:
        weighted = (basis * weight[..., None]).transpose(1, 2)
        system = torch.kron(torch.eye(2, dtype=basis.dtype, device=basis.device), weighted @ basis) + prior
        evidence = (weighted @ moved).transpose(1, 2).flatten(1)  # (B, 6)
        return basis @ torch.linalg.solve_ex(system, evidence)[0].unflatten(1, (2, 3)).transpose(1, 2)

    with torch.no_grad():
        weight = trust
        for _ in range(5):
            weight = trust / (1 + (moved - fit(weight, prior)).square().sum(-1))
    return position + fit(weight, prior)


class Matching(nn.Module):
    """For every region of one image, its counterparts in the other."""

    GAIN = 10.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.size, self.extent = config.d_model, 2.0 * max(config.grid)
        # Log of how sharply looks and place decide, for the three views; learnt.
        self.log_sharpness = nn.Parameter(torch.tensor([[10.0, 0.02], [0.05, 1.0], [10.0, 0.3]]).log())
        # How cameras move, learnt too: a root of the prior of `camera_motion`, in units that suit the optimiser.
        self.camera = nn.Parameter(math.sqrt(0.03) / self.GAIN * torch.eye(6))
        self.expand = nn.Linear(len(VIEWS) * (3 * self.size + 3), config.d_ff)
        self.contract = nn.Linear(config.d_ff, self.size)

    def forward(self, looks: Tensor, regions: Regions, other_looks: Tensor, other: Regions) -> Tensor:
        """looks, other_looks (B, T, d) -> (B, T, d)."""
        # Distances of a fraction of a cell count: not in half precision.
        with without_autocast(looks):
            found = self._compare(looks.float(), regions, other_looks.float(), other)
        return self.contract(functional.gelu(self.expand(found.to(self.expand.weight.dtype))))

    def _compare(self, looks: Tensor, regions: Regions, other_looks: Tensor, other: Regions) -> Tensor:
        """What the views find, (B, T, views * (3 d + 3))."""
        similarity = functional.normalize(looks, dim=-1) @ functional.normalize(other_looks, dim=-1).transpose(1, 2)
        exists = functional.logsigmoid(other.score)[:, None]
        sharpness = self.log_sharpness.float().exp()
        expected = self.expected(similarity, exists, sharpness[0], regions, other)
        distance = (expected[:, :, None] - other.position[:, None]).square().sum(-1)
        found = []
        for by_looks, by_place in sharpness:
            scores = by_looks * similarity - by_place * distance + exists
            weight = scores.softmax(-1)
            counterpart = weight @ other_looks
            moved = expected - weight @ other.position
            found += [counterpart - looks, counterpart * looks, code(moved, self.size, self.extent / 2)]
            alike, apart = (weight * similarity).sum(-1), (weight * distance).sum(-1)
            found.append(torch.stack([4 * alike, apart.log1p(), 0.2 * scores.logsumexp(-1)], dim=-1))
        return torch.cat(found, dim=-1)

    def expected(
        self, similarity: Tensor, exists: Tensor, sharpness: Tensor, regions: Regions, other: Regions
    ) -> Tensor:
        """Where each region would be in the other image if nothing but the camera had moved, (B, T, 2)."""
        with torch.no_grad():
            distance = (regions.position[:, :, None] - other.position[:, None]).square().sum(-1)
            weight = (sharpness[0] * similarity - sharpness[1] * distance + exists).softmax(-1)
            trust = weight.square().sum(-1) * regions.score.sigmoid()
            target, position = weight @ other.position, regions.position.detach()
        root = self.GAIN * self.camera.float()
        prior = root @ root.T + 1e-3 * torch.eye(len(root), device=root.device)  # never singular
        return camera_motion(position, target, trust, self.extent, prior)


class Pointer(nn.Module):
    """Says what it points at: each word attends to the regions (or to none), and their classes speak for their words.

    A plain word head has to learn for every name and every region how what is seen becomes a word. Here the words of a
    class's name are likelier wherever a region of that class is pointed at, from the first step on; which of these
    words is due, and that "ball" is another word for "sphere", is learnt.
    """

    GAIN = 8.0  # the table's entries are small, so that steps of the optimiser are large for them

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key = nn.Linear(config.d_model, config.d_model)
        self.none = nn.Parameter(torch.zeros(config.d_model))
        self.table = nn.Parameter(torch.zeros(config.classes, config.vocab_size))

    def name(self, words: Tensor, pad: int) -> None:
        """Starts the table at the names: ids (classes, W), padded."""
        with torch.no_grad():
            self.table.zero_().scatter_(1, words, 0.5)[:, pad] = 0.0

    def forward(self, text: Tensor, regions: Tensor) -> Tensor:
        """text (B, n, d), regions (B, 2T, d) -> how much each word points at each (B, n, 2T), at most 1 in all."""
        query, key = self.query(text), self.key(regions)
        key = torch.cat([self.none.to(key.dtype).expand(len(key), 1, -1), key], dim=1)
        weight = upcast(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(-1)
        return weight[..., 1:]


class RegionModel(Trunk):
    """Visual token = looks (hidden state and classes of the region) + place + how sure + its counterparts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        size = config.d_model
        self.finder = RegionFinder(config)
        self.looks = nn.Linear(config.cell_size, size)
        # The words of each class's name, as `name_classes` sets them; saved with the weights.
        self.register_buffer("class_words", torch.full((config.classes, CLASS_WORDS), config.pad))
        self.place = nn.Linear(size, size)
        self.sureness = nn.Linear(1, size)
        self.matching = Matching(config)
        self.pointer = Pointer(config)
        # Words enter scaled by sqrt(d): with torch's own start they would drown their positions.
        for table in (self.embedding.words, self.embedding.types):
            nn.init.normal_(table.weight, std=0.5 * size**-0.5)
        self.regression = nn.Sequential(
            nn.Linear(size, size),
            nn.GELU(),
            nn.LayerNorm(size),
            nn.Linear(size, config.feature_dim - 3 * config.fine_channels),
        )

    @property
    def visual_tokens(self) -> int:
        """T, the regions of one image."""
        return self.config.regions

    def name_classes(self, words: Tensor) -> None:
        """Sets the names of the classes: ids (classes, W), padded; words past CLASS_WORDS are left out.

        What a region looks like is then put into the very vectors of the words that say it, which leaves the caption
        little more to learn than where to look.
        """
        words = words[:, :CLASS_WORDS]
        self.class_words.fill_(self.config.pad)
        self.class_words[:, : words.shape[1]] = words
        self.pointer.name(self.class_words, self.config.pad)

    def class_names(self) -> Tensor:
        """(classes, d): the vectors of the words of each name, added up; zeros for a class without one."""
        said = (self.class_words != self.config.pad).to(self.dtype)[..., None]
        return (self.embedding.words(self.class_words) * self.embedding.scale * said).sum(1)

    def find(self, batch: Mapping[str, Tensor]) -> Regions:
        """The regions of the photos (B images), or of all before and then all after images (2B)."""
        images = ("photo",) if "photo" in batch else ("before", "after")
        return self.finder(torch.cat([batch[role].to(self.dtype) for role in images]))

    def embed_images(self, batch: Mapping[str, Tensor], visual_mask: Tensor | None = None) -> ImageTokens:
        """A hidden region keeps its place and loses its looks, for its counterparts too."""
        regions = self.find(batch)
        dtype = self.dtype
        looks = self.looks(regions.hidden) + regions.classes.to(dtype) @ self.class_names()
        place = self.place(code(regions.position, self.config.d_model, 2.0 * max(self.config.grid)).to(dtype))
        own = place + self.sureness(0.2 * regions.score[..., None].to(dtype))
        classes = regions.classes
        if visual_mask is not None:
            hidden = visual_mask if "photo" in batch else torch.cat(visual_mask.chunk(2, dim=1))
            looks = looks.masked_fill(hidden[..., None], 0.0)
            classes = classes.masked_fill(hidden[..., None], 0.0)
        if "photo" in batch:
            return ImageTokens(self.embedding.visual(looks + own, BEFORE), classes=classes)
        (before, after), (looks_before, looks_after) = regions.chunk(), looks.chunk(2)
        own_before, own_after = own.chunk(2)
        match_before = self.matching(looks_before, before, looks_after, after)
        match_after = self.matching(looks_after, after, looks_before, before)
        return ImageTokens(
            self.embedding.visual(looks_before + own_before + match_before, BEFORE),
            self.embedding.visual(looks_after + own_after + match_after, AFTER),
            classes=torch.cat(classes.chunk(2), dim=1),
        )

    def word_logits(self, text: Tensor, pair: PairEncoding, images: Tensor, places: Tensor | None) -> Tensor:
        """The word head's, and what the pointer adds to the words of what it points at."""
        logits = upcast(super().word_logits(text, pair, images, places))
        words = text.reshape(len(text), -1, text.shape[-1])
        assert pair.classes is not None, "regions have classes"
        pointed = self.pointer(words, pair.visual(images)).to(pair.classes.dtype) @ pair.classes
        pointed = pointed.flatten(0, 1) if places is None else pointed.flatten(0, 1)[places]
        return logits + Pointer.GAIN * (pointed @ self.pointer.table.to(pointed.dtype))

    def pointed_at(self, images: Mapping[str, Tensor], captions: Tensor) -> Tensor:
        """(B, 2T): what all words of a caption point at, added up, then squared: words glance at many things."""
        pair = self.encode_pair(self.embed_images(images))
        fused = self.cross_modal_causal(pair, captions)
        said = (captions != self.config.pad) & (captions != self.config.eos)
        return (self.pointer(fused.text, pair.visual(fused.images)) * said[..., None]).sum(1).square()

    def on_grid(self, images: Mapping[str, Tensor], share: Tensor) -> Tensor:
        """(B, 2, 2 rows, 2 columns): fine cells; a region's number goes to the cells around it that show its class."""
        sides = zip(("before", "after"), self.find(images).chunk(), share.chunk(2, dim=1), strict=True)
        return torch.stack([self._spread(images[role], regions, part) for role, regions, part in sides], dim=1)

    def _spread(self, features: Tensor, regions: Regions, share: Tensor) -> Tensor:
        """Features (B, N, F) of an image, its regions, a number of each (B, T) -> (B, 2 rows, 2 columns)."""
        height, width = (2 * side for side in self.config.grid)
        classes = upcast(regions.classes)
        shown = self.finder.shown(features)  # (B, M, C)
        alike = classes @ shown.transpose(1, 2) / classes.square().sum(-1, keepdim=True).clamp_min(1e-6)
        position = regions.position
        rows = torch.arange(height, device=position.device)[:, None] - position[..., 1, None, None]
        columns = torch.arange(width, device=position.device) - position[..., 0, None, None]
        near = torch.exp(-(rows.square() + columns.square()) / (2 * SPREAD**2))  # (B, T, 2 rows, 2 columns)
        return (share[..., None, None] * near * alike.clamp(max=1).unflatten(-1, (height, width))).sum(1)

    def visual_features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The backbone's features at the regions."""
        with torch.no_grad():
            features = self.find(batch).features
        return features if "photo" in batch else torch.cat(features.chunk(2), dim=1)

    def feature_head(self, hidden: Tensor) -> Tensor:
        """(n, d) -> (n, C_fine + C_coarse)."""
        return self.regression(hidden)

    def image_labels(self, images: Sequence[Tensor], present: Tensor) -> Tensor:
        """The loss (B,) of naming classes, present (B, C): in a photo (B, N, F) or in what is new in a pair."""
        if len(images) == 1:
            return image_labels_loss(self.finder.shown(images[0]), present)
        shown, new = self.finder.shown_in_pair(*images)
        return image_labels_loss(shown, present, new)
