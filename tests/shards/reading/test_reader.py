"""Positioned reads: right bytes in any order, process and thread, and errors that name the file and the fix."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import pickle
import struct
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from testing.tampering import TAR, edit_manifest, entry_of, rewrite

from shards.errors import DataError
from shards.format import index, manifest
from shards.format.arrays import decode_array, encode_array
from shards.format.tars import write_shard
from shards.images.decode import PIXEL_LIMIT, decode_image
from shards.reading import reader
from shards.reading.reader import Folder


def test_every_sample_is_what_the_tar_holds(packed):
    stream = Folder.open(packed).stream("pair", "train")
    assert len(stream) == 20 and stream.keys[8] == "train-004-c"
    members = {}
    for path in sorted(packed.glob("pairs-train-*.tar")):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}
    for i in np.random.default_rng(0).permutation(len(stream)):
        for suffix, data in stream.read(i).items():
            assert members.pop(f"{stream.keys[i]}.{suffix}") == data
    assert members == {}


def test_a_sample_in_its_forms(packed):
    stream = Folder.open(packed).stream("pair", "train")
    i = stream.find("train-001-n")
    record, rest = stream.sample(i)
    assert record == stream.metadata(i) and record["changed"] is False
    assert set(rest) == {"before.jpg", "after.png"}
    images = stream.images(i)
    assert images["before"].shape == (16, 24, 3) and images["before"].dtype == np.uint8
    assert tuple(images["after"][8, 8]) == (30, 30, 200)
    same_record, same_images = stream.decoded(i)
    assert same_record == record and same_images.keys() == images.keys()
    assert all(np.array_equal(same_images[role], images[role]) for role in images)
    assert stream.read(i, ["json"]).keys() == {"json"} and stream.read(i, ["nothing"]) == {}


def _read_keys(folder, places):
    stream = folder.stream("pair", "train")
    return [sorted(stream.read(i)) for i in places]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_opened_folder_goes_into_other_processes(packed, method):
    folder = Folder.open(packed)
    here = _read_keys(folder, range(4))
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(_read_keys, (folder, range(4))).get(300) == here
    stream = pickle.loads(pickle.dumps(folder.stream("photo", "val")))
    assert stream.metadata(0)["kind"] == "photo"


def test_many_threads_and_few_open_files(packed, monkeypatch):
    monkeypatch.setattr(reader, "OPEN_FILES", 1)
    stream = Folder.open(packed).stream("pair", "train")
    places = [int(i) for i in np.random.default_rng(1).integers(len(stream), size=400)]
    with ThreadPoolExecutor(8) as pool:
        for i, members in zip(places, pool.map(stream.read, places), strict=True):
            assert members == stream.read(i)


def test_an_empty_split_is_an_empty_stream(packed):
    stream = Folder.open(packed).stream("class", "test")
    assert len(stream) == 0 and stream.keys == []
    with pytest.raises(DataError, match="no sample 'x'"):
        stream.find("x")
    with pytest.raises(DataError, match="kinds are pair, photo, class"):
        Folder.open(packed).stream("pairs", "train")


def test_a_truncated_tar_is_refused_when_opened(copied):
    tar = copied / TAR
    tar.write_bytes(tar.read_bytes()[:-1000])
    with pytest.raises(DataError, match=f"{TAR} has .* bytes and the manifest says .*shards.verify {copied}"):
        Folder.open(copied).stream("pair", "train")
    assert len(Folder.open(copied).stream("pair", "val")) == 4


def test_a_tar_cut_while_in_use_names_the_member(copied):
    stream = Folder.open(copied).stream("pair", "train")
    row = index.parse(index.path_of(copied / TAR).read_bytes(), copied)[0]
    with open(copied / TAR, "r+b") as file:
        file.truncate(row.offset + 10)
    with pytest.raises(DataError, match=f"{TAR} ends before member {row.name}.*shards.verify"):
        stream.read(stream.find("train-004-c"))


def test_damaged_bytes_name_tar_member_and_fix(copied):
    stream = Folder.open(copied).stream("pair", "train")
    row = index.parse(index.path_of(copied / TAR).read_bytes(), copied)[0]
    with open(copied / TAR, "r+b") as file:
        file.seek(row.offset + 5)
        file.write(b"\0\0\0")
    with pytest.raises(DataError, match=f"{TAR}: member {row.name} is damaged .*shards.verify {copied}, then pack"):
        stream.sample(stream.find("train-004-c"))


def test_a_corrupt_jpeg_names_the_sample(copied):
    def cut(members):
        return [(name, data[:-40] if name == "train-005-c.before.jpg" else data) for name, data in members]

    rewrite(copied, cut)  # the checksums are those of the corrupt file
    stream = Folder.open(copied).stream("pair", "train")
    with pytest.raises(DataError, match=f"{TAR}: sample train-005-c, .*damaged JPEG .*shards.verify"):
        stream.images(stream.find("train-005-c"))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lambda m: entry_of(m).update(samples=3), "the index has 8 samples, the manifest 3"),
        (lambda m: entry_of(m).update(index_sha256="1" * 64), "not the index the manifest knows"),
        (lambda m: entry_of(m).update(name="../x.tar"), "not the name of a shard"),
        (lambda m: entry_of(m).update(kind="photo"), "entered as kind 'photo'"),
        (lambda m: m.update(schema=7), "schema is 7"),
        (lambda m: m.pop("classes"), "'classes' is missing"),
        (lambda m: m.pop("tokenizer"), "'tokenizer'"),
        (lambda m: m["shards"].append(m["shards"][0]), "listed twice"),
    ],
)
def test_a_manifest_that_lies_is_refused(copied, lie, words):
    edit_manifest(copied, lie)
    with pytest.raises(DataError, match=words) as caught:
        Folder.open(copied).stream("pair", "train")
    assert str(copied) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a\tb\n", "a\t1\t2\tzz\n", "a.json\t0\t99999999\t00000000\n", "a.json\t5\t1\t0000"])
def test_an_index_of_another_form_is_refused(copied, text):
    path = index.path_of(copied / TAR)
    path.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    edit_manifest(copied, lambda m: entry_of(m).update(index_sha256=digest))
    with pytest.raises(DataError, match=path.name):
        Folder.open(copied).stream("pair", "train")


def test_a_missing_folder_and_an_unfinished_one(tmp_path):
    with pytest.raises(DataError, match="no such folder; make it with python -m shards.pack"):
        Folder.open(tmp_path / "none")
    with pytest.raises(DataError, match="manifest.json is missing"):
        Folder.open(tmp_path)


def test_arrays_come_back_and_pickles_do_not(packed, tmp_path):
    array = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float16)
    samples = [("k", {"before.npy": encode_array(array), "after.npy": encode_array(array.T)})]
    entry = write_shard(tmp_path, TAR, samples) | {"kind": "pair", "split": "train"}
    contents = manifest.read(packed)
    del contents["tokenizer"]
    contents |= {"shards": [entry], "splits": manifest.count_splits([entry]), "features": {}}
    manifest.write(tmp_path, contents)
    stream = Folder.open(tmp_path).stream("pair", "train")
    read = stream.arrays(0)
    assert np.array_equal(read["before"], array) and np.array_equal(read["after"], array.T)
    assert not read["before"].flags.writeable
    with pytest.raises(DataError, match="k.json is not there"):
        stream.metadata(0)
    with pytest.raises(DataError, match="arrays in feature folders"):
        Folder.open(packed).stream("pair", "train").arrays(0)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="never pickled"):
        decode_array(pickled.getvalue())
    for data in (b"", encode_array(array)[:-1], encode_array(array) + b"x", b"\x93NUMPY\x01\x00\x04\x00{}()"):
        with pytest.raises(DataError):
            decode_array(data)


def _png(width: int, height: int) -> bytes:
    """A few bytes that claim so many pixels."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 1000)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_images_of_all_kinds_and_none(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    for mode, name in (
        ("RGB", "a.jpg"),
        ("L", "b.jpg"),
        ("CMYK", "c.jpg"),
        ("RGBA", "d.png"),
        ("P", "e.png"),
        ("1", "f.png"),
    ):
        Image.fromarray(pixels).convert(mode).save(tmp_path / name)
        decoded = decode_image((tmp_path / name).read_bytes())
        assert decoded.shape == (20, 30, 3) and decoded.dtype == np.uint8
    Image.fromarray(pixels).save(tmp_path / "g.png")
    assert np.array_equal(decode_image((tmp_path / "g.png").read_bytes()), pixels)
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "h.png")
    assert decode_image((tmp_path / "h.png").read_bytes()).max() == 0x80
    for data in (b"", b"GIF89a", (tmp_path / "a.jpg").read_bytes()[:60], (tmp_path / "g.png").read_bytes()[:-30]):
        with pytest.raises(DataError):
            decode_image(data)


def test_an_image_that_claims_too_many_pixels_is_refused_before_decoding():
    side = int(PIXEL_LIMIT**0.5) + 1
    small = io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG")
    jpeg = bytearray(small.getvalue())
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", side, side)
    for data in (_png(side, side), bytes(jpeg)):
        with pytest.raises(DataError, match=f"claims {side}x{side} pixels"):
            decode_image(data)
