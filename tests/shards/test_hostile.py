"""Files made to do harm are refused by name, in one line, with little memory, and nothing is written outside."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from PIL import Image
from testing.tampering import TAR, edit_manifest, entry_of, rewrite

from shards.checks.verification import verify
from shards.errors import DataError
from shards.format import index, manifest
from shards.format.arrays import decode_array
from shards.format.strict_json import parse_json
from shards.format.tars import file_sha256, read_members
from shards.images.decode import decode_image
from shards.reading.reader import Folder
from shards.sources import make_source

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 2 * 2**30  # bytes of address space; the libraries alone take half of it


def limited(*arguments: object) -> subprocess.CompletedProcess:
    """Runs Python in a process that can have so much memory and no more."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )  # fmt: skip


def header(name: bytes | str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A tar header, right in itself, whatever it says."""
    info = tarfile.TarInfo("x")
    info.size, info.type, info.linkname = size, kind, link
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[:100] = (name.encode() if isinstance(name, str) else name).ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(field: str, value: str) -> bytes:
    """A PAX header that sets a field of the member after it."""
    info = tarfile.TarInfo("late-1.json")
    info.pax_headers = {field: value}
    return info.tobuf(tarfile.PAX_FORMAT)


ATTACKS = {
    "a name that climbs": (header("../late.json"), "member ../late.json is not a plain KEY.NAME file"),
    "an absolute name": (header("/etc/late.json"), "member /etc/late.json is not a plain KEY.NAME file"),
    "a name with a NUL": (header(b"late.json\0../x"), r"member late.json\\x00../x is not a plain"),
    "a name that is not UTF-8": (header(b"late-\xff\xfe.json"), r"member late-\\xff\\xfe.json is not a plain"),
    "a name with a line break": (header(b"la\nte.json"), r"member la\\nte.json is not a plain"),
    "a symbolic link": (header("late.json", kind=tarfile.SYMTYPE, link="/etc/passwd"), "is a symbolic link"),
    "a hard link": (header("late.json", kind=tarfile.LNKTYPE, link="../../x"), "is a hard link"),
    "a device": (header("late.json", kind=tarfile.CHRTYPE), "member late.json is a device"),
    "a pipe": (header("late.json", kind=tarfile.FIFOTYPE), "member late.json is a pipe"),
    "a folder": (header("late", kind=tarfile.DIRTYPE), "member late is a folder"),
    "a sparse file": (header("late.json", 512, tarfile.GNUTYPE_SPARSE), "member late.json is a sparse file"),
    "a long name": (header("late.json", 2**32, tarfile.GNUTYPE_LONGNAME), "member late.json is a long name"),
    "a PAX path": (pax("path", "../../late.json"), "is an extension header"),
    "a PAX size": (pax("size", str(2**40)), "is an extension header"),
    "4 GB in a few bytes": (header("late-1.json", 2**32 - 1), "member late-1.json claims 4294967295 bytes"),
    "a size in base 256": (header("late-1.json", 2**35), "member late-1.json has a size that is not 11 octal digits"),
    "more than is left": (header("late-1.json", 2**20), "cut short inside member late-1.json"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_members_that_are_no_plain_files_are_refused_by_name(copied, attack):
    """They stand behind the last member of a tar whose size, checksum and manifest know them."""
    blocks, words = ATTACKS[attack]
    tar = copied / TAR
    last = index.parse(index.path_of(tar).read_bytes(), tar)[-1]
    end = index.padded(last.offset + last.length)
    tar.write_bytes(tar.read_bytes()[:end] + blocks + bytes(10240))
    size, digest = tar.stat().st_size, file_sha256(tar)
    edit_manifest(copied, lambda m: entry_of(m).update(bytes=size, sha256=digest))
    words = words.replace("\\\\", "\\")
    findings = verify(copied)
    assert any(f"{tar}: " in finding and words in finding for finding in findings), findings
    assert all("\n" not in finding for finding in findings)
    with pytest.raises(DataError) as caught:
        list(read_members(tar))
    assert words in str(caught.value) and str(tar) in str(caught.value)
    # Reading by the index never comes near them.
    assert Folder.open(copied).stream("pair", "train").sample(8)[0]["kind"] == "pair"
    assert not (copied.parent / "late.json").exists() and sorted(os.listdir(copied.parent)) == [copied.name]


def tsv(*rows: tuple[str, int, int]) -> bytes:
    return "".join(f"{name}\t{offset}\t{length}\t00000000\n" for name, offset, length in rows).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tsv(("k.json", 512, 2**40)), "member k.json of 1099511627776 bytes"),
        (tsv(("k.json", 10**17, 1)), "lies at 100000000000000000, not 512"),
        (tsv(("k.json", 512, 600), ("k.photo.jpg", 1024, 9)), "lies at 1024, not 2048"),
        (tsv(("k.json", 512, 1), ("k.json", 1536, 1)), "k.json comes twice"),
        (tsv(("k.json", 512, 1), ("l.json", 1536, 1), ("k.photo.jpg", 2560, 1)), "sample k do not lie together"),
        (tsv(("../k.json", 512, 1)), r"line 1 is not .*'\.\./k\.json"),
        (tsv(("/k.json", 512, 1)), "line 1 is not"),
        (tsv(("k.json", 512, 1)).replace(b"512", "٥١٢".encode()), "not text"),
        (b"\xff\n", "not text"),
        (tsv(("k.json", 512, 10**8)), "lies outside"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(copied, data, words):
    path = index.path_of(copied / TAR)
    path.write_bytes(data)
    digest = file_sha256(path)
    edit_manifest(copied, lambda m: entry_of(m).update(index_sha256=digest, samples=1))
    with pytest.raises(DataError, match=words) as caught:
        Folder.open(copied).stream("pair", "train")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert any(path.name in finding or TAR in finding for finding in verify(copied))


DEEP = b"[" * 1_000_000 + b"]" * 1_000_000
BAD_JSON = {
    "nested a million deep": (DEEP, "nested too deep"),
    "an object nested": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
    "NaN": (b'{"captions": [NaN]}', "NaN is not JSON"),
    "infinity": (b'{"captions": -Infinity}', "-Infinity is not JSON"),
    "a number of 100,000 digits": (b'{"class_id": ' + b"9" * 100_000 + b"}", "not JSON"),
    "half a character": (b'{"id": "\\ud800"}', "not JSON"),
    "not UTF-8": (b'{"id": "\xff"}', "not JSON"),
    "UTF-16": ('{"id": "x"}'.encode("utf-16"), "not JSON"),
    "too large": (b" " * (16 * 2**20 + 1), "more than 16777216 are not read"),
    "nothing": (b"", "not JSON"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_would_do_harm_is_refused(copied, name):
    data, words = BAD_JSON[name]
    with pytest.raises(DataError, match=words):
        parse_json(data)
    rewrite(copied, lambda members: [(m, data if m.endswith("4-c.json") else old) for m, old in members])
    assert any(f"{TAR}: member train-004-c.json: " in finding and words in finding for finding in verify(copied))
    stream = Folder.open(copied).stream("pair", "train")
    with pytest.raises(DataError, match="train-004-c.json"):
        stream.metadata(stream.find("train-004-c"))
    (copied / manifest.FILE).write_bytes(data)
    with pytest.raises(DataError, match=manifest.FILE) as caught:
        verify(copied)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lambda m: entry_of(m).update(name="../x.tar"), "'../x.tar' is not the name of a shard"),
        (lambda m: entry_of(m).update(name="/etc/passwd"), "not the name of a shard"),
        (lambda m: m["tokenizer"].update(file="../tokenizer.model"), "'../tokenizer.model'"),
        (
            lambda m: m.update(dropped_file={"file": "../x", "lines": 0, "sha256": "0" * 64}),
            "does not name dropped",
        ),
        (lambda m: entry_of(m).update(samples=True), "'samples' and 'bytes' must be numbers"),
        (lambda m: entry_of(m).update(bytes=-1), "'samples' and 'bytes' must be numbers"),
        (lambda m: entry_of(m).update(sha256=5), "'sha256' is not a SHA-256"),
        (lambda m: entry_of(m).update(kind=["pair"]), "entered as kind"),
        (lambda m: m.update(schema="x" * 10**6), "schema is"),
        (lambda m: m.update(shards={}), "'shards' is missing or not a list"),
        (lambda m: m["shards"].append(None), "a shard entry has no name"),
        (lambda m: m["classes"].append({}), "'classes' must be a list of names"),
        (lambda m: m["splits"].update({"../train": {}}), "'splits' has '../train'"),
        (lambda m: m["splits"].update(train={"pair": 1.5}), "'splits' has counts of train"),
        (lambda m: m["dropped"].update({"no photo": "x"}), "'dropped' must be reasons with counts"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(copied, lie, words):
    edit_manifest(copied, lie)
    for read in (Folder.open, verify):
        with pytest.raises(DataError, match=words) as caught:
            read(copied)
        assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG of white pixels, as small as they pack and no more than 64 rows; `chunks` come before them."""
    rows = zlib.compress((b"\0" + b"\xff" * 3 * min(width, 10_000)) * min(height, 64), 9)
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    small = io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG")
    data = bytearray(small.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def text_bomb() -> bytes:
    """A PNG of 600 KB whose text unpacks to 600 MB."""
    packed = zlib.compress(bytes(20 * 2**20), 9)
    return png(4, 4, *(chunk(b"zTXt", b"k%d\0\0" % number + packed) for number in range(30)))


DECODE = """
import resource, sys
from pathlib import Path
from shards.errors import DataError
from shards.images.decode import decode_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(Path(sys.argv[1]).read_bytes())
except DataError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("make", "words", "most"),
    [
        (lambda: png(60000, 60000), "claims 60000x60000 pixels", 8),
        (lambda: png(2**31 - 1, 2**31 - 1), "claims 2147483647x2147483647 pixels", 8),
        (lambda: png(0, 5), "claims 0x5 pixels", 8),
        (lambda: jpeg(65000, 65000), "claims 65000x65000 pixels", 8),
        (text_bomb, "damaged PNG", 200),
    ],
)
def test_an_image_that_unpacks_to_gigabytes_takes_no_memory(tmp_path, make, words, most):
    (tmp_path / "image").write_bytes(make())
    assert (tmp_path / "image").stat().st_size < 2**20
    done = limited("-c", DECODE, tmp_path / "image")
    assert done.returncode == 0, done.stderr
    said, grown = done.stdout.splitlines()
    assert words in said and int(grown) <= most and done.stderr == ""


def test_an_image_that_does_not_fit_into_memory_is_an_error_of_its_own(tmp_path):
    """It is within the limit of pixels: 192 MiB, where the process may have 100 more than it has."""
    (tmp_path / "image").write_bytes(png(8192, 8190))
    code = DECODE.replace(
        "before =",
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)\nbefore =",
    )
    done = limited("-c", code, tmp_path / "image")
    assert done.returncode == 0 and "does not fit into memory" in done.stdout, done.stdout + done.stderr


def test_damaged_images_and_arrays_raise_nothing_else(tmp_path):
    import random

    import numpy as np

    from shards.format.arrays import encode_array

    pixels = np.random.default_rng(0).integers(0, 255, (12, 14, 4), dtype=np.uint8)
    seeds = [(decode_array, encode_array(np.ones((3, 4), np.float16)))]
    for mode, kind in (("RGB", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG")):
        buffer = io.BytesIO()
        (Image.fromarray(pixels[:, :, 0].astype(np.uint16)) if mode == "I;16" else
         Image.fromarray(pixels).convert("RGB").convert(mode)).save(buffer, kind)  # fmt: skip
        seeds.append((decode_image, buffer.getvalue()))
    draw = random.Random(0)
    refused = 0
    for decode, whole in seeds:
        for _ in range(500):
            data = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            try:
                decode(bytes(data[: draw.choice((len(data), draw.randrange(1, len(data))))]))
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 1000


def test_sparse_files_of_gigabytes_do_not_fill_the_memory(copied):
    """Tar, index and manifest of 8 GB each that take no room on the disk."""
    for name in (TAR, index.path_of(copied / TAR).name):
        os.truncate(copied / name, 8 * 2**30)
    done = limited("-m", "shards.verify", copied)
    assert "MemoryError" not in done.stderr and done.returncode == 1, done.stderr
    assert f"{copied / TAR}: 8589934592 bytes" in done.stdout
    os.truncate(copied / manifest.FILE, 8 * 2**30)
    done = limited("-m", "shards.verify", copied)
    assert done.returncode == 2 and manifest.FILE in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("data", [DEEP, b"[]", b'{"images": NaN}', b'"x"', b"\xff"], ids=range(5))
def test_hostile_annotations_are_refused_by_name(tmp_path, data):
    """The files of a data set that others filled, as the packer reads them."""
    for folder in ("images", "sc_images", "nsc_images"):
        (tmp_path / folder).mkdir()
    for name in ("change_captions", "no_change_captions", "splits", "type_mapping"):
        (tmp_path / f"{name}.json").write_bytes(data)
    source = make_source("clevr_change", str(tmp_path), {})
    with pytest.raises(DataError, match=r"\.json") as caught:
        source.records(1)
    assert "\n" not in str(caught.value)


def test_nothing_that_unpickles_or_starts_a_shell_is_in_the_package():
    for path in sorted((ROOT / "shards").rglob("*.py")):
        text = path.read_text()
        for word in ("pickle.load", "import pickle", "os.system", "shell=True", "eval(", "exec(", "extractall"):
            assert word not in text, f"{path} has {word}"


def test_a_tar_name_that_repeats_inside_is_named(copied):
    tar = copied / TAR
    rows = index.parse(index.path_of(tar).read_bytes(), tar)
    data = tar.read_bytes()
    first = data[: index.padded(rows[0].offset + rows[0].length)]
    tar.write_bytes(first + data)
    assert any(f"member {rows[0].name} comes twice" in finding for finding in verify(copied))


def test_a_sample_of_another_kind_does_not_pass(copied):
    def other(members):
        fields = {"kind": "class", "class_id": 10**30, "class_name": "x", "source": "s", "id": "i"}
        return [(name, json.dumps(fields).encode() if name.endswith("4-c.json") else data) for name, data in members]

    rewrite(copied, other)
    assert any("'kind' is 'class' in a shard of pair" in finding for finding in verify(copied))
