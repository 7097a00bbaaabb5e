"""The affine map that is fitted to matches: who moved by itself, and what the camera did."""

from __future__ import annotations

import torch

from idc.model.matching import camera_motion


def test_camera_motion_ignores_what_moved_by_itself():
    torch.manual_seed(0)
    position = torch.rand(1, 8, 2) * 20
    target = position @ torch.tensor([[1.05, 0.02], [-0.03, 0.95]]) + torch.tensor([1.5, -0.7])
    outlier = target.clone()
    outlier[0, 3] += 9.0
    expected = camera_motion(position, outlier, torch.ones(1, 8), 20.0, 0.01 * torch.eye(6))
    others = [0, 1, 2, 4, 5, 6, 7]
    assert (expected - target)[0, others].norm(dim=-1).max() < 0.6
    assert (expected - outlier)[0, 3].norm() > 8


def test_camera_motion_follows_a_camera_that_comes_closer():
    """A third nearer, seen by few regions of which none is sure: all the same the camera moved, nothing else did."""
    position = torch.tensor([[[12.0, 18.0], [45.0, 15.0], [27.0, 45.0], [51.0, 42.0]]])
    target = 30 + 1.3 * (position - 30)
    expected = camera_motion(position, target, torch.full((1, 4), 0.5), 60.0, 0.01 * torch.eye(6))
    assert (expected - target).norm(dim=-1).max() < 1.5 < 5 < (position - target).norm(dim=-1).max()


def test_how_cameras_move_tells_who_moved_among_few():
    """Cameras that pan without turning or coming closer: of three things one has moved, which an open map explains."""
    position = torch.tensor([[[12.0, 18.0], [45.0, 15.0], [27.0, 45.0]]])
    panned = position + torch.tensor([1.0, -0.5])
    target = panned.clone()
    target[0, 2, 0] += 4.0
    pans = torch.diag(torch.tensor([0.03, 3.0, 3.0, 0.03, 3.0, 3.0]))
    informed, open_minded = (
        (camera_motion(position, target, torch.ones(1, 3), 60.0, prior) - target)[0].norm(dim=-1)
        for prior in (pans, 0.01 * torch.eye(6))
    )
    assert informed[2] > 3 > 0.5 > informed[:2].max()
    assert open_minded[2] < 1
