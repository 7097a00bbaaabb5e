import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from testing.models.untrained import untrained_run

from idc import Captioner, ImageError, caption
from idc.backbone.backbone import Backbone, BackboneError
from idc.captioning.precision import choose_device, choose_precision

SIZE = (48, 64)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def captioner(run):
    return Captioner.load(run)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Before and after files: the after image differs in its lower right corner."""
    folder = tmp_path_factory.mktemp("images")
    before = np.full((96, 128, 3), 120, np.uint8)
    before[20:40, 30:60] = (200, 30, 30)
    after = before.copy()
    after[64:90, 96:124] = (20, 60, 220)
    for name, pixels in (("before.png", before), ("after.png", after)):
        Image.fromarray(pixels).save(folder / name)
    return folder / "before.png", folder / "after.png"


def test_paths_pictures_and_arrays_give_the_same(captioner, images):
    by_path = captioner.caption(*images)
    pictures = [Image.open(path) for path in images]
    for pair in (pictures, [np.asarray(picture) for picture in pictures], [str(path) for path in images]):
        other = captioner.caption(*pair)
        assert (other.text, other.alternatives) == (by_path.text, by_path.alternatives)
    assert 0 <= by_path.changed_probability <= 1
    assert by_path.alternatives[0][0] == by_path.text and len(by_path.alternatives) <= 3
    scores = [score for _, score in by_path.alternatives]
    assert scores == sorted(scores, reverse=True)


def test_one_pair_and_many_agree(captioner, images):
    before, after = images
    alone = [captioner.caption(before, after, beam=1), captioner.caption(after, before, beam=1)]
    together = captioner.captions([(before, after), (after, before)], beam=1)
    assert [one.text for one in together] == [one.text for one in alone]
    assert together[0].changed_probability == pytest.approx(alone[0].changed_probability, abs=1e-3)
    assert captioner.captions([]) == []


def test_the_heat_map_is_red_where_the_sentence_looks(captioner, images):
    found = captioner.caption(*images, maps=True)
    assert found.where.shape == (2, 3, 4) and found.where.max() == 1 and found.where.min() >= 0
    lit = np.asarray(captioner.heat_map(found, *images)).astype(int)
    plain = np.concatenate([np.asarray(Image.open(path)) for path in images], axis=1).astype(int)
    change = np.abs(lit - plain).sum(-1)
    for side, grid in enumerate(found.where):
        cells = change[:, 128 * side : 128 * (side + 1)].reshape(3, 32, 4, 32).mean((1, 3))
        assert np.corrcoef(cells.ravel(), grid.ravel())[0, 1] > 0.8


def test_maps_are_made_when_asked_for(captioner, images):
    plain, found = captioner.caption(*images), captioner.caption(*images, maps=True)
    assert plain.where is None and found.where is not None
    assert (plain.text, plain.changed_probability, plain.alternatives) == (
        found.text, found.changed_probability, found.alternatives
    )  # fmt: skip
    with pytest.raises(ValueError, match="maps=True"):
        captioner.heat_map(plain, *images)


def test_a_long_list_passes_through_in_batches(captioner, images, monkeypatch):
    before, after = images
    pairs = [(before, after), (after, before), (before, before)] * 2
    sizes, whole = [], Backbone.features_of_canvases
    monkeypatch.setattr(
        Backbone, "features_of_canvases", lambda self, canvases: sizes.append(len(canvases)) or whole(self, canvases)
    )
    made = captioner.captions(pairs, beam=1, batch_size=4)
    assert sizes == [8, 4], "images of four pairs, then of two"
    alone = [captioner.caption(*pair, beam=1) for pair in pairs]
    assert [one.text for one in made] == [one.text for one in alone]
    with pytest.raises(ValueError, match="batch_size is 0"):
        captioner.captions(pairs, batch_size=0)


def test_threads_find_what_one_after_another_finds(captioner, images):
    """Opened images that threads share, too: Pillow reads their pixels late."""
    before, after = images
    grey = np.full((30, 40), 0.3, np.float32)
    pairs = [(before, after), (after, before), (before, grey), (grey, after)]

    def all_of(pair):
        found = captioner.caption(*pair, maps=True)
        return found.text, found.changed_probability, found.alternatives, found.where.tolist()

    serial = [all_of(pair) for pair in pairs]
    assert len({found[1] for found in serial}) == len(pairs), "pairs that differ"
    for _ in range(2):
        opened = {path: Image.open(path) for path in images}
        shared = [tuple(opened.get(each, each) if isinstance(each, Path) else each for each in p) for p in pairs]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(all_of, shared * 4))
        assert found == serial * 4


def test_results_cannot_be_changed(captioner, images):
    found = captioner.caption(*images, maps=True)
    with pytest.raises(FrozenInstanceError):
        found.text = "other"
    with pytest.raises(ValueError, match="read-only"):
        found.where[0, 0, 0] = 1.0
    assert found.alternatives[0].text == found.text and found.alternatives[0].log_probability < 0


def test_a_device_or_precision_that_is_not_there_is_named(run):
    assert choose_device("cpu").type == "cpu" and choose_precision(None, torch.device("cpu")) == "fp32"
    with pytest.raises(ValueError, match="device meteor cannot be used"):
        Captioner.load(run, device="meteor")
    with pytest.raises(ValueError, match="precision is 'fp8'"):
        Captioner.load(run, device="cpu", precision="fp8")
    with pytest.raises(ValueError, match="bf16 is of a GPU"):
        Captioner.load(run, device="cpu", precision="bf16")


@pytest.mark.slow
def test_a_sentence_imports_nothing_that_training_needs(run, images):
    """The command starts in seconds because of it; timm would import W&B wherever that is installed."""
    code = "import sys\nfrom idc.caption import main\nmain(sys.argv[1:])\nprint(*sys.modules)"
    arguments = [*map(str, images), "--checkpoint", str(run), "--json"]
    made = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    sentence, modules = made.stdout.splitlines()
    assert "caption" in json.loads(sentence)
    tops = {module.split(".")[0] for module in modules.split()}
    needless = {"ray", "deepspeed", "wandb", "pycocoevalcap", "matplotlib", "scipy", "webdataset"}
    assert "timm" in tops and not tops & needless
    assert not tops & {"shards", "cluster", "tune"}


def test_images_that_cannot_be_used_are_named(captioner, images, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match="notes.txt cannot be read as an image"):
        captioner.caption(tmp_path / "notes.txt", images[1])
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ImageError, match=r"phone.heic cannot be read as an image \(HEIC, AVIF or a film: convert it"):
        captioner.caption(tmp_path / "phone.heic", images[1])
    with pytest.raises(ImageError, match="missing.png: no such file"):
        captioner.caption(images[0], tmp_path / "missing.png")
    with pytest.raises(ImageError, match="after: an array must be bool, uint8"):
        captioner.caption(images[0], np.zeros((4, 4), np.int32))


def test_a_model_of_another_backbone_is_refused(run, tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    for path in (run / "model").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text())
    config["backbone"]["weights_sha256"] = "0" * 64
    (target / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="weights_sha256"):
        Captioner.load(target)


def test_the_command_prints_a_sentence_or_json(run, images, capsys, tmp_path):
    arguments = [str(path) for path in images] + ["--checkpoint", str(run)]
    assert caption.main(arguments) == 0
    sentence = capsys.readouterr().out
    assert sentence.count("\n") == 1
    heat_map = tmp_path / "heat.png"
    assert caption.main([*arguments, "--json", "--beam", "2", "--heat-map", str(heat_map)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["alternatives"]) <= 2 and content["alternatives"][0]["caption"] == content["caption"]
    assert Image.open(content["heat_map"]).size == (256, 96)


@pytest.mark.parametrize(
    "change, message",
    [
        (("before.png", "nothing.png"), "nothing.png: no such file"),
        (("--checkpoint", "--beams"), "the following arguments are required"),
    ],
)
def test_the_command_names_mistakes_in_one_line(run, images, capsys, change, message):
    arguments = [str(path) for path in images] + ["--checkpoint", str(run)]
    arguments = [argument.replace(*change) for argument in arguments]
    try:
        code = caption.main(arguments)
    except SystemExit as exit:
        code = exit.code
    written = capsys.readouterr()
    assert code == 2 and message in written.err
    assert written.err.count("\n") == 1 and written.out == ""
