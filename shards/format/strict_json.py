"""JSON that others may have written: parsed with a limit on its size, and only what every other program reads too."""

from __future__ import annotations

import json
from typing import Any

from shards.errors import DataError

SAMPLE_LIMIT = 16 * 2**20  # bytes of one sample's json; parsed, they can take twenty times as much memory


def _refuse_constant(name: str) -> None:
    raise DataError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(data: bytes, limit: int = SAMPLE_LIMIT) -> Any:
    """The value in UTF-8 JSON bytes.

    DataError, in words that follow a file's name, where there are more than `limit` bytes, they are no JSON, are nested
    too deep to be parsed, or hold NaN, infinities, integers of thousands of digits, or half a character ("\\ud800").
    """
    if len(data) > limit:
        raise DataError(f"{len(data)} bytes of JSON, more than {limit} are not read")
    try:
        text = data.decode().strip(" \t\n\r")
        value, end = _decoder.raw_decode(text)
        if end != len(text):
            raise DataError("not JSON")
        # Half a character could not be written to any file again. One letter is found ten times as fast as two.
        if "\\" in text and "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except DataError:
        raise
    except RecursionError:
        raise DataError("JSON that is nested too deep") from None
    except ValueError:
        raise DataError("not JSON") from None
    return value
