"""Two images out of a form that a browser sends, and how large they may be."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

ROLES = ("before", "after")
CHUNK = 1 << 16  # bytes
FORM_BYTES = 1 << 16  # of a form besides its images


@dataclass(frozen=True)
class Limits:
    """What one server takes on, so that many users neither fill its memory nor wait for ever."""

    image_bytes: int = 16 * 1024 * 1024  # a file; its pixels have the limit of all reading, idc.backbone.pixels
    waiting: int = 16  # requests whose images are held at once
    working: int = 2  # of these, pairs whose pixels are in memory: one is read while the other has the model
    seconds: float = 60.0  # from a request's first byte to its answer


class Refused(Exception):
    """A request that is not served: a status of HTTP, and one line for the person who sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_images(request: web.Request, limits: Limits) -> tuple[bytes, bytes]:
    """The files `before` and `after` of a form; their names are not looked at. Refused: it is no such form."""
    if request.content_type != "multipart/form-data":
        raise Refused(415, "send a form (multipart/form-data) with the files before and after")
    if (request.content_length or 0) > 2 * limits.image_bytes + FORM_BYTES:
        raise Refused(413, f"the two files are too large: each may have {mebibytes(limits.image_bytes)}")
    found: dict[str, bytes] = {}
    try:
        form = await request.multipart()
        while (part := await form.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name not in ROLES or part.name in found:
                raise Refused(400, "the form must have one file before and one file after, and nothing else")
            found[part.name] = await _read(part, part.name, limits.image_bytes)
    except (ValueError, HttpProcessingError, web.RequestPayloadError):
        raise Refused(400, "the form is damaged: send it again") from None
    for role in ROLES:
        if not found.get(role):
            raise Refused(400, f"the image {role} is missing: choose both images")
    return found["before"], found["after"]


async def _read(part: BodyPartReader, role: str, most: int) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk(CHUNK):
        data += chunk
        if len(data) > most:
            raise Refused(413, f"the image {role} is too large: a file may have {mebibytes(most)}")
    return bytes(data)


def mebibytes(count: int) -> str:
    """A size for people."""
    return f"{count / 2**20:.3g} MiB"
