"""Maps of what a caption is about, and their way to the pixels of an image."""

import numpy as np
import pytest
import torch

from idc.backbone.canvas import Canvas
from idc.captioning.heat_map import by_gradient, change_map

FORMS = ("causal", "masked")


@torch.no_grad()
def log_probability(model, tokens, captions):
    """Of whole captions (B, L) given embedded images; the words all hidden where the model reads them from <mask>."""
    config, pair = model.config, model.encode_pair(tokens)
    words, labels = captions[:, :-1], captions[:, 1:]
    if config.caption_loss == "masked":
        words, labels = captions.clone(), captions.clone()
        words[:, 1:][words[:, 1:] != config.pad] = config.mask
        labels[:, 0] = config.pad
    logits = model.word_head(model.cross_modal_causal(pair, words).text).log_softmax(-1)
    return (logits.gather(-1, labels[..., None])[..., 0] * (labels != config.pad)).sum(1)


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_says_what_scaling_a_token_would_do(make_model, make_batch, form):
    model, batch = make_model(caption_loss=form).double(), make_batch(samples=2)
    images = {side: batch[side].double() for side in ("before", "after")}
    found = by_gradient(model, images, batch["caption"])
    assert found.shape == (2, 12)
    with torch.no_grad():
        tokens = model.embed_images(images)
    step = 1e-5
    for side, first in (("before", 0), ("after", 6)):
        for cell in (0, 4):
            said = []
            for scale in (1 - step, 1 + step):
                changed = getattr(tokens, side).clone()
                changed[:, cell] *= scale
                said.append(log_probability(model, type(tokens)(**(vars(tokens) | {side: changed})), batch["caption"]))
            expected = ((said[1] - said[0]) / (2 * step)).abs()
            torch.testing.assert_close(found[:, first + cell], expected, rtol=1e-4, atol=1e-7)


def test_the_map_of_grid_cells_is_their_grid(make_model, make_batch):
    model, batch = make_model(), make_batch(samples=2)
    images = {side: batch[side] for side in ("before", "after")}
    model.train()
    found = change_map(model, images, batch["caption"])
    assert model.training and found.shape == (2, 2, 2, 3) and found.dtype == torch.float32
    torch.testing.assert_close(found.flatten(1), by_gradient(model.eval(), images, batch["caption"]))


@pytest.mark.parametrize("size", [(30, 80), (80, 30), (120, 160)])
def test_a_cell_is_drawn_where_the_backbone_sees_it(size):
    """A bright square on an image, put on the canvas by hand and cut into cells, comes back to its place."""
    canvas = Canvas((96, 128), (96, 128))
    top, left, tall, wide = canvas.place(*size)
    row, column = top + tall // 3, left + wide // 3
    grid = np.zeros((24, 32), np.float32)
    grid[row // 4, column // 4] = 1.0
    drawn = canvas.on_image(grid, *size)
    assert drawn.shape == size
    found = np.unravel_index(drawn.argmax(), size)
    scale = size[0] / tall
    assert abs(found[0] - (row - top) * scale) <= 4 * scale + 1
    assert abs(found[1] - (column - left) * scale) <= 4 * scale + 1
