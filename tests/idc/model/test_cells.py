"""What is seen before anything is learnt: standardised maps of one level or two, and which cells belong together."""

from __future__ import annotations

import pytest
import torch

from idc.model.cells import STEPS, CellMap, best_within, counterparts, places, pool_matrix
from idc.model.config import ModelConfig

GRID, FINE, COARSE = (4, 6), 3, 5


def make(**changes) -> CellMap:
    sizes = {"grid": GRID, "feature_dim": 4 * FINE + COARSE, "fine_channels": FINE, "pooled": 2} | changes
    return CellMap(ModelConfig(architecture="idc", vocab_size=20, classes=3, **sizes))


@pytest.mark.parametrize("levels", [1, 2])
def test_channels_are_standardised_by_the_training_images(levels):
    generator = torch.Generator().manual_seed(0)
    cells = make() if levels == 2 else make(feature_dim=COARSE, fine_channels=0)
    scale = 10.0 ** torch.arange(-2, 3)  # of the channels of the coarse level, or the only one
    features = torch.randn(50, 24, 4 * FINE + COARSE if levels == 2 else COARSE, generator=generator)
    features[..., -COARSE:] = features[..., -COARSE:] * scale + 3 * scale
    cells.standardise(features.half())
    seen = cells.seen(cells(features))
    assert seen.shape == (50, 4 * levels, 6 * levels, cells.channels)
    exact = seen[..., : cells.fine].flatten(0, 2)  # what is not interpolated
    torch.testing.assert_close(exact.mean(0), torch.zeros(cells.fine), atol=1e-2, rtol=0)
    torch.testing.assert_close(exact.std(0), torch.ones(cells.fine), atol=1e-2, rtol=0)
    assert 0.3 < seen.flatten(0, 2).std(0).min() < seen.flatten(0, 2).std(0).max() < 1.1
    other = make() if levels == 2 else make(feature_dim=COARSE, fine_channels=0)
    other.load_state_dict(cells.state_dict())
    torch.testing.assert_close(other(features), cells(features))


def test_the_finer_level_is_unfolded():
    fine = torch.randn(2, 8, 12, FINE, generator=torch.Generator().manual_seed(0))
    folded = fine.view(2, 4, 2, 6, 2, FINE).transpose(2, 3).reshape(2, 24, 4 * FINE)
    cells = make()(torch.cat([folded, torch.zeros(2, 24, COARSE)], dim=-1))
    torch.testing.assert_close(cells[..., :FINE], fine)
    torch.testing.assert_close(cells[:, 3, 4, FINE : 2 * FINE], fine[:, 2:5, 3:6].mean((1, 2)))


def test_pooled_cells_are_means_of_equal_parts_of_the_image():
    assert torch.allclose(pool_matrix(2, 3), torch.tensor([[2, 1, 0], [0, 1, 2]]) / 3)
    cells = make()
    maps = torch.randn(2, 8, 12, 7, generator=torch.Generator().manual_seed(0))
    places_of_pooled = torch.tensor([[10.0, 20 / 3], [30.0, 20 / 3], [10.0, 20.0], [30.0, 20.0]])
    torch.testing.assert_close(cells.pooled_place, places_of_pooled)
    means = maps.view(2, 2, 4, 2, 6, 7).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(cells.pooled(maps), means)
    torch.testing.assert_close(cells.pooled(maps).mean(1), maps.mean((1, 2)))
    assert torch.equal(cells.owner.view(8, 12)[4:, :6], torch.full((4, 6), 2))


def test_the_best_of_a_window_is_found_in_both_directions():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.nn.functional.normalize(torch.randn(2, 3, 5, 7, 4, generator=generator), dim=-1)
    found = best_within(one, two, 2)
    cosine = torch.einsum("bijc,bklc->bijkl", one, two)
    for row in range(5):
        for column in range(7):
            near = slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3)
            torch.testing.assert_close(found[0][:, row, column], cosine[:, row, column][:, *near].amax((1, 2)))
            torch.testing.assert_close(found[1][:, row, column], cosine[:, *near, row, column].amax((1, 2)))


def test_what_the_camera_shifts_is_not_new():
    generator = torch.Generator().manual_seed(0)
    cells = make(grid=(6, 20), feature_dim=5, fine_channels=0)
    assert cells.reach == 1 and cells.step == 2.0
    image = torch.nn.functional.normalize(torch.randn(1, 6, 20, 5, generator=generator), dim=-1)
    other = image.roll((1, -1), dims=(1, 2)).clone()
    other[0, 3, 3] = -other[0, 3, 3]
    new = cells.novelty(other.flatten(1, 2), image.flatten(1, 2))[0].view(6, 20)[1:, :19]  # the rest has come in
    assert new[2, 3] > 1e-3
    new[2, 3] = 0
    assert new.max() < 1e-5


def test_counterparts_are_at_the_place_near_and_anywhere():
    signs = torch.eye(12)[None]  # of 3 x 4 cells, all different
    place = places(3, 4, STEPS / 4)
    moved = signs[:, [5, 1, 2, 3, 4, 0, 6, 11, 8, 9, 10, 7]]  # 0 and 5 changed places, near; 7 and 11 too
    moved[:, [3, 8]] = moved[:, [8, 3]]  # from one corner to the other
    features = torch.arange(12.0)[None, :, None]
    found = counterparts(signs, place[None], moved, place, features, STEPS / 4 + 1e-3)
    assert found.features[0, :, 0, 0].tolist() == list(range(12))
    assert found.features[0, [0, 5, 7, 11], 1, 0].tolist() == [5, 0, 11, 7]
    assert found.features[0, :, 2, 0].tolist() == [5, 1, 2, 8, 4, 0, 6, 11, 3, 9, 10, 7]
    assert found.similarity[0, :, 2].tolist() == [1.0] * 12 and found.similarity[0, 3, 1] == 0
    assert found.shift[0, 3, 2].tolist() == [-30.0, 20.0] and found.shift[0, 0, 1].tolist() == [10.0, 10.0]
