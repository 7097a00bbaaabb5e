"""A model folder goes to a hub and comes back by its id; the hub is a server of this machine that speaks its HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from testing.machines.hub_server import HubServer, hub_server

from idc.captioning import hub, model_folder
from idc.captioning.decoding import generate
from shards.packing.tokenizer import train_tokenizer

NAME = "somebody/changes"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub, the client's cache in a folder of this test; the working folder is empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with hub_server() as started:
        monkeypatch.setenv("HF_ENDPOINT", started.address)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield started


@pytest.fixture
def folder(tmp_path: Path, make_model) -> Path:
    entry = train_tokenizer(["one two three four five six seven eight nine ten eleven twelve"], tmp_path, "words")
    model = make_model(vocab_size=entry["size"])
    made = model_folder.save(
        tmp_path / "model", model.config, model.state_dict(), tmp_path / entry["file"], {"backbone": "x"}
    )
    (made / "README.md").write_text("# card\n")
    return made


def test_a_folder_is_sent_and_loaded_back_by_its_id(server, folder, make_batch, monkeypatch) -> None:
    hub.check_push(NAME)
    assert hub.push(folder, NAME).endswith(NAME)
    assert server.models[NAME] == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert server.private == {NAME}

    batch = make_batch()
    images = {"before": batch["before"], "after": batch["after"]}
    expected = generate(model_folder.load(folder).model, images, beam=2)
    for place in (NAME, f"{NAME}@{server.commit(NAME)}"):
        found = generate(model_folder.load(place).model, images, beam=2)
        assert torch.equal(found.alternatives, expected.alternatives)
        assert torch.equal(found.log_probability, expected.log_probability)
    assert not any("README.md" in line for line in server.asked if line.startswith("GET")), "not needed"

    server.shutdown()
    server.server_close()
    assert model_folder.load(NAME).tokenizer.size == model_folder.load(folder).tokenizer.size  # out of the cache
    with pytest.raises(
        model_folder.ExportError, match="somebody/other: no such folder here.*127.0.0.1 cannot be reached"
    ):
        model_folder.load("somebody/other")
    with pytest.raises(hub.HubError, match="127.0.0.1 cannot be reached"):
        hub.check_push(NAME)


def test_what_cannot_be_fetched_or_sent_is_a_line(server, tmp_path, monkeypatch) -> None:
    with pytest.raises(
        model_folder.ExportError, match="^somebody/nothing: no such folder here, and the hub says: "
    ) as told:
        model_folder.load("somebody/nothing")
    assert "\n" not in str(told.value)
    Path("runs").mkdir()
    asked = len(server.asked)
    with pytest.raises(model_folder.ExportError, match="runs/blokcs: no such folder; name a run folder"):
        model_folder.load("runs/blokcs")  # a misspelt folder is not looked for elsewhere
    assert len(server.asked) == asked
    for name in ("changes", f"{NAME}@main", "a/b/c"):
        with pytest.raises(hub.HubError, match="OWNER/NAME"):
            hub.check_push(name)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(hub.HubError, match="nobody is logged in"):
        hub.check_push(NAME)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(model_folder.ExportError, match="pip install huggingface_hub"):
        model_folder.load(NAME)
