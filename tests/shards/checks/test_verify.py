"""shards.verify finds whatever is wrong and names the file and the member."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from testing.tampering import TAR, edit_manifest, entry_of, rewrite

from shards.checks.verification import verify
from shards.errors import DataError
from shards.format import index, manifest
from shards.format.arrays import encode_array
from shards.format.tars import file_sha256, write_shard
from shards.reading.object_store import Bucket
from shards.verify import main


def test_a_whole_folder_has_no_findings(packed, capsys):
    assert main([str(packed)]) == 0
    assert "52 samples in 13 shards" in capsys.readouterr().out


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    """A folder of one tar of two samples, with a list of what was dropped."""
    folder = tmp_path_factory.mktemp("smallest")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(picture, "PNG")
    text = {"kind": "class", "source": "s", "class_id": 0, "class_name": "red"}
    samples = [
        (key, {"json": manifest.encode(text | {"id": key}), "photo.png": picture.getvalue()}) for key in ("k0", "k1")
    ]
    entry = write_shard(folder, "classes-train-000000.tar", samples) | {"kind": "class", "split": "train"}
    (folder / manifest.DROPPED).write_bytes(b"k2\tno photo\n")
    dropped = {"file": manifest.DROPPED, "lines": 1, "sha256": file_sha256(folder / manifest.DROPPED)}
    manifest.write(folder, {
        "schema": manifest.SCHEMA, "source": "s", "options": {}, "splits": manifest.count_splits([entry]),
        "shards": [entry], "classes": ["red"], "tokenizer": None, "text": {}, "dropped": {"no photo": 1},
        "dropped_file": dropped,
    })  # fmt: skip
    assert verify(folder) == []
    return folder


def reported(folder) -> list[str]:
    """What the command would print: findings, or the one line of an error."""
    try:
        return verify(folder)
    except DataError as error:
        return [str(error)]


@pytest.mark.slow
def test_every_flipped_byte_is_found_and_its_member_named(smallest):
    """All bytes of all files: headers, data, filling and the empty end of the tar, index, manifest, dropped.tsv."""
    tar = next(smallest.glob("*.tar"))
    owner = {}  # byte of the tar -> the member whose header, data or filling it is in
    for row in index.parse(index.path_of(tar).read_bytes(), tar):
        span = range(row.offset - index.BLOCK, index.padded(row.offset + row.length))
        owner |= dict.fromkeys(span, row.name)
    tried = 0
    for path in sorted(smallest.iterdir()):
        whole = path.read_bytes()
        with open(path, "r+b") as file:
            for place, value in enumerate(whole):
                os.pwrite(file.fileno(), bytes([value ^ (1 << place % 8)]), place)
                findings, tried = reported(smallest), tried + 1
                assert any(path.name in finding for finding in findings), (path.name, place)
                if path == tar and place in owner:
                    assert any(owner[place] in finding for finding in findings), (place, findings)
                os.pwrite(file.fileno(), bytes([value]), place)
    assert tried > 11_000 and verify(smallest) == []


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_other_byte_in_any_file_is_found(packed, data):
    path = data.draw(st.sampled_from(sorted(packed.iterdir())))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(flipped)
    try:
        findings = reported(packed)
    finally:
        path.write_bytes(whole)
    assert findings and all(path.name.split(".")[0] in finding for finding in findings)


def members_of(tar) -> list[bytes]:
    """Each member with its header and filling, as they lie in the tar."""
    data = tar.read_bytes()
    rows = index.parse(index.path_of(tar).read_bytes(), tar)
    return [data[row.offset - index.BLOCK : index.padded(row.offset + row.length)] for row in rows]


def renamed(member: bytes, name: bytes) -> bytes:
    """A member under another name, with a header that is right."""
    header = bytearray(name.ljust(100, b"\0") + member[100 : index.BLOCK])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + member[index.BLOCK :]


def exchanged(first: bytes, second: bytes) -> list[bytes]:
    """Two members under each other's names."""
    names = [member[:100].rstrip(b"\0") for member in (second, first)]
    return [renamed(first, names[0]), renamed(second, names[1])]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parts, n: parts[:n] + parts[n + 1 :], "{name} is in the index and not in the tar"),
        (
            lambda parts, n: parts[:n] + [renamed(parts[n], b"x.json")] + parts[n:],
            "x.json is in the tar and not",
        ),
        (lambda parts, n: parts[: n + 1] + parts[n:], "{name} comes twice"),
        (
            lambda parts, n: parts[:n] + [renamed(parts[n], b"x.json")] + parts[n + 1 :],
            "{name} is in the index and not",
        ),
        (lambda parts, n: parts[:n] + parts[n : n + 2][::-1] + parts[n + 2 :], "lie elsewhere than the index says"),
        (lambda parts, n: parts[:n] + exchanged(*parts[n : n + 2]) + parts[n + 2 :], "member {name}"),
    ],
    ids=["removed", "added", "doubled", "renamed", "swapped", "exchanged"],
)
def test_a_changed_list_of_members_is_found(copied, change, words):
    """At every place, the size of the tar and its index being what they were."""
    tar = copied / TAR
    size = tar.stat().st_size
    rows, parts = index.parse(index.path_of(tar).read_bytes(), tar), members_of(tar)
    for place in range(len(parts) - 1):
        tar.write_bytes(b"".join(change(parts, place)).ljust(size, b"\0"))
        findings = verify(copied)
        assert any(words.format(name=rows[place].name) in finding for finding in findings), (place, findings)
        assert all(TAR in finding for finding in findings)


