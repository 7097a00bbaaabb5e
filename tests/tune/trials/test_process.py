"""What the driver of a trial is told of the sweep's environment."""

from __future__ import annotations

from pathlib import Path

from cluster.launch.credentials import FILE, handed_over
from tune.trials.process import Ray, _environment


def test_the_sweeps_secrets_reach_its_trials_by_their_file(tmp_path: Path, monkeypatch) -> None:
    """On a Ray that runs already, the process that starts a trial has not the sweep's environment."""
    monkeypatch.setenv("WANDB_API_KEY", "not-for-everybody")
    with handed_over(tmp_path) as secret:
        monkeypatch.delenv("WANDB_API_KEY")
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        told = _environment(Ray("127.0.0.1:1", "3", secret))
        assert (told["WANDB_API_KEY"], told["RAY_ADDRESS"]) == ("not-for-everybody", "127.0.0.1:1")
        assert told["OMP_NUM_THREADS"] == "3"
    assert "WANDB_API_KEY" not in _environment(Ray("127.0.0.1:1"))
    assert not (tmp_path / FILE).exists()
