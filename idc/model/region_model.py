"""Our architecture: the published network on tokens that carry what matches them in the other image.

The published one sees grid cells and has to learn by itself which cell of one image belongs to which of the other. Here
a token is a region (`idc.model.regions`) or a cell of a coarse, pooled grid, and is told, before the first transformer
block, its counterparts in the other image. Every token is told of three cells (the one at its place, the most alike
nearby and anywhere: `idc.model.cells`); a region also of other regions, by looks, by place and by both
(`idc.model.matching`). Each comes with what differs, how far it has moved, and how good the match is. No counterpart:
added or dropped; same place and other looks: recoloured; same looks elsewhere: moved; all of the grid differs: a change
of the whole image, of which the CLS tokens are told too. All weights are shared between the two directions, and no
closed label set is needed.

Shapes: B pairs, T tokens an image: P regions, then G pooled cells; C classes, D = cell_size, d = d_model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from idc.model.cells import STEPS, pooled_sides
from idc.model.config import ModelConfig
from idc.model.layers import upcast
from idc.model.matching import Comparison, Matching, code
from idc.model.regions import RegionFinder, Regions, Seen, image_labels_loss, swapped
from idc.model.trunk import AFTER, BEFORE, ImageTokens, PairEncoding, Trunk

CLASS_WORDS = 8  # of a class name, at most
SPREAD = 3.0  # steps: how far from its centre a thing may reach, in the map of what is pointed at


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
    """Visual token = what is there + place + how sure + what its counterparts say."""

    class_words: Tensor  # (classes, CLASS_WORDS) ids
    rewrites_images = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        size = config.d_model
        self.finder = RegionFinder(config)
        self.peaks, sides = config.regions + config.novelties, pooled_sides(config)
        self.pooled = sides[0] * sides[1]
        self.looks = nn.Linear(config.cell_size, size)
        # The words of each class's name, as `name_classes` sets them; saved with the weights.
        self.register_buffer("class_words", torch.full((config.classes, CLASS_WORDS), config.pad))
        self.place = nn.Linear(size, size)
        self.sureness = nn.Linear(1, size)
        self.matching = Matching(config)
        self.cell = nn.Linear(self.finder.map.channels, size)
        self.comparison = Comparison(config)
        self.overall = nn.Linear(2 * self.finder.map.channels, size, bias=False)
        self.pointer = Pointer(config)
        # Words enter scaled by sqrt(d): with torch's own start they would drown their positions.
        for table in (self.embedding.words, self.embedding.types):
            nn.init.normal_(table.weight, std=0.5 * size**-0.5)
        self.regression = nn.Sequential(
            nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size), nn.Linear(size, self.finder.map.channels)
        )

    @property
    def visual_tokens(self) -> int:
        """T, the regions and pooled cells of one image."""
        return self.peaks + self.pooled

    def standardise(self, features: Tensor) -> None:
        """Features (n, N, F) of training images: from now on all channels have mean 0 and deviation 1 over these."""
        self.finder.map.standardise(features)

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

    def look(self, batch: Mapping[str, Tensor], visual_mask: Tensor | None = None) -> Seen:
        """What is seen in the photos (B images), or in all before and then all after images (2B)."""
        roles = ("photo",) if "photo" in batch else ("before", "after")
        return self.finder.look([batch[role] for role in roles], visual_mask)

    def find(self, batch: Mapping[str, Tensor]) -> Regions:
        """The regions of the photos (B images), or of all before and then all after images (2B)."""
        return self.finder(self.look(batch))

    def looks_of(self, regions: Regions) -> Tensor:
        """(B, P, d): what regions look like, beside the words of the classes that they show."""
        return self.looks(regions.hidden) + regions.classes.to(self.dtype) @ self.class_names()

    def embed_images(self, batch: Mapping[str, Tensor], visual_mask: Tensor | None = None) -> ImageTokens:
        """A hidden token keeps its place; its cells are blank for all tokens of both images."""
        seen = self.look(batch, visual_mask)
        regions, dtype = self.finder(seen), self.dtype
        looks = self.looks_of(regions)
        middle = self.finder.map.seen(seen.around[:, :, 4])  # of the 3 x 3 cells
        own = self.cell(torch.cat([middle, seen.pooled], dim=1).to(dtype))
        grid = self.finder.map.pooled_place.expand(len(own), -1, -1)
        place = self.place(code(torch.cat([regions.position, grid], dim=1), self.config.d_model, STEPS).to(dtype))
        sure = self.sureness(0.2 * regions.score[..., None].to(dtype))
        tokens = own + place + with_nothing(looks + sure, self.pooled)
        classes = regions.classes
        if "photo" in batch:
            return ImageTokens(self.embedding.visual(tokens, BEFORE), classes=classes)
        assert seen.counterparts is not None, "pairs have counterparts"
        told = self.comparison(own, self.cell(seen.counterparts.features.to(dtype)), seen.counterparts)
        matched = self.matching(looks, regions, swapped(looks), regions.swapped())
        tokens = tokens + told + with_nothing(matched, self.pooled)
        of_before, of_after = tokens.chunk(2)
        differs = self.overall((seen.overall.chunk(2)[1] - seen.overall.chunk(2)[0]).to(dtype))
        return ImageTokens(
            self.embedding.visual(of_before, BEFORE),
            self.embedding.visual(of_after, AFTER),
            classes=torch.cat(classes.chunk(2), dim=1),
            novelty=torch.cat(seen.novelty.chunk(2), dim=1),
            overall=torch.stack([differs, -differs], dim=1),
            position=torch.cat(regions.position.chunk(2), dim=1),
            score=torch.cat(regions.score.chunk(2), dim=1),
        )

    def pointed(self, text: Tensor, pair: PairEncoding, images: Tensor) -> Tensor:
        """How much each word of text (B, n, d) points at each region: (B, n, 2P), before first; photos (B, n, P)."""
        visual = pair.visual(images).unflatten(1, (-1, self.visual_tokens))[:, :, : self.peaks]
        return self.pointer(text, visual.flatten(1, 2))

    def word_logits(self, text: Tensor, pair: PairEncoding, images: Tensor, places: Tensor | None) -> Tensor:
        """The word head's, and what the pointer adds to the words of what it points at."""
        logits = upcast(super().word_logits(text, pair, images, places))
        words = text.reshape(len(text), -1, text.shape[-1])
        assert pair.classes is not None, "regions have classes"
        pointed = self.pointed(words, pair, images).to(pair.classes.dtype) @ pair.classes
        pointed = pointed.flatten(0, 1) if places is None else pointed.flatten(0, 1)[places]
        return logits + Pointer.GAIN * (pointed @ self.pointer.table.to(pointed.dtype))

    def pointed_at(self, pair: PairEncoding, captions: Tensor) -> Tensor:
        """(B, 2T): what all words of a caption point at, added up, then squared: words glance at many things."""
        fused = self.cross_modal_causal(pair, captions)
        said = (captions != self.config.pad) & (captions != self.config.eos)
        share = (self.pointed(fused.text, pair, fused.images) * said[..., None]).sum(1).square()
        return with_nothing(share.unflatten(1, (2, -1))[..., None], self.pooled)[..., 0].flatten(1)

    def profile(self, images: Mapping[str, Tensor], pair: PairEncoding) -> Tensor:
        """(B, 3): how sure the regions are of what they show, on average: the likeliest class, whether there is
        something, and the negative entropy over classes. Another camera or renderer leaves regions about as sure; other
        things do not. Features averaged over the image call both unfamiliar."""
        assert pair.classes is not None and pair.score is not None, "regions have classes and scores"
        classes = upcast(pair.classes).clamp_min(1e-9)
        parts = (classes.amax(-1), upcast(pair.score), (classes * classes.log()).sum(-1))
        return torch.stack([part.mean(1) for part in parts], dim=-1)

    def on_grid(self, images: Mapping[str, Tensor], pair: PairEncoding, share: Tensor) -> Tensor:
        """(B, 2, rows, columns): fine cells; a region's number goes to the cells around it that show its class, that of
        a pooled cell to all of its own."""
        assert pair.classes is not None and pair.position is not None, "regions have classes and places"
        sides = zip(
            ("before", "after"), pair.classes.chunk(2, 1), pair.position.chunk(2, 1), share.chunk(2, 1), strict=True
        )
        return torch.stack([self._spread(images[role].to(self.dtype), *regions) for role, *regions in sides], dim=1)

    def _spread(self, features: Tensor, classes: Tensor, position: Tensor, share: Tensor) -> Tensor:
        """Features (B, N, F) of an image, classes (B, P, C) and places (B, P, 2) of its regions, a number of each token
        (B, T) -> (B, rows, columns)."""
        cells = self.finder.map
        of_regions, of_pooled = share.split([self.peaks, self.pooled], dim=1)
        classes = upcast(classes)
        shown = self.finder.shown(features)  # (B, M, C)
        alike = classes @ shown.transpose(1, 2) / classes.square().sum(-1, keepdim=True).clamp_min(1e-6)
        apart = (cells.place - position[:, :, None]).square().sum(-1)  # (B, P, M)
        near = torch.exp(-apart / (2 * SPREAD**2))
        spread = (of_regions[..., None] * near * alike.clamp(max=1)).sum(1) + of_pooled[:, cells.owner]
        return spread.unflatten(1, (cells.rows, cells.columns))

    def visual_features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The backbone's features at the regions and in the pooled cells, standardised."""
        with torch.no_grad():
            seen = self.look(batch)
            features = torch.cat([self.finder(seen).features, seen.pooled], dim=1)
        return features if "photo" in batch else torch.cat(features.chunk(2), dim=1)

    def feature_head(self, hidden: Tensor) -> Tensor:
        """(n, d) -> (n, channels of the backbone)."""
        return self.regression(hidden)

    def image_labels(self, images: Sequence[Tensor], present: Tensor) -> Tensor:
        """The loss (B,) of naming classes, present (B, C): in all cells of a photo (B, N, F), or at the regions of what
        is new in a pair."""
        if len(images) == 1:
            return image_labels_loss(self.finder.shown(images[0]), present)
        seen = self.look(dict(zip(("before", "after"), images, strict=True)))
        classes = torch.cat(self.finder(seen).classes.chunk(2), dim=1)
        return image_labels_loss(classes, present, torch.cat(seen.novelty.chunk(2), dim=1))

    def region_labels(self, pair: PairEncoding, present: Tensor) -> Tensor:
        """The loss (B,) of naming classes, present (B, C), at the regions of what is new in a pair."""
        assert pair.classes is not None, "regions have classes"
        return image_labels_loss(pair.classes, present, pair.novelty)


def with_nothing(tokens: Tensor, number: int) -> Tensor:
    """(..., n, d) -> (..., n + number, d): zeros for the tokens that come after."""
    return torch.nn.functional.pad(tokens, (0, 0, 0, number))
