"""What people give for an image (a path, a Pillow image, an array, a URL if allowed) as pixels."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

from idc.backbone.pixels import ImageError, decode, of_array, rgb

ImageLike = str | Path | Image.Image | np.ndarray
URLS = ("http://", "https://")
MOST_BYTES = 256 * 1024 * 1024  # of a file that a URL leads to
SILENT_S, LONGEST_S = 20.0, 120.0  # without a byte, and in all


def pixels_of(image: ImageLike, role: str, urls: bool = False) -> np.ndarray:
    """uint8 RGB (H, W, 3), upright; ImageError naming the image, or the role of one that has no name.

    urls: http and https are fetched; else they are refused, for a page may make them reach what it cannot.
    """
    name = str(image) if isinstance(image, str | Path) else role
    try:
        if isinstance(image, np.ndarray):
            return of_array(image)
        if isinstance(image, Image.Image):
            return rgb(image)
        if isinstance(image, str) and image.lower().startswith(URLS):
            if not urls:
                raise ImageError("URLs are not fetched unless asked for: Captioner.load(..., urls=True) or --urls")
            return decode(_fetch(image))
        return decode(Path(image).read_bytes())
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except ImageError as error:
        what = "cannot be read as an image" if isinstance(image, str | Path) else ""
        raise ImageError(f"{name} {what} ({error})" if what else f"{name}: {error}") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name} cannot be read as an image ({' '.join(str(error).split())})") from None


def _fetch(url: str) -> bytes:
    """The bytes that a URL leads to. ImageError: there are none, there are too many, or they take too long."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())  # none for files and FTP: a redirect may ask for them
    until, data = time.monotonic() + LONGEST_S, bytearray()
    try:
        with opener.open(url, timeout=SILENT_S) as answer:
            while chunk := answer.read(1 << 16):
                data += chunk
                if len(data) > MOST_BYTES:
                    raise ImageError(f"more than {MOST_BYTES >> 20} MiB")
                if time.monotonic() > until:
                    raise ImageError(f"not there after {LONGEST_S:.0f} s")
    except ImageError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(str(getattr(error, "reason", "") or error) or type(error).__name__) from None
    return bytes(data)
