"""Arrays as .npy bytes: written once into feature shards, read straight from the buffer; pickles are refused."""

from __future__ import annotations

import ast
import io
from functools import lru_cache

import numpy as np

from shards.errors import DataError

_MAGIC = b"\x93NUMPY"


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
    shape, dtype, fortran = _parse_header(bytes(data[:start]))
    if len(data) - start != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise DataError(f"an .npy file of shape {shape} and type {dtype} with {len(data) - start} bytes of numbers")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype, bool]:
    """(shape, dtype, Fortran order) of an .npy header, cached: the members of a folder share it."""
    try:
        fields = ast.literal_eval(
            header[10 if header[6] == 1 else 12 :].decode("utf-8" if header[6] == 3 else "latin1")
        )
        shape, dtype, fortran = fields["shape"], np.dtype(fields["descr"]), fields["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise DataError("an .npy file whose header cannot be read") from None
    if dtype.hasobject or dtype.kind not in "biufc" or dtype.itemsize == 0:
        raise DataError(f"an .npy file of type {dtype}: only numbers are read, never pickled objects")
    if not isinstance(shape, tuple) or not all(isinstance(length, int) and length >= 0 for length in shape):
        raise DataError("an .npy file whose header has no shape")
    return shape, dtype, bool(fortran)
