"""A photo has the same pixels in training and when it is captioned: packing and captioning read it alike."""

from __future__ import annotations

import functools
import http.server
import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from idc.backbone.pixels import ImageError, decode, of_array, rgb
from idc.captioning.images import pixels_of
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
    packed, captioned = decode_image(jpeg_or_png(data)), pixels_of(path, "before")
    assert captioned.dtype == np.uint8 and np.array_equal(packed, captioned)
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(packed, pixels_of(opened, "before"))


def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path):
    (tmp_path / "grey.png").write_bytes(saved("PNG", "I;16"))
    pixels = pixels_of(tmp_path / "grey.png", "before")
    assert np.array_equal(pixels, np.repeat((WIDE_GREY >> 8).astype(np.uint8)[:, :, None], 3, axis=2))
    assert np.array_equal(rgb(Image.fromarray(WIDE_GREY)), pixels)


def test_a_photo_that_xmp_turns_is_upright_in_both(tmp_path):
    assert decode_image(saved("JPEG", "RGB", xmp=XMP)).shape == (61, 43, 3)


def test_damaged_exif_says_nothing_to_either(tmp_path):
    data = saved("JPEG", "RGB", exif=exif(6))
    place = data.index(b"Exif\0\0") + 6
    damaged = data[:place] + b"\xff" * 8 + data[place + 8 :]
    (tmp_path / "photo.jpg").write_bytes(damaged)
    assert np.array_equal(decode_image(damaged), pixels_of(tmp_path / "photo.jpg", "before"))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_a_pixel_are_refused_by_both(tmp_path, dtype):
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match="save it with 8 or 16 bits"):
        jpeg_or_png((tmp_path / "deep.tif").read_bytes())
    with pytest.raises(ImageError, match="deep.tif cannot be read as an image .*save it with 8 or 16 bits"):
        pixels_of(tmp_path / "deep.tif", "before")
    with pytest.raises(ImageError, match="before: 32 bits"):
        pixels_of(Image.fromarray(np.ones((4, 4), np.float32)), "before")


DAMAGE = {
    "an empty file": b"",
    "text": b"no image at all",
    "a format that Pillow knows and packing does not": b"P6 1 1 255\n\0\0\0",
    "a JPEG cut short": saved("JPEG", "RGB")[:-200],
    "a JPEG with bytes lost inside": saved("JPEG", "RGB")[:900] + saved("JPEG", "RGB")[960:],
    "a JPEG without pixels": saved("JPEG", "RGB")[:100],
    "a PNG cut short": saved("PNG", "RGB")[:-200],
    "a PNG with a damaged chunk": saved("PNG", "RGB")[:60] + b"\0\0\0\0" + saved("PNG", "RGB")[64:],
    "a PNG of a terabyte": saved("PNG", "RGB")[:16] + struct.pack(">II", 10**6, 10**6) + saved("PNG", "RGB")[24:],
    "a GIF cut short": saved("GIF", "P")[:-400],
    "a TIFF without its directory": saved("TIFF", "RGB")[:60],
    "a WebP cut short": saved("WEBP", "RGB")[:-300],
    "a BMP cut short": saved("BMP", "RGB")[:-300],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_packing_refuses_captioning_refuses(tmp_path, what):
    (tmp_path / "photo").write_bytes(DAMAGE[what])
    with pytest.raises(DataError) as packed:
        decode_image(jpeg_or_png(DAMAGE[what]))
    with pytest.raises(ImageError, match="photo cannot be read as an image") as captioned:
        pixels_of(tmp_path / "photo", "before")
    assert "\n" not in f"{packed.value}{captioned.value}"


def test_bytes_after_the_end_of_a_jpeg_matter_to_neither():
    data = saved("JPEG", "RGB") + b"thumbnail"
    assert np.array_equal(decode_image(jpeg_or_png(data)), decode(data))


def png(array: np.ndarray) -> bytes:
    """The PNG (grey, grey and alpha, RGB, RGBA; of 8 or 16 bits) that holds an array (H, W, channels)."""
    height, width, channels = array.shape
    rows = array.astype(array.dtype.newbyteorder(">")).tobytes()
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    made = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_array_counts_as_the_png_that_holds_it(dtype, channels):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (9, 7, channels), dtype=dtype, endpoint=True)
    packed = decode_image(jpeg_or_png(png(array)))
    assert np.array_equal(packed, of_array(array)) and np.array_equal(packed, decode(png(array)))


def test_arrays_of_other_depths():
    mask = np.random.default_rng(0).random((9, 7)) < 0.5
    as_file = png((mask * np.uint8(255))[:, :, None])
    assert np.array_equal(of_array(mask), decode_image(as_file))
    colours = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for dtype in (np.float16, np.float32, np.float64):
        assert np.array_equal(of_array((colours / 255).astype(dtype)), colours)
    wrong = {
        "from 0 to 1": [colours.astype(np.float32), colours / 255 - 0.1, np.full((2, 2), np.nan)],
        "not int64": [colours.astype(np.int64)],
        "the shape": [np.zeros(4, np.uint8), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 2), np.uint8)],
    }
    for message, arrays in wrong.items():
        for array in arrays:
            with pytest.raises(ImageError, match=message):
                pixels_of(array, "before")


def test_a_url_is_fetched_if_it_may_be_and_as_the_file_would_be_read(tmp_path):
    (tmp_path / "photo.png").write_bytes(saved("PNG", "RGB"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/photo.png"
        with pytest.raises(ImageError, match="not fetched unless asked for"):
            pixels_of(url, "before")
        assert np.array_equal(pixels_of(url, "before", urls=True), decode_image(saved("PNG", "RGB")))
        with pytest.raises(ImageError, match="no.png cannot be read as an image .File not found"):
            pixels_of(url.replace("photo", "no"), "before", urls=True)
        server.shutdown()
