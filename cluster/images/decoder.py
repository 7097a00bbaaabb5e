"""The process that decodes images: bytes of JPEG or PNG in, pixels of a backbone's canvas out, one image at a time.

`cluster.images.loaders` starts it; its standard input is a socket. It ends with the process that started it, however
that ends: the socket then has no other end. It knows no torch, no folder and no settings but the canvas.

    request: HEADER (length of the bytes, the look), the bytes
    answer: REPLY (1: pixels, 0: why not; length), pixels of the canvas' size or text
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import traceback

from PIL import Image

from cluster.images.look import Look
from idc.backbone.canvas import Canvas
from shards.errors import DataError
from shards.images.decode import decode_image

HEADER = struct.Struct("<Q7d?")
REPLY = struct.Struct("<BQ")
PIXELS, REFUSED, FAILED = 1, 0, 2


def main() -> None:
    """Serves until the other end of the socket is closed. argv: JSON of the canvas and of the resampling."""
    settings = json.loads(sys.argv[1])
    canvas = Canvas(tuple(settings["inner"]), tuple(settings["outer"]))
    resampling = Image.Resampling[settings["resampling"].upper()]
    with socket.socket(fileno=0) as channel, channel.makefile("rwb", buffering=1 << 16) as stream:
        while len(header := stream.read(HEADER.size)) == HEADER.size:
            length, *look = HEADER.unpack(header)
            data = stream.read(length)
            if len(data) < length:
                return
            kind, answer = _answer(data, Look(*look), canvas, resampling)
            stream.write(REPLY.pack(kind, len(answer)))
            stream.write(answer)
            stream.flush()


def _answer(data: bytes, look: Look, canvas: Canvas, resampling: Image.Resampling) -> tuple[int, bytes | memoryview]:
    try:
        return PIXELS, look.on(decode_image(data), canvas, resampling).tobytes()
    except DataError as error:
        return REFUSED, str(error).encode()
    except Exception:  # of ours: the one who asked ends with it
        return FAILED, traceback.format_exc().encode()


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError):
        pass  # whoever asked has gone
