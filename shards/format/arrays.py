"""Arrays as .npy bytes: written once into feature shards, read straight from the buffer; pickles are refused."""

from __future__ import annotations

import io
import re
from functools import lru_cache

import numpy as np

from shards.errors import DataError

_MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 10_000  # bytes, as numpy's own
# As numpy writes it: matched, not evaluated. At most 8 axes, none of them empty.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,3})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[1-9]\d{0,11}, ?)?(?:[1-9]\d{0,11}, ?){0,6}(?:[1-9]\d{0,11})?)\), \} *\n?"
)


def encode_array(array: np.ndarray) -> bytes:
    """.npy bytes (format 1.0, C order) of an array of numbers."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes) -> np.ndarray:
    """The array in .npy bytes, a read-only view of them. DataError where they are not a whole .npy of numbers."""
    if len(data) < 12 or not data.startswith(_MAGIC):
        raise DataError("not an .npy file")
    start = 10 + int.from_bytes(data[8:10], "little") if data[6] == 1 else 12 + int.from_bytes(data[8:12], "little")
    if start > _HEADER_LIMIT:
        raise DataError(f"an .npy file whose header claims {start} bytes")
    shape, dtype, fortran = _parse_header(bytes(data[:start]))
    if len(data) - start != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise DataError(f"an .npy file of shape {shape} and type {dtype} with {len(data) - start} bytes of numbers")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype, bool]:
    """(shape, dtype, Fortran order) of an .npy header, cached: the members of a folder share it."""
    match = _HEADER.fullmatch(header[10 if header[6] == 1 else 12 :])
    if match is None:
        raise DataError("an .npy file whose header cannot be read")
    try:
        dtype = np.dtype(match[1].decode())
    except (TypeError, ValueError, SyntaxError):
        raise DataError("an .npy file whose header cannot be read") from None
    if dtype.hasobject or dtype.kind not in "biufc" or dtype.itemsize == 0:
        raise DataError(f"an .npy file of type {dtype}: only numbers are read, never pickled objects")
    return tuple(int(length) for length in match[3].split(b",") if length.strip()), dtype, match[2] == b"True"
