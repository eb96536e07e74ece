"""Real data sets as uint8 images, split once and for all into owner's training data, carriers and test data.

The split is a function of the data set alone: every model of a study sees the same three parts, and the carriers,
which become sealed keys, shams and controls, are never trained on by anybody.
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.draws import DrawStream
from auditor.errors import DISTRIBUTION, MalformedError, MissingPartError, UsageError
from auditor.records import Inputs, InputSpec

Labels = npt.NDArray[np.int64]
"""Labels from 0, shape (n,)."""

DATA_VARIABLE = "AUDITOR_DATA"
"""Environment variable naming the folder that holds one folder per data set."""

_SPLIT_SEED = b"auditor/1 data set split, fixed!"
_IDX_UBYTE = 0x08
_MAX_IDX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Images with their labels."""

    inputs: Inputs
    """uint8, shape (n, channels, height, width)."""
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.intp]) -> "Part":
        """Return the chosen rows, in that order."""
        return Part(inputs=self.inputs[rows], labels=self.labels[rows])

    def halves(self) -> tuple["Part", "Part"]:
        """Return the even rows and the odd rows."""
        return self.take(np.arange(0, len(self), 2)), self.take(np.arange(1, len(self), 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One classification task in three disjoint parts."""

    name: str
    classes: tuple[str, ...]
    train: Part
    """What the owner trains on."""
    carriers: Part
    """Held out from all training; sealed keys, shams and controls are made of these."""
    test: Part
    """For accuracies and for hit rates on fresh images."""

    @property
    def spec(self) -> InputSpec:
        """What a suspect of this task must accept."""
        _, channels, height, width = self.train.inputs.shape
        return InputSpec(shape=(channels, height, width), classes=self.classes)


def names() -> tuple[str, ...]:
    """Return the names that :func:`load` knows."""
    return tuple(_LOADERS)


def load(name: str) -> Dataset:
    """Return a data set by name.

    Raises:
        UsageError: no data set of that name is known.
        MissingPartError: the files are not on this machine; the message says where to get them.
        MalformedError: the files are damaged.
    """
    if name not in _LOADERS:
        raise UsageError(f"unknown data set {name!r}; known: {', '.join(names())}")
    return _LOADERS[name]()


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


def split(part: Part, *, sizes: tuple[int, ...], purpose: str) -> tuple[Part, ...]:
    """Return disjoint parts of the given sizes in an order that depends on ``purpose`` only."""
    if sum(sizes) > len(part):
        raise ValueError(f"cannot take {sum(sizes)} of {len(part)} images")
    order = np.array(DrawStream(_SPLIT_SEED + purpose.encode()).permutation(len(part)), dtype=np.intp)
    ends = np.cumsum(sizes)
    return tuple(part.take(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPartError(f"data set 'digits' needs scikit-learn: pip install '{DISTRIBUTION}[train]'") from error
    bunch = load_digits()
    pixels = np.rint(255.0 * bunch.images / 16.0).astype(np.uint8)[:, None]
    part = Part(inputs=pixels, labels=np.asarray(bunch.target, dtype=np.int64))
    train, carriers, test = split(part, sizes=(1000, 250, 547), purpose="digits")
    classes = tuple(str(i) for i in range(10))
    return Dataset(name="digits", classes=classes, train=train, carriers=carriers, test=test)


_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _fashion_mnist() -> Dataset:
    folder = _folder("fashion-mnist")
    original = read_idx_pair(folder, prefix="train", n_classes=10)
    test = read_idx_pair(folder, prefix="t10k", n_classes=10)
    if original.inputs.shape != (60_000, 1, 28, 28) or test.inputs.shape != (10_000, 1, 28, 28):
        raise MalformedError("fashion-mnist: expected 60000 training and 10000 test images of 28 x 28 pixels")
    train, carriers = split(original, sizes=(58_000, 2_000), purpose="fashion-mnist")
    return Dataset(name="fashion-mnist", classes=_FASHION_CLASSES, train=train, carriers=carriers, test=test)


_LOADERS = {"digits": _digits, "fashion-mnist": _fashion_mnist}

_SYSTEM_FOLDERS: Mapping[str, tuple[str, ...]] = {"fashion-mnist": ("usr", "share", "datasets", "fashion-mnist")}
_WHERE_TO_GET: Mapping[str, str] = {"fashion-mnist": "install Debian's package dataset-fashion-mnist"}


def _folder(name: str) -> Path:
    chosen = os.environ.get(DATA_VARIABLE, "")
    candidates = [Path(chosen) / name] if chosen else [Path("/").joinpath(*_SYSTEM_FOLDERS[name])]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise MissingPartError(
        f"data set {name!r} is not here: {_WHERE_TO_GET[name]}, or put its IDX files into "
        f"{chosen or '$' + DATA_VARIABLE}/{name} (environment variable {DATA_VARIABLE})"
    )


def _read_either(folder: Path, stem: str) -> bytes:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            if path.stat().st_size > _MAX_IDX_BYTES:
                raise MalformedError(f"{path.name}: larger than {_MAX_IDX_BYTES} bytes")
            return path.read_bytes()
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
