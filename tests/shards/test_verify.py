"""shards.verify finds whatever is wrong and names the file and the member."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import index, manifest
from shards.arrays import encode_array
from shards.errors import DataError
from shards.tars import file_sha256, write_shard
from shards.verify import main, verify

TAR = "pairs-train-000001.tar"


def edit_manifest(folder, edit) -> None:
    path = folder / manifest.FILE
    contents = json.loads(path.read_text())
    edit(contents)
    path.write_text(json.dumps(contents))


def entry_of(contents, name=TAR) -> dict:
    return next(shard for shard in contents["shards"] if shard["name"] == name)


def rewrite(folder, change, name=TAR) -> None:
    """Packs a tar anew with other members and signs it: index and manifest agree with it again."""
    with tarfile.open(folder / name) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    members = change(members)
    samples: dict[str, dict[str, bytes]] = {}
    for member, data in members:
        samples.setdefault(member.partition(".")[0], {})[member.partition(".")[2]] = data
    entry = write_shard(folder, name, samples.items())
    edit_manifest(folder, lambda contents: entry_of(contents, name).update(entry))


def test_a_whole_folder_has_no_findings(packed, capsys):
    assert main([str(packed)]) == 0
    assert "52 samples in 13 shards" in capsys.readouterr().out


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_flipped_byte_is_found(packed, data):
    files = sorted(path for path in packed.iterdir() if path.name != manifest.FILE)
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(flipped)
    try:
        findings = verify(packed)
    finally:
        path.write_bytes(whole)
    assert findings and all(path.name.split(".")[0] in finding for finding in findings)


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
