"""Our architecture: regions are found where things are, counterparts are told from camera motion, names are used."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from idc.losses import objectives
from idc.model.build import build
from idc.model.config import NOT_SCORED, ModelConfig
from idc.model.regions import Regions, image_labels_loss

GRID, FINE, COARSE, CLASSES = (4, 5), 6, 7, 3
STEP = 4.0  # of a fine cell: 40 to the longer side


def make(seed: int = 0, **changes):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "heads": 2, "d_ff": 32, "cross_modal_blocks": 1, "cell_size": 24}
    tokens = {"regions": 4, "novelties": 2, "pooled": 2}
    config = ModelConfig(
        **{
            "architecture": "idc", "vocab_size": 20, "grid": GRID, "feature_dim": 4 * FINE + COARSE, "max_length": 8,
            "fine_channels": FINE, "classes": CLASSES, "dropout": 0.0, "attention_dropout": 0.0,
            "layer_norm": "standard", "final_norm": True, **sizes, **tokens, **changes,
        }
    )  # fmt: skip
    return build(config)


def photos_with_blobs(places: list[tuple[int, int, int]], generator: torch.Generator) -> torch.Tensor:
    """(n, N, F): noise, and in image i a thing of class c in the fine cell (row, column), folded into the grid."""
    height, width = GRID
    fine = 0.3 * torch.randn(len(places), 2 * height, 2 * width, FINE, generator=generator)
    for image, (row, column, kind) in enumerate(places):
        fine[image, row, column, kind] += 4.0
    folded = fine.reshape(len(places), height, 2, width, 2, FINE).transpose(2, 3).flatten(3)
    coarse = 0.3 * torch.randn(len(places), height, width, COARSE, generator=generator)
    return torch.cat([folded, coarse], dim=-1).flatten(1, 2)


def test_image_labels_alone_teach_where_things_are():
    generator = torch.Generator().manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.finder.parameters(), lr=1e-2)

    def draw(count: int):
        rows = torch.randint(0, 2 * GRID[0], (count,), generator=generator)
        columns = torch.randint(0, 2 * GRID[1], (count,), generator=generator)
        kinds = torch.randint(0, CLASSES, (count,), generator=generator)
        places = list(zip(rows.tolist(), columns.tolist(), kinds.tolist(), strict=True))
        return photos_with_blobs(places, generator), places, kinds

    for _ in range(150):
        photos, _, kinds = draw(32)
        present = torch.nn.functional.one_hot(kinds, CLASSES)
        losses = objectives.losses(model, "labels", {"photo": photos, "present": present})["labels"]
        assert losses.count == 32
        optimizer.zero_grad()
        losses.mean.backward()
        optimizer.step()
    photos, places, kinds = draw(64)
    regions = model.find({"photo": photos})
    assert (regions.classes[:, 0].argmax(-1) == kinds).float().mean() > 0.9
    true = torch.tensor([(column, row) for row, column, _ in places]) + 0.5
    # Within the 3 x 3 cells whose mean a cell is shown: by chance one in nine.
    assert ((regions.position[:, 0] / STEP - true).norm(dim=-1) < 1.5).float().mean() > 0.9


def test_a_batch_without_labels_adds_nothing():
    model, generator = make(), torch.Generator().manual_seed(0)
    images = {role: photos_with_blobs([(1, 1, 0), (2, 2, 1)], generator) for role in ("before", "after")}
    batch = images | {"present": torch.full((2, CLASSES), NOT_SCORED)}
    loss = objectives.losses(model, "labels", batch)["labels"]
    loss.sum.backward()
    assert loss.count == 0 and loss.sum.item() == 0.0


def test_noisy_or_counts_cells():
    """Two cells of probability 1/2 each: the class is there with 3/4."""
    shown, present = torch.tensor([0.5, 1e-6]).expand(1, 2, 2), torch.tensor([[1.0, 0.0]])
    loss = image_labels_loss(shown, present)
    assert loss.item() == pytest.approx(-torch.log(torch.tensor(0.75)).item(), abs=1e-4)
    loss = image_labels_loss(shown, present, torch.tensor([[1.0, 0.5]]))  # the second cell counts half
    assert loss.item() == pytest.approx(-torch.log(torch.tensor(0.625)).item(), abs=1e-4)


def test_a_cell_holds_one_kind_or_several_words():
    logits = torch.tensor([0.0, 0.0, 1.0])  # two classes, nothing
    kinds, words = make().finder, make(attributes=True).finder
    assert kinds.something(logits).item() == pytest.approx(torch.log(torch.tensor(2.0)).item() - 1)
    assert kinds.probabilities(logits).sum().item() == pytest.approx(2 / (2 + torch.e))
    there = torch.sigmoid(torch.tensor(-1.0)).item()
    assert words.something(logits).sigmoid().item() == pytest.approx(there)
    torch.testing.assert_close(words.probabilities(logits), torch.full((2,), there / 2))


@pytest.mark.slow
def test_labels_of_pairs_teach_what_things_are_though_most_goes_unsaid():
    """Things of all kinds stand in both images; one more is in the second, and its kind is all that is said."""
    generator = torch.Generator().manual_seed(0)
    model = make(attributes=True)
    optimizer = torch.optim.AdamW(model.finder.parameters(), lr=1e-2)

    def draw(count: int):
        """Pairs, kinds and cells of what is new."""
        places = torch.stack([torch.randperm(4 * GRID[0] * GRID[1], generator=generator) for _ in range(count)])
        kinds = torch.randint(0, CLASSES, (count,), generator=generator)
        height, width = GRID
        fine = torch.zeros(count, 2 * height * 2 * width, FINE)
        rows = torch.arange(count)
        for kind in range(CLASSES):
            fine[rows, places[:, kind], kind] = 4.0
        images = []
        for extra in (False, True):
            if extra:
                fine[rows, places[:, CLASSES], kinds] = 4.0
            noisy = (fine + 0.1 * torch.randn(fine.shape, generator=generator)).unflatten(1, (height, 2, width, 2))
            folded = noisy.transpose(2, 3).flatten(3).flatten(1, 2)
            images.append(torch.cat([folded, torch.zeros(count, height * width, COARSE)], dim=-1))
        return images, kinds, places[:, CLASSES]

    for _ in range(200):
        (before, after), kinds, _ = draw(32)
        batch = {"before": before, "after": after, "present": torch.nn.functional.one_hot(kinds, CLASSES)}
        losses = objectives.losses(model, "labels", batch)["labels"]
        optimizer.zero_grad()
        losses.mean.backward()
        optimizer.step()
    (_, after), kinds, places = draw(64)
    shown = model.finder.shown(after)[torch.arange(64), places]
    assert (shown.argmax(-1) == kinds).float().mean() > 0.9
    # What stays in both images is never said, and known all the same.
    kept = model.finder.shown(draw(64)[0][0])
    assert (kept.amax(1) > 0.3).float().mean() > 0.9


def test_how_cameras_move_is_learnt_from_what_is_said():
    """Cameras only pan; whether the first of four things has moved by itself, too, is all that is asked."""
    model, generator = make(regions=4), torch.Generator().manual_seed(0)
    matching, answer = model.matching, torch.nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*matching.parameters(), *answer.parameters()], lr=2e-3)
    looks = torch.eye(4, 16).expand(64, 4, 16)

    def regions(position: torch.Tensor) -> Regions:
        return Regions(looks, looks, position, torch.full((64, 4), 5.0), looks)

    for _ in range(100):
        position = STEP * torch.rand(64, 4, 2, generator=generator) * torch.tensor([10.0, 8.0])
        panned = position + STEP * torch.randn(64, 1, 2, generator=generator)
        moved = torch.rand(64, generator=generator) < 0.5
        steps = torch.nn.functional.normalize(torch.randn(64, 2, generator=generator), dim=-1)
        panned[:, 0] += 1.5 * STEP * moved[:, None] * steps
        found = answer(matching(looks, regions(position), looks, regions(panned))).amax(1)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(found, moved.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    x, x_by_x, x_by_y, y, y_by_x, y_by_y = matching.camera.square().sum(1).tolist()
    assert min(x_by_x, x_by_y, y_by_x, y_by_y) > 10 * max(x, y)


def test_places_are_compared_in_full_precision_under_autocast():
    model = make(regions=4).eval()
    generator = torch.Generator().manual_seed(3)
    regions = model.find({side: photos_with_blobs([(1, 1, 0), (3, 4, 1)], generator) for side in ("before", "after")})
    regions = dataclasses.replace(regions, position=31 + regions.position)
    looks = torch.randn(2, 4, 6, 16, generator=generator)
    seen = []
    model.matching.expand.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            model.matching(looks[0], regions, looks[1], regions.swapped())
    torch.testing.assert_close(seen[0], seen[1])


@pytest.mark.parametrize("token", [1, 4, 7])  # a region of something, one of novelty, a pooled cell
def test_what_a_hidden_token_shows_leaves_no_trace_in_any(token, monkeypatch):
    model = make().eval()
    cells, finder = model.finder.map, model.finder
    generator = torch.Generator().manual_seed(1)
    batch = {side: photos_with_blobs([(1, 1, 0), (3, 4, 1)], generator) for side in ("before", "after")}
    mask = torch.zeros(2, 2 * model.visual_tokens, dtype=torch.bool)
    mask[:, model.visual_tokens + token] = True  # of the image after
    spots = torch.stack([torch.randperm(80, generator=generator)[:6] for _ in range(4)])  # before, after
    monkeypatch.setattr(finder, "_spots", lambda maps, new: spots)  # peaks stay where they are, whatever is there
    blank = finder._blank(spots, torch.cat(mask.chunk(2, dim=1)))[2:]
    assert 4 <= blank[0].sum() <= 20 + 5
    folded = blank.view(2, GRID[0], 2, GRID[1], 2).transpose(2, 3).reshape(2, -1, 4)
    hidden = torch.cat([folded.repeat_interleave(FINE, dim=2), folded.any(2, keepdim=True).expand(-1, -1, COARSE)], 2)
    noise = torch.randn(batch["after"].shape, generator=generator)
    other = batch | {"after": torch.where(hidden, noise, batch["after"])}
    first, second, seen, changed = (
        model.embed_images(images, shown) for shown in (mask, None) for images in (batch, other)
    )
    for name in ("before", "after", "classes", "overall"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name))
        assert not torch.allclose(getattr(seen, name), getattr(changed, name))
    assert cells.channels == FINE + COARSE


def test_features_of_half_precision_are_taken_under_autocast():
    model = make().eval()
    generator = torch.Generator().manual_seed(3)
    batch = {side: photos_with_blobs([(1, 1, 0)], generator).half() for side in ("before", "after")}
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.embed_images(batch)
        grid = model.on_grid(batch, model.encode_pair(tokens), torch.ones(1, 2 * model.visual_tokens))
    assert tokens.before.shape == (1, model.visual_tokens, 16) and grid.shape == (1, 2, 8, 10)


def test_names_of_classes_enter_the_tokens_and_are_saved():
    model = make().eval()
    batch = {"photo": photos_with_blobs([(1, 1, 0)], torch.Generator().manual_seed(1))}
    unnamed = model.embed_images(batch).before
    model.name_classes(torch.tensor([[6, 7], [8, 0], [9, 10]]))
    words = model.embedding.words.weight * 16**0.5
    torch.testing.assert_close(model.class_names()[0], words[6] + words[7])
    torch.testing.assert_close(model.class_names()[1], words[8])
    named = model.embed_images(batch).before
    assert not torch.allclose(unnamed, named)
    other = make(seed=1).eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.embed_images(batch).before, named)


def test_the_pointer_says_the_words_of_what_it_points_at():
    model = make().eval()
    model.name_classes(torch.tensor([[6, 7], [8, 0], [9, 10]]))
    pointer = model.pointer
    text, regions = torch.randn(2, 3, 16), torch.randn(2, 8, 16)
    classes = torch.zeros(2, 8, CLASSES)
    classes[0, :, 0] = classes[1, :, 1] = 1.0
    pointed = pointer(text, regions) @ classes
    assert pointed.shape == (2, 3, CLASSES)
    assert (pointed[0, :, 0] > 0).all() and (pointed[0, :, 1:] == 0).all()
    likelier = pointed @ pointer.table
    assert set(likelier[0, 0].nonzero().flatten().tolist()) == {6, 7}  # the name's words, and no padding
    assert set(likelier[1, 0].nonzero().flatten().tolist()) == {8}
    with torch.no_grad():
        pointer.none.fill_(1e3)
        pointer.query.bias.fill_(1e3)
        pointer.query.weight.zero_()
    assert pointer(text, regions).abs().max() < 1e-6  # none of them


def test_decoding_points_as_training_does():
    """Word by word with the cache, and all at once: the same logits, for each of several captions of a pair."""
    model = make().eval()
    model.name_classes(torch.tensor([[6, 7], [8, 0], [9, 10]]))
    generator = torch.Generator().manual_seed(3)
    batch = {side: photos_with_blobs([(1, 1, 0), (3, 4, 1)], generator) for side in ("before", "after")}
    captions = torch.tensor([[[1, 6, 7, 9], [1, 8, 11, 6]], [[1, 9, 10, 8], [1, 12, 6, 7]]])
    with torch.no_grad():
        pair = model.encode_pair(model.embed_images(batch))
        fused = model.cross_modal_causal(pair, captions)
        expected = model.word_logits(fused.text, pair, fused.images, None).view(2, 2, 4, -1)
        state, _ = model.start_captions(batch, 8, beam=2)
        for position in range(4):
            found = model.next_word(state, captions[:, :, position])
            torch.testing.assert_close(found, expected[:, :, position], rtol=1e-4, atol=1e-4)


def test_what_is_pointed_at_lies_where_the_token_is():
    model = make().eval()
    model.name_classes(torch.tensor([[6, 7], [8, 0], [9, 10]]))
    generator = torch.Generator().manual_seed(4)
    images = {side: photos_with_blobs([(1, 1, 0), (5, 7, 1)], generator) for side in ("before", "after")}
    tokens, regions = model.visual_tokens, model.peaks
    with torch.no_grad():
        encoding = model.encode_pair(model.embed_images(images))
        positions = model.find(images).position.view(2, 2, regions, 2) / STEP  # side, pair
        for token in range(2 * tokens):
            share = torch.zeros(2, 2 * tokens)
            share[:, token] = 1.0
            for pair, sides in enumerate(model.on_grid(images, encoding, share)):
                side, place = divmod(token, tokens)
                assert sides[1 - side].abs().max() == 0
                if place >= regions:
                    assert torch.equal(sides[side].flatten() > 0, model.finder.map.owner == place - regions)
                    continue
                column, row = positions[side, pair, place].tolist()
                peak = divmod(int(sides[side].argmax()), 2 * GRID[1])
                assert abs(peak[0] + 0.5 - row) <= 1 and abs(peak[1] + 0.5 - column) <= 1  # those alike are near
        captions = torch.tensor([[1, 6, 7, 2, 0, 0], [1, 9, 10, 8, 6, 2]])
        pointed = model.pointed_at(encoding, captions)
        assert pointed.shape == (2, 2 * tokens)
        # Padding and what comes after the end do not count.
        longer = torch.nn.functional.pad(captions, (0, 2))
        torch.testing.assert_close(model.pointed_at(encoding, longer), pointed)


def test_fine_tuning_names_regions_as_the_labels_of_pairs_do():
    model = make(attributes=True, regions=0, novelties=6).eval()
    generator = torch.Generator().manual_seed(2)
    pairs = {side: photos_with_blobs([(1, 1, 0), (3, 4, 1), (2, 2, 2)], generator) for side in ("before", "after")}
    present = torch.tensor([[1.0, 0.0, 1.0], [-1.0] * 3, [0.0, 1.0, 0.0]])  # nobody knows of the second
    alone = objectives.losses(model, "labels", pairs | {"present": present})["labels"]
    caption = torch.tensor([[1, 6, 7, 2], [1, 8, 2, 0], [1, 9, 2, 0]])
    beside = objectives.losses(model, "finetune", pairs | {"caption": caption, "present": present})["labels"]
    assert alone.count == beside.count == 2
    torch.testing.assert_close(beside.sum, alone.sum)


def test_every_task_trains_every_part():
    model = make()
    model.name_classes(torch.tensor([[6, 7], [8, 0], [9, 10]]))
    generator = torch.Generator().manual_seed(2)
    pair = {side: photos_with_blobs([(1, 1, 0), (3, 4, 1)], generator) for side in ("before", "after")}
    caption = torch.tensor([[1, 6, 7, 2], [1, 8, 2, 0]])
    labels = torch.tensor([[-1, 6, -1, -1], [-1, 8, -1, -1]])
    mask = torch.zeros(2, 2 * model.visual_tokens, dtype=torch.bool)
    mask[:, 0] = True
    negatives = torch.tensor([[[1, 6, 2], [1, 9, 2]], [[1, 8, 2], [1, 7, 2]]])
    batches = {
        "mlm": pair | {"caption_masked": caption, "caption_labels": labels},
        "mvcl": pair | {"caption": caption, "visual_mask": mask},
        "fda": pair | {"caption_with_negatives": negatives},
        "classify": pair
        | {name: torch.tensor([0, 1]) for name in ("class_before", "class_after")}
        | {"same_class": torch.ones(2, dtype=torch.int64)},
        "labels": {"photo": pair["before"], "present": torch.eye(2, 3)},
        "finetune": pair | {"caption": caption, "changed": torch.tensor([1, 0]), "caption_with_negatives": negatives},
    }
    reached: set[str] = set()
    for task, batch in batches.items():
        model.zero_grad()
        losses = objectives.losses(model, task, batch)
        sum(loss.mean for loss in losses.values()).backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    missed = {name for name, _ in model.named_parameters()} - reached
    assert not {name for name in missed if not name.endswith("key.bias")}, missed
