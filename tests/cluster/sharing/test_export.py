"""An exported folder goes to the hub and captions from there; what would not load is not made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from testing.here import Done, run_here
from testing.machines.hub_server import hub_server
from testing.models.checkpoints import save_weights

from cluster import checkpoints
from cluster.config.options import to_yaml
from cluster.training.checkpoint import COMMIT, WEIGHTS, Commit, File, commit_text
from idc.captioner import Captioner
from idc.model.build import build
from shards.format.tars import file_sha256

NAME = "somebody/changes"


@pytest.fixture
def run(tiny) -> Path:
    """A run folder with one checkpoint of random weights."""
    folder = tiny.root / "runs" / "shared"
    made = folder / "checkpoints" / "finetune" / "step_00000002"
    made.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(dataclasses.replace(tiny.config, name="shared")))
    commit(made, build(tiny.config.model).state_dict())
    return folder


def commit(folder: Path, weights: dict) -> None:
    save_weights(weights, folder / WEIGHTS)
    files = {WEIGHTS: File((folder / WEIGHTS).stat().st_size, file_sha256(folder / WEIGHTS))}
    (folder / COMMIT).write_text(commit_text(Commit("finetune", 2, 1, 0, files=files)))


def export(*words: object) -> Done:
    return run_here(checkpoints.main, "export", *words)


def test_an_export_is_sent_and_captions_by_its_id(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        done = export(run, "--out", "made", "--push", NAME)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"made: finetune step 2\n{server.address}/{NAME}\n"
        sent = server.models[NAME]
        assert sorted(sent) == ["README.md", "calibration.json", "config.json", "model.safetensors", "tokenizer.model"]
        assert b"# shared" in sent["README.md"] and b"this checkpoint has not been evaluated" in sent["README.md"]
        images = np.zeros((2, 40, 60, 3), np.uint8)
        images[1, 10:20, 10:20] = 255
        said = [Captioner.load(place).caption(*images, maps=False) for place in (NAME, "made")]
    assert said[0] == said[1]
    refused = export(run, "--out", "again", "--push", NAME)  # the hub is gone: nothing is made
    assert refused.returncode == 2 and refused.stderr.startswith(f"--push {NAME}: 127.0.0.1 cannot be reached")
    assert refused.stderr.count("\n") == 1 and not list(tmp_path.glob("again*"))


def test_weights_of_another_network_are_refused_whole(run, tiny, tmp_path) -> None:
    weights = build(tiny.config.model).state_dict()
    del weights["changed_head.weight"]
    commit(run / "checkpoints" / "finetune" / "step_00000002", weights)
    done = export(run, "--out", tmp_path / "made")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "does not fit the network that this version calls" in done.stderr
    assert not list(tmp_path.iterdir())
