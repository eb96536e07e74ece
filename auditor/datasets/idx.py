"""IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.datasets.parts import Part
from auditor.datasets.sources import read_file
from auditor.errors import MalformedError, MissingPartError

_IDX_UBYTE = 0x08
_MAX_IDX_BYTES = 1 << 30


def read_idx(data: bytes, *, what: str) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes, gzipped or not.

    Args:
        data: the file's bytes.
        what: a name for error messages.

    Raises:
        MalformedError: bad compression, magic, type, dimensions, or a length that differs from the header's.
    """
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, what=what)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UBYTE or not 1 <= data[3] <= 4:
        raise MalformedError(f"{what}: not an IDX file of unsigned bytes")
    n_dimensions = data[3]
    start = 4 + 4 * n_dimensions
    if len(data) < start:
        raise MalformedError(f"{what}: header is cut short")
    shape = struct.unpack(f">{n_dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise MalformedError(f"{what}: {len(data) - start} bytes of data, the header announces {math.prod(shape)}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def read_idx_pair(folder: Path, *, prefix: str, n_classes: int) -> Part:
    """Return the images and labels of one pair of IDX files, gzipped or not.

    The files are ``<prefix>-images-idx3-ubyte`` and ``<prefix>-labels-idx1-ubyte``, with ``.gz`` or without.

    Raises:
        MissingPartError: a file is absent.
        MalformedError: a file is damaged, or images and labels do not fit together.
    """
    images = read_idx(_read_either(folder, f"{prefix}-images-idx3-ubyte"), what=f"{prefix} images")
    labels = read_idx(_read_either(folder, f"{prefix}-labels-idx1-ubyte"), what=f"{prefix} labels")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or images.size == 0:
        raise MalformedError(f"{prefix}: images {images.shape} and labels {labels.shape} do not fit together")
    if int(labels.max()) >= n_classes:
        raise MalformedError(f"{prefix}: label {int(labels.max())} in a task of {n_classes} classes")
    return Part(inputs=images[:, None], labels=labels.astype(np.int64))


def _read_either(folder: Path, stem: str) -> bytes:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return read_file(path)
    raise MissingPartError(f"{stem}.gz is not in {folder}")


def _gunzip(data: bytes, *, what: str) -> bytes:
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = decompressor.decompress(data, _MAX_IDX_BYTES)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise MalformedError(f"{what}: damaged gzip file") from error
    if not decompressor.eof or decompressor.unused_data:
        raise MalformedError(f"{what}: gzip file is cut short, too large or followed by other bytes")
    return plain
