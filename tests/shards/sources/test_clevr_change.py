"""The published CLEVR-Change layout, real and damaged."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from shards.checks.verification import verify
from shards.errors import DataError
from shards.negatives.kinds import KINDS, MATCHED
from shards.pack import pack
from shards.sources import make_source
from shards.sources.clevr_change import ANNOTATIONS, ClevrChangeSource


@pytest.fixture
def sample(shared_data) -> Path:
    return shared_data / "clevr_change_sample"


@pytest.fixture
def damaged(sample, tmp_path) -> Path:
    """A copy that may be changed."""
    root = tmp_path / "root"
    shutil.copytree(sample, root, copy_function=shutil.copyfile)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)
    return root


def edit(root: Path, name: str, change) -> None:
    parsed = json.loads((root / name).read_text())
    change(parsed)
    (root / name).write_text(json.dumps(parsed))


def test_the_real_sample_is_packed_with_its_own_bytes(sample, pack_root):
    folder, said = pack_root("clevr_change", sample)
    assert "test: 60 pair" in said
    stream = folder.stream("pair", "test")
    assert len(stream) == 60 and stream.folder.manifest["tokenizer"] is None
    record, members = stream.sample(stream.find("000000-semantic"))
    # JPEG bytes under .png names keep their bytes and get the right name.
    assert members["before.jpg"] == (sample / "images" / "CLEVR_default_000000.png").read_bytes()
    assert members["after.jpg"] == (sample / "sc_images" / "CLEVR_semantic_000000.png").read_bytes()
    assert stream.images(0)["before"].shape == (320, 480, 3)
    assert record["id"] == "CLEVR_semantic_000000.png" and record["change_type"] == "color"
    assert record["truth"] == {
        "type": "color",
        "object": {"size": "small", "color": "brown", "material": "rubber", "shape": "cube"},
        "to": {"color": "green"},
    }
    unchanged = stream.metadata(stream.find("000000-nonsemantic"))
    assert unchanged["changed"] is False and len(unchanged["captions"]) == 5
    assert all(len(of["negatives"][kind]) == 6 for of in (record, unchanged) for kind in KINDS)
    assert record["negatives"][MATCHED], "a group of other pairs"


def test_all_truths_of_the_sample_are_read_from_its_captions(sample):
    records = ClevrChangeSource(sample).records()
    assert all(record.truth is not None for record in records)
    assert {record.truth["type"] for record in records} == {"color", "none"}


def test_what_is_missing_is_counted_and_the_rest_packed(damaged, tmp_path):
    (damaged / "images" / "CLEVR_default_000003.png").unlink()
    (damaged / "sc_images" / "CLEVR_semantic_000004.png").unlink()
    (damaged / "sc_images" / "CLEVR_semantic_000005.png").write_bytes(b"<html>not found</html>")
    jpeg = damaged / "nsc_images" / "CLEVR_nonsemantic_000006.png"
    jpeg.write_bytes(jpeg.read_bytes()[:9000])
    edit(damaged, "no_change_captions.json", lambda c: c.pop("CLEVR_default_000007.png"))
    edit(damaged, "change_captions.json", lambda c: c.update({"CLEVR_default_000008.png": [" "]}))
    edit(damaged, "splits.json", lambda s: s["test"].append(999))
    manifest = pack(ClevrChangeSource(damaged), tmp_path / "out")
    assert manifest["dropped"] == {
        "no photo in images/": 2,
        "no photo in sc_images/": 1,
        "no photo in a known format in sc_images/": 1,
        "no captions": 4,
        "an image is missing or damaged": 1,
    }
    assert manifest["splits"]["test"]["pair"] == 60 - 7
    assert verify(tmp_path / "out") == []


def test_the_wrong_truth_is_not_taken(damaged):
    edit(damaged, "type_mapping.json", lambda types: types.update(move=types.pop("color")))
    records = ClevrChangeSource(damaged).records()
    assert records[0].change_type == "move" and records[0].truth is None
    assert records[1].truth == {"type": "none", "object": None, "to": None}


@pytest.mark.parametrize("name", ["000001.png", "CLEVR_semantic_000001.png", 1])
def test_a_type_is_known_by_any_name_of_the_scene(damaged, name):
    edit(
        damaged, "type_mapping.json", lambda types: (types["color"].remove("000001.png"), types.update(texture=[name]))
    )
    types = {record.id: record.change_type for record in ClevrChangeSource(damaged).records()}
    assert types["CLEVR_semantic_000001.png"] == "material" and types["CLEVR_semantic_000002.png"] == "color"


def test_the_place_of_the_folder_does_not_matter_but_its_text_does(sample, damaged):
    assert ClevrChangeSource(sample).describe() == ClevrChangeSource(damaged).describe()
    edit(damaged, "splits.json", lambda splits: splits["test"].pop())
    assert ClevrChangeSource(sample).describe() != ClevrChangeSource(damaged).describe()


def _scene_in_two_splits(root: Path) -> None:
    edit(root, "splits.json", lambda splits: splits["train"].append(0))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: shutil.rmtree(root / "nsc_images"), "nsc_images is missing"),
        *[(lambda root, name=name: (root / name).unlink(), f"{name} is missing") for name in ANNOTATIONS],
        (lambda root: (root / "splits.json").write_text("[1]"), "splits.json is not a JSON object"),
        (lambda root: (root / "type_mapping.json").write_bytes(b"\xff"), "type_mapping.json is not a JSON object"),
        (lambda root: edit(root, "splits.json", lambda s: s.update(test=["one"])), "not a list of scene numbers"),
        (lambda root: edit(root, "splits.json", lambda s: s.update(test=[])), "has no samples"),
        (
            lambda root: edit(root, "type_mapping.json", lambda t: t.update({"000001.png": "move"})),
            "'000001.png' has no list",
        ),
        (lambda root: edit(root, "type_mapping.json", lambda t: t.update(move=["one.png"])), "'one.png' is not a name"),
        (_scene_in_two_splits, "scene 0 is in train and again in test"),
    ],
)
def test_a_folder_of_another_form_ends_in_one_line(damaged, tmp_path, damage, words):
    damage(damaged)
    with pytest.raises(DataError, match=words) as caught:
        pack(make_source("clevr_change", damaged), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_packing_does_not_wait_for_the_renderer(sample):
    # Only blocks needs numba, which takes seconds to load.
    import subprocess

    code = "import sys; from shards.sources import make_source; make_source('clevr_change', sys.argv[1]); "
    code += "print('numba' in sys.modules, 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, sample], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["False", "False"], done.stderr
