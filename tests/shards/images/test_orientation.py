"""Photos are read upright, as Pillow's exif_transpose turns them, whatever file they come in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from shards.images.decode import decode_image, jpeg_or_png
from shards.images.jpeg_header import common_size
from shards.pack import pack
from shards.reading.reader import Folder
from shards.sources.folder import FolderSource

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)  # 24 x 40


def photo(form: str, orientation: object, mode: str = "RGB") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    Image.fromarray(PIXELS).convert(mode).save(buffer, form, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P"), ("WEBP", "RGB"), ("TIFF", "RGB")],
)
def test_every_orientation_is_turned_as_viewers_do(form, mode, orientation):
    data = photo(form, orientation, mode)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    pixels = decode_image(jpeg_or_png(data))
    assert pixels.shape == expected.shape == ((40, 24, 3) if orientation > 4 else (24, 40, 3))
    assert np.abs(pixels - expected).max() <= (3 if form == "JPEG" else 0) and pixels.flags.c_contiguous


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_that_makes_no_sense_leaves_a_photo_as_it_is(form):
    for orientation in (0, 9, 300):
        assert decode_image(photo(form, orientation)).shape == (24, 40, 3)
    data = photo("JPEG", 6)
    place = data.index(b"Exif\0\0") + 6
    assert decode_image(data[:place] + b"\xff" * 8 + data[place + 8 :]).shape == (24, 40, 3)


def test_a_photo_without_exif_takes_the_short_way():
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG")
    assert common_size(buffer.getvalue()) == (40, 24) and common_size(photo("JPEG", 1)) is None


@pytest.mark.parametrize(("resize", "size"), [(None, (40, 24)), (12, (20, 12)), ((24, 40), (40, 24))])
def test_what_is_packed_is_read_upright(tmp_path, resize, size):
    (tmp_path / "root" / "cat").mkdir(parents=True)
    data = photo("JPEG", 6)
    (tmp_path / "root" / "cat" / "1.jpg").write_bytes(data)
    pack(FolderSource(tmp_path / "root"), tmp_path / "out", resize=resize)
    stream = Folder.open(tmp_path / "out").stream("class", "train")
    assert stream.images(0)["photo"].shape == (*size, 3)
    assert (stream.read(0)["photo.jpg"] == data) == (resize != 12)  # of its size already: its bytes are kept
