"""A photo has the same pixels in training and when it is captioned: packing and idc.captioner read it alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from idc.backbone.pixels import rgb
from idc.captioner import ImageError, _pixels
from shards.errors import DataError
from shards.images.decode import decode_image, jpeg_or_png

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((61, 43))
WIDE_GREY = (np.arange(43 * 61, dtype=np.uint16) * 24).reshape(43, 61)  # up to 62,928 of 65,535
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def image(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(WIDE_GREY)
    if mode in ("RGBA", "LA"):
        made = SMOOTH.convert(mode)
        made.putalpha(Image.fromarray((WIDE_GREY >> 8).astype(np.uint8)))
        return made
    return SMOOTH.convert(mode)


def saved(form: str, mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image(mode).save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Orientation] = orientation
    return made


CASES = [
    *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ("PNG", "P", {"transparency": 3}),
    *(("TIFF", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "CMYK", "I;16")),
    *(("BMP", mode, {}) for mode in ("RGB", "L", "P")),
    *(("WEBP", mode, {"lossless": True}) for mode in ("RGB", "RGBA")),
    ("GIF", "P", {}),
    *(("JPEG", mode, {"subsampling": s, "progressive": p})
      for mode in ("RGB", "L", "CMYK") for s in (0, 1, 2) for p in (False, True)),
    *((form, mode, {"exif": exif(number)})
      for form, mode in (("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "I;16"), ("TIFF", "I;16"))
      for number in range(1, 10)),
    ("JPEG", "RGB", {"xmp": XMP}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "mode", "options"), CASES)
def test_packing_and_captioning_read_the_same_pixels(tmp_path, form, mode, options):
    data = saved(form, mode, **options)
    path = tmp_path / "photo"
    path.write_bytes(data)
    packed, captioned = decode_image(jpeg_or_png(data)), _pixels(path, "before")
    assert captioned.dtype == np.uint8 and np.array_equal(packed, captioned)
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(packed, _pixels(opened, "before"))


def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path):
    (tmp_path / "grey.png").write_bytes(saved("PNG", "I;16"))
    pixels = _pixels(tmp_path / "grey.png", "before")
    assert np.array_equal(pixels, np.repeat((WIDE_GREY >> 8).astype(np.uint8)[:, :, None], 3, axis=2))
    assert np.array_equal(rgb(Image.fromarray(WIDE_GREY)), pixels)


def test_a_photo_that_xmp_turns_is_upright_in_both(tmp_path):
    assert decode_image(saved("JPEG", "RGB", xmp=XMP)).shape == (61, 43, 3)


def test_damaged_exif_says_nothing_to_either(tmp_path):
    data = saved("JPEG", "RGB", exif=exif(6))
    place = data.index(b"Exif\0\0") + 6
    damaged = data[:place] + b"\xff" * 8 + data[place + 8 :]
    (tmp_path / "photo.jpg").write_bytes(damaged)
    assert np.array_equal(decode_image(damaged), _pixels(tmp_path / "photo.jpg", "before"))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_a_pixel_are_refused_by_both(tmp_path, dtype):
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match="save it with 8 or 16 bits"):
        jpeg_or_png((tmp_path / "deep.tif").read_bytes())
    with pytest.raises(ImageError, match="deep.tif cannot be read as an image .*save it with 8 or 16 bits"):
        _pixels(tmp_path / "deep.tif", "before")
    with pytest.raises(ImageError, match="before: 32 bits"):
        _pixels(Image.fromarray(np.ones((4, 4), np.float32)), "before")
