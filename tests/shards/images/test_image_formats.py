"""Photos that are neither JPEG nor PNG: packed as PNG of the same pixels, or left out by name."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.checks.verification import verify
from shards.errors import DataError
from shards.images.decode import decode_image, format_of, jpeg_or_png
from shards.pack import pack
from shards.reading.reader import Folder
from shards.sources.folder import FolderSource
from shards.sources.layouts.layout import Photos

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
OPTIONS = {"WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"}}


def encoded(form: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, form, **OPTIONS.get(form, {}) | options)
    return buffer.getvalue()


def test_other_formats_are_packed_as_png_of_the_same_pixels(tmp_path):
    folder = tmp_path / "root" / "cat"
    folder.mkdir(parents=True)
    for form in ("WEBP", "BMP", "TIFF", "GIF"):
        (folder / f"{form}.jpg").write_bytes(encoded(form))  # known by content, whatever the name
    (folder / "kept.png").write_bytes(encoded("PNG"))
    (folder / "kept.jpg").write_bytes(encoded("JPEG"))
    manifest = pack(FolderSource(tmp_path / "root"), tmp_path / "out")
    assert manifest["dropped"] == {} and verify(tmp_path / "out") == []
    found = {}
    for split in ("train", "val", "test"):
        stream = Folder.open(tmp_path / "out").stream("class", split)
        for i in range(len(stream)):
            record, members = stream.sample(i)
            found[record["id"].removeprefix("cat/")] = next(iter(members.items()))
    for form in ("WEBP", "BMP", "TIFF"):
        suffix, data = found[f"{form}.jpg"]
        assert suffix == "photo.png" and np.array_equal(decode_image(data), PIXELS)
    with Image.open(folder / "GIF.jpg") as image:  # 256 colours
        assert np.array_equal(decode_image(found["GIF.jpg"][1]), np.array(image.convert("RGB")))
    assert found["kept.png"] == ("photo.png", encoded("PNG")) and found["kept.jpg"] == ("photo.jpg", encoded("JPEG"))


def test_the_first_picture_of_a_film_and_16_bits_scaled_to_8():
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    data = encoded("GIF", frames[0], save_all=True, append_images=frames[1:])
    assert decode_image(jpeg_or_png(data))[0, 0].tolist() == [255, 0, 0]
    grey = Image.fromarray(np.full((4, 5), 0x8123, dtype=np.uint16))
    assert decode_image(jpeg_or_png(encoded("TIFF", grey)))[0, 0].tolist() == [0x81] * 3
    with pytest.raises(DataError, match="32 bits"):
        jpeg_or_png(encoded("TIFF", Image.fromarray(np.ones((4, 5), dtype=np.float32))))


@pytest.mark.parametrize("form", ["WEBP", "BMP", "TIFF", "GIF"])
def test_what_is_damaged_raises_nothing_else(form):
    draw = np.random.default_rng(1)
    data = encoded(form)
    for number in range(120):
        bad = bytearray(data[: int(draw.integers(1, len(data) + 1))] if number % 2 else data)
        bad[int(draw.integers(len(bad)))] ^= int(draw.integers(1, 256))
        try:
            jpeg_or_png(bytes(bad))
        except DataError as error:
            assert "\n" not in str(error) and "object at" not in str(error)


CLAIMS = {
    "GIF": lambda: b"GIF89a" + struct.pack("<HH", 65000, 65000) + encoded("GIF")[10:],
    "BMP": lambda: (data := encoded("BMP"))[:18] + struct.pack("<ii", 65000, 65000) + data[26:],
    "WEBP": lambda: (data := encoded("WEBP"))[:21] + b"\xff\xff\xff\x0f" + data[25:],
}


@pytest.mark.parametrize("form", sorted(CLAIMS))
def test_a_size_is_read_from_the_header_before_anything_is_decoded(form):
    with pytest.raises(DataError, match="the header claims.* more than 64 megapixels"):
        jpeg_or_png(CLAIMS[form]())


def test_a_phone_s_photo_and_an_empty_file_are_told_what_they_are(tmp_path):
    folder = tmp_path / "root" / "cat"
    folder.mkdir(parents=True)
    (folder / "good.jpg").write_bytes(encoded("JPEG"))
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (folder / "empty.jpg").write_bytes(b"")
    source = FolderSource(tmp_path / "root")
    assert [record.id for record in source.records()] == ["cat/good.jpg"]
    assert source.lost == [
        "cat/empty.jpg: an empty file",
        "cat/phone.heic: HEIC, AVIF or a film: convert it to JPEG",
    ]


def test_a_photo_by_its_stem_is_rather_one_that_is_kept_as_it_is(tmp_path: Path):
    for name in ("7.webp", "8.gif", "8.jpg", "9.tif", "9.bmp"):
        (tmp_path / name).touch()
    photos = Photos(tmp_path)
    assert [photos.find(stem, (".",)) for stem in ("7", "8")] == ["7.webp", "8.jpg"]
    with pytest.raises(DataError, match="9.bmp and 9.tif"):
        photos.find("9", (".",))


def test_a_format_is_known_by_its_first_bytes():
    assert [format_of(encoded(form)[:16]) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")] == [
        "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF",
    ]  # fmt: skip
    assert format_of(b"RIFF\0\0\0\0WAVEfmt ") is None and format_of(b"") is None