def test_files_that_the_manifest_does_not_name_are_found(copied):
    names = ["folder", "notes.txt", "pairs-train-000000.tar.partial", "pairs-train-000099.tar", "tokenizer.json"]
    (copied / names[0]).mkdir()
    for name in names[1:]:
        (copied / name).write_bytes(b"")
    assert verify(copied) == [f"{copied}/{name}: not in the manifest" for name in names]


def test_a_large_folder_is_read_by_processes(copied, monkeypatch, capsys):
    monkeypatch.setattr("shards.checks.verification.LARGE", 0)
    (copied / "photos-val-000000.tar").unlink()
    (copied / TAR).write_bytes(b"")
    assert verify(copied, workers=2) == verify(copied) != []
    assert "verifying: 52 of 52 samples" in capsys.readouterr().err


def test_a_folder_in_an_object_store_is_verified_there(copied, s3_url):
    bucket = Bucket(s3_url)
    for path in copied.iterdir():
        bucket.upload(path, path.name)
    assert verify(s3_url) == []
    row = index.parse(index.path_of(copied / TAR).read_bytes(), copied)[4]
    damaged = bytearray((copied / TAR).read_bytes())
    damaged[row.offset] ^= 1
    bucket.write(TAR, bytes(damaged))
    bucket.write("notes.txt", b"")
    bucket.delete("tokenizer.model")
    bucket.delete("photos-val-000000.tar")
    findings = verify(s3_url)
    for words in (
        "notes.txt: not in the manifest",
        f"{TAR}: member {row.name}: crc32c differs from the index",
        "photos-val-000000.tar: missing, and the manifest lists it",
        "tokenizer.model: missing, and the manifest names it as 'tokenizer'",
    ):
        assert f"{s3_url}/{words}" in findings


def test_a_flipped_byte_inside_a_member_names_the_member(copied):
    row = index.parse(index.path_of(copied / TAR).read_bytes(), copied)[4]
    damaged = bytearray((copied / TAR).read_bytes())
    damaged[row.offset + row.length // 2] ^= 1
    (copied / TAR).write_bytes(damaged)
    assert verify(copied)[0] == f"{copied / TAR}: member {row.name}: crc32c differs from the index"


@pytest.mark.parametrize("left", [0, 511, 512, 3000, -10240, -1])
def test_a_truncated_tar_is_found(copied, left):
    whole = (copied / TAR).read_bytes()
    (copied / TAR).write_bytes(whole[: left if left >= 0 else len(whole) + left])
    findings = verify(copied)
    assert findings and all(TAR.removesuffix(".tar") in finding for finding in findings)


def test_missing_and_extra_members_are_found(copied):
    rewrite(copied, lambda members: [m for m in members if m[0] != "train-005-c.after.jpg"] + [("odd.gif", b"GIF89a")])
    findings = verify(copied)
    assert f"{copied / TAR}: sample train-005-c has no after" in findings
    assert f"{copied / TAR}: member odd.gif: does not belong in this folder" in findings


def test_members_that_the_index_does_not_know_are_found(copied):
    path = copied / TAR
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("late-1.json"), io.BytesIO(b""))
    assert f"{path}: member late-1.json is in the tar and not in the index" in verify(copied)


