import dataclasses
import io
import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from testing.killing import contents

from cluster.batches import feature_cache, feature_lock
from cluster.batches.feature_cache import Extraction, Extractor, _build, _run_processes, cache_features, open_features
from cluster.errors import ConfigError
from cluster.prepare import prepare
from cluster.training.worker import _require_same_backbone
from idc.backbone.backbone import Backbone
from idc.backbone.weights import packaged_weights, read_weights
from shards.errors import DataError
from shards.format import manifest
from shards.format.tars import write_shard
from shards.images.decode import decode_image
from shards.progress import Progress
from shards.reading.reader import Folder

EXTRACTION = Extraction(size=(64, 80))


def jpeg(seed: int, size: tuple[int, int] = (80, 60)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two groups of tars: pairs that share their before image, and photos of the same images."""
    folder = tmp_path / "images"
    folder.mkdir()
    entries = []
    for number in range(2):
        first = 10 * number
        pairs = [
            (f"{number}{i}", {"before.jpg": jpeg(first), "after.jpg": jpeg(first + i), "json": b'{"captions": []}'})
            for i in range(3)
        ]
        photos = [(f"photo{number}", {"photo.jpg": jpeg(first), "json": b"{}"})]
        for kind, samples in (("pair", pairs), ("photo", photos)):
            entry = write_shard(folder, f"{kind}s-train-{number:06d}.tar", samples)
            entries.append(entry | {"kind": kind, "split": "train"})
    tokenizer = {"kind": "words", "file": "tokenizer.json", "size": 6, "sha256": "0" * 64}
    manifest.write(
        folder,
        {"schema": 1, "source": "test", "options": {}, "splits": manifest.count_splits(entries), "shards": entries,
         "classes": [], "dropped": {}, "text": {}, "tokenizer": tokenizer},
    )  # fmt: skip
    return folder


@pytest.mark.slow
def test_same_keys_with_the_features_of_each_image(shards, tmp_path, monkeypatch, capfd):
    computed = []
    of_canvases = Backbone.features_of_canvases
    monkeypatch.setattr(
        Backbone, "features_of_canvases", lambda self, images: computed.append(len(images)) or of_canvases(self, images)
    )
    counted: list[int] = []
    extractor = Extractor.__init__

    def in_small_batches(self, *given):
        extractor(self, *given)
        self.batch = 2

    monkeypatch.setattr(Extractor, "__init__", in_small_batches)
    update = Progress.update
    monkeypatch.setattr(Progress, "update", lambda self, count: counted.append(count) or update(self, count))
    folder = cache_features(shards, tmp_path / "features", EXTRACTION)
    assert sum(counted) == 14 and max(counted) <= 4, "told by the batch, not by the tar"
    assert sum(computed) == 6, "an image that several samples share is computed once"
    assert "features features: 14 of 14 images, " in capfd.readouterr().err, "a log says how far it is"
    described = folder.manifest["features"]
    assert described["backbone"] == "efficientnet_lite0" and described["of"] == Folder.open(shards).sha256()
    assert described["grid"] == [4, 5] and described["dim"] == 272
    source = Folder.open(shards)
    backbone = EXTRACTION.build()
    for kind in ("pair", "photo"):
        images, arrays = source.stream(kind, "train"), folder.stream(kind, "train")
        assert arrays.keys == images.keys
        for i in range(len(images)):
            made = arrays.arrays(i)
            pictures = images.images(i)
            assert made.keys() == pictures.keys()
            for role, array in made.items():
                assert array.dtype == np.float16 and array.shape == (20, 272)
                alone = backbone.features([pictures[role]])[0].numpy()
                np.testing.assert_allclose(array.astype(float), alone.astype(float), rtol=0.1, atol=0.3)


@pytest.mark.slow
def test_any_number_of_workers_and_a_restart_give_the_same_bytes(shards, tmp_path, capfd):
    cache_features(shards, tmp_path / "one", EXTRACTION, workers=1)
    cache_features(shards, tmp_path / "two", EXTRACTION, workers=2)
    assert "features two: 14 of 14 images, " in capfd.readouterr().err, "of all processes together"
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    # A run that was killed: no manifest, one tar of four, and a half-written one.
    stopped = tmp_path / "stopped"
    monolith = contents(tmp_path / "one")
    stopped.mkdir()
    described = json.loads(monolith["manifest.json"])["features"]
    (stopped / "features.json.partial").write_text(json.dumps(described))
    for name in ("pairs-train-000000.tar", "pairs-train-000000.index.tsv"):
        (stopped / name).write_bytes(monolith[name])
    (stopped / "photos-train-000000.tar.partial").write_bytes(b"half")
    cache_features(shards, stopped, EXTRACTION)
    assert contents(stopped) == monolith


def test_features_of_other_images_or_sizes_are_refused(shards, tmp_path):
    out = tmp_path / "features"
    made = cache_features(shards, out, EXTRACTION)
    assert cache_features(shards, out, EXTRACTION).manifest == made.manifest
    with pytest.raises(DataError, match="differ in .*size.*delete it"):
        cache_features(shards, out, Extraction(size=(96, 96)))
    with pytest.raises(DataError, match="not empty"):
        cache_features(shards, shards.parent, EXTRACTION)
    with pytest.raises(DataError, match="holds features already"):
        cache_features(out, tmp_path / "again", EXTRACTION)
    assert open_features(out, Folder.open(shards)).manifest == made.manifest
    changed = json.loads((shards / "manifest.json").read_text()) | {"source": "another"}
    manifest.write(shards, changed)
    with pytest.raises(DataError, match="made from other images"):
        open_features(out, Folder.open(shards))


def test_features_that_do_not_fit_on_the_disk_are_refused_before_the_first(shards, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    needed = 14 * 20 * 272 * 2  # images, cells, channels, bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(DataError, match=r"features of 14 images take 0\.0 GB \(20 cells of 272 float16 numbers each\)"):
        cache_features(shards, tmp_path / "features", EXTRACTION)
    assert not list((tmp_path / "features").glob("*.tar"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    assert cache_features(shards, tmp_path / "features", EXTRACTION).manifest["features"]["dim"] == 272


def test_a_finished_folder_is_known_without_its_backbone_and_another_weight_file_is_not(shards, tmp_path):
    made = cache_features(shards, tmp_path / "features", EXTRACTION)
    _build.cache_clear()
    assert cache_features(shards, tmp_path / "features", EXTRACTION).manifest == made.manifest
    copy, other = tmp_path / "copy.pth", tmp_path / "other.pth"
    shutil.copy(packaged_weights("efficientnet_lite0"), copy)
    same = dataclasses.replace(EXTRACTION, weights=str(copy))
    assert cache_features(shards, tmp_path / "features", same).manifest == made.manifest
    assert _build.cache_info().misses == 0, "the weight file tells that they are the same"
    tensors = read_weights(copy)
    tensors["_conv_stem.weight"][0] += 1
    torch.save(tensors, other)
    with pytest.raises(DataError, match="differ in weights_sha256; delete it"):
        cache_features(shards, tmp_path / "features", dataclasses.replace(EXTRACTION, weights=str(other)))
    levels = dataclasses.replace(EXTRACTION, strides=(16,))
    with pytest.raises(DataError, match="differ in channels, dim, strides; delete it"):
        cache_features(shards, tmp_path / "features", levels)


def other_precision(folder: Path) -> str:
    """Makes the manifest of features say that they were made on a machine of the other precision; returns which."""
    made = json.loads((folder / "manifest.json").read_text())
    made["features"]["precision"] = {"bf16": "fp32", "fp32": "bf16"}[made["features"]["precision"]]
    manifest.write(folder, made)
    return made["features"]["precision"]


def test_features_of_a_machine_of_the_other_precision_are_the_same_features(shards, tmp_path):
    out = tmp_path / "features"
    cache_features(shards, out, EXTRACTION)
    precision = other_precision(out)
    again = cache_features(shards, out, EXTRACTION)
    assert again.manifest["features"]["precision"] == precision
    assert open_features(out, Folder.open(shards)).manifest == again.manifest
    trained = cache_features(shards, tmp_path / "here", EXTRACTION).manifest["features"]
    _require_same_backbone(trained, again)
    _require_same_backbone(trained | {"made_with": {"timm": "0.1"}}, again)
    assert Backbone.from_description(again.manifest["features"]).describe()["grid"] == [4, 5]
    other = cache_features(shards, tmp_path / "larger", Extraction(size=(96, 96)))
    with pytest.raises(ConfigError, match="differs in grid"):
        _require_same_backbone(trained, other)
    # A folder that was begun there is finished here.
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "features.json.partial").write_text(json.dumps(trained | {"precision": precision}))
    assert cache_features(shards, begun, EXTRACTION).manifest["features"] == trained


def test_a_gpu_has_one_process_and_all_threads_and_the_driver_runs_nothing_on_it(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = EXTRACTION.on("cuda")
    assert gpu.devices(16) == ["cuda:0", "cuda:1"] and EXTRACTION.on("cuda:1").devices(16) == ["cuda:1"]
    assert EXTRACTION.on("cpu").devices(3) == ["cpu"] * 3
    cpu = cache_features(shards, tmp_path / "cpu", EXTRACTION.on("cpu"))
    # Here is no GPU: were one asked for by this process, it would say so.
    assert cache_features(shards, tmp_path / "cpu", gpu).manifest == cpu.manifest
    assert not torch.cuda.is_initialized()
    with pytest.raises(DataError, match="--device cuda: torch finds no GPU.*give --device cpu"):
        cache_features(shards, tmp_path / "gpu", gpu)


@pytest.mark.slow
def test_threads_that_decode_change_no_byte(shards, tmp_path):
    """The path of a GPU, its processes on the CPU: several threads feed one process of one device."""
    cpu = EXTRACTION.on("cpu")
    one = cache_features(shards, tmp_path / "one", cpu)
    source, out = Folder.open(shards), tmp_path / "threads"
    out.mkdir()
    groups = [
        [entry for entry in source.manifest["shards"] if f"-{number:06d}." in entry["name"]] for number in range(2)
    ]
    done = list(_run_processes(source, out, cpu, groups, ["cpu"], 3))
    assert {precision for precision, _ in done} == {one.manifest["features"]["precision"]}
    assert sorted(entry["name"] for _, entries in done for entry in entries) == sorted(
        entry["name"] for entry in one.manifest["shards"]
    )
    there = contents(tmp_path / "one")
    assert contents(out) == {name: there[name] for name in there if name != "manifest.json"}
    assert not multiprocessing.active_children(), "the processes end with the work"


def test_a_damaged_image_is_named(shards, tmp_path):
    entries = Folder.open(shards).manifest["shards"]
    broken = jpeg(1)[:400]
    entries[0] |= write_shard(shards, entries[0]["name"], [("k", {"before.jpg": broken, "after.jpg": jpeg(2)})])
    content = json.loads((shards / "manifest.json").read_text()) | {"shards": entries}
    content["splits"] = manifest.count_splits(entries)
    manifest.write(shards, content)
    with pytest.raises(DataError, match=r"k\.before\.jpg"):
        cache_features(shards, tmp_path / "features", EXTRACTION)
    assert not (tmp_path / "features" / "manifest.json").exists()


def test_images_of_any_size_are_decoded(tmp_path):
    assert decode_image(jpeg(3, (90, 50))).shape == (50, 90, 3)
    assert Extraction(size=(64, 80)).build().features([decode_image(jpeg(3, (90, 50)))]).shape == (1, 20, 272)


@pytest.mark.slow
def test_a_run_that_trains_on_cpus_caches_on_cpus(tiny, monkeypatch):
    """On a machine with a GPU, as torch says: a process of it would die here, where there is none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Extraction().device == "cuda"
    config = tiny.with_options(cluster__gpus_per_worker="0", data__features="on-cpus")
    made = prepare(config, tiny.root).features
    assert made.path == tiny.root / "on-cpus" and made.sha256() == Folder.open(tiny.features).sha256()
    with pytest.raises(DataError, match="a worker process died"):
        prepare(tiny.with_options(data__features="on-gpus"), tiny.root)


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["finished", "killed"])
def test_a_second_command_into_a_folder_waits_for_the_first(shards, tmp_path, monkeypatch, capfd, ends):
    """The first comes to its end, or is killed and leaves half a tar; the second then has nothing to do, or all."""
    monkeypatch.setattr(feature_lock, "POLL_S", 0.02)
    made = cache_features(shards, tmp_path / "one", EXTRACTION)
    out, begun = tmp_path / "out", threading.Event()

    def first():
        with feature_lock.held(out, made.manifest["features"]):
            (out / f"{feature_lock.SCRATCH}1").mkdir()
            (out / f"{feature_lock.SCRATCH}1" / "pairs-train-000000.tar.partial").write_bytes(b"half")
            begun.set()
            time.sleep(1)
            if ends == "finished":
                shutil.rmtree(out / f"{feature_lock.SCRATCH}1")
                for name in sorted(contents(made.path), key=lambda name: name == "manifest.json"):
                    shutil.copyfile(made.path / name, out / name)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    written = []
    write = feature_cache.write_shard
    monkeypatch.setattr(feature_cache, "write_shard", lambda *given: written.append(given[1]) or write(*given))
    cache_features(shards, out, EXTRACTION)
    thread.join(10)
    assert contents(out) == contents(tmp_path / "one")
    assert len(written) == (0 if ends == "finished" else len(made.manifest["shards"]))
    assert capfd.readouterr().err.count("is being made by another process: it is waited for") == 1


def test_a_command_that_waits_for_one_that_does_nothing_gives_up(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_lock, "POLL_S", 0.02)
    monkeypatch.setattr(feature_lock, "STALL_S", 0.3)
    description = EXTRACTION.build().describe() | {"of": Folder.open(shards).sha256()}
    with feature_lock.held(tmp_path / "out", description):
        with pytest.raises(DataError, match="nothing in it has changed for 0 s: end that process"):
            cache_features(shards, tmp_path / "out", EXTRACTION)