@pytest.mark.parametrize("name", ["../out.json", "/etc/x.json", "a/b.json"])
def test_members_with_paths_are_found(copied, name):
    with tarfile.open(copied / TAR, "a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    assert any(name in finding and "plain KEY.NAME" in finding for finding in verify(copied))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lambda m: entry_of(m).update(samples=99), "8 samples, the manifest says 99"),
        (lambda m: entry_of(m).update(bytes=1), "bytes, the manifest says 1"),
        (lambda m: entry_of(m).update(sha256="0" * 64), "sha256 differs"),
        (lambda m: entry_of(m).update(index_sha256="0" * 64), "sha256 differs"),
        (lambda m: m["shards"].remove(entry_of(m)), "not in the manifest"),
        (lambda m: m["splits"]["val"].update(pair=7), "says 7 samples of pair in val"),
        (lambda m: m["tokenizer"].update(sha256="0" * 64), "tokenizer.model: sha256"),
        (lambda m: m["classes"].reverse(), "'class_name'"),
        (lambda m: m["classes"].pop(), "3 classes"),
    ],
)
def test_a_manifest_that_lies_is_found(copied, lie, words):
    edit_manifest(copied, lie)
    assert any(words in finding for finding in verify(copied))


def test_missing_files_are_found(copied):
    for name in (TAR, "photos-val-000000.index.tsv", "tokenizer.model"):
        (copied / name).unlink()
    findings = "\n".join(verify(copied))
    for name in (TAR, "photos-val-000000.index.tsv", "tokenizer.model"):
        assert f"{copied / name}: missing" in findings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"kind": "photo", "source": "s", "id": "i", "captions": [], "negatives": {}}', "'kind' is 'photo'"),
        (b'{"kind": "pair", "source": "s", "id": "i", "captions": "no", "negatives": {}}', "'captions' is not a list"),
        (b'{"kind": "pair", "source": "s", "id": "i", "captions": [], "negatives": {"replace": []}}', "'negatives'"),
    ],
)
def test_json_of_the_wrong_form_is_found(copied, text, words):
    rewrite(copied, lambda members: [(name, text if name.endswith("4-c.json") else data) for name, data in members])
    findings = verify(copied)
    assert findings and all(f"{TAR}: member train-004-c.json" in finding for finding in findings)
    assert words in " ".join(findings)


def test_a_key_in_two_tars_is_found(copied):
    other = "pairs-val-000000.tar"
    rewrite(copied, lambda members: [(name.replace("val-000-c", "train-004-c"), data) for name, data in members], other)
    assert f"{copied / other}: sample train-004-c is also in {TAR}" in verify(copied)


def test_a_feature_folder_is_verified_too(packed, tmp_path):
    contents = manifest.read(packed)
    samples = [
        ("train-000-c", {role + ".npy": encode_array(np.ones((4, 3), np.float16)) for role in ("before", "after")})
    ]
    entry = write_shard(tmp_path, TAR, samples) | {"kind": "pair", "split": "train"}
    del contents["tokenizer"], contents["text"]
    contents |= {"shards": [entry], "splits": manifest.count_splits([entry]), "features": {"dim": 3}}
    manifest.write(tmp_path, contents)
    assert verify(tmp_path) == []
    entry = write_shard(tmp_path, TAR, [("k", {"before.npy": b"\x93NUMPY"})]) | {"kind": "pair", "split": "train"}
    manifest.write(tmp_path, contents | {"shards": [entry]})
    assert [finding.split(": ", 1)[1] for finding in verify(tmp_path)] == [
        "member k.before.npy: not an .npy file",
        "sample k has no after",
    ]


def test_exit_codes(copied, tmp_path, capsys):
    with pytest.raises(DataError, match="no such folder"):
        main([str(tmp_path / "nowhere")])
    (copied / TAR).unlink()
    assert main([str(copied)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
    (copied / manifest.FILE).write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        main([str(copied)])


def test_hashes_are_those_of_the_files(packed):
    for shard in manifest.read(packed)["shards"]:
        data = (packed / shard["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard["sha256"] == file_sha256(packed / shard["name"])
