"""Images in one folder per class: PNG or JPEG files, read through Pillow.

``folder:PATH`` is a folder of folders, one per class, named like it; or one with ``train`` and ``test`` (or ``val``)
that each hold such folders. ``folder:PATH?size=32`` or ``?size=HEIGHTxWIDTH`` cuts every image to those proportions
around its middle and scales it; ``?grey=yes`` or ``?grey=no`` makes all of them grey or coloured. Without ``size`` all
images must have one size; without ``grey`` they are grey where all of them are.

Without a split of its own the folder is split by the digests of its files: whoever has the same files gets the same
parts, whatever they are called, and copies of one file lie in the same part.
"""

import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.datasets.parts import CARRIER_SHARE, MAX_CARRIERS, Dataset, Part, require_every_class
from auditor.errors import DISTRIBUTION, MalformedError, MissingPartError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
MAX_SIDE = 1024
"""Of the images as they are used; the same as of a model's input."""
MAX_SOURCE_PIXELS = 1 << 26
"""Of an image as it is stored: more is taken for a bomb."""
MAX_FILE_BYTES = 1 << 26
MAX_TOTAL_BYTES = 1 << 33
"""Of all pixels together."""
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
           AttributeError, struct.error, zlib.error)  # fmt: skip
"""What Pillow's readers raise on damaged files, its own error among the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How the images of a folder are used."""

    size: tuple[int, int] | None = None
    """(height, width) in pixels; None keeps the size that all images have."""
    grey: bool | None = None
    """One channel instead of three; None decides by the images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    name: str
    """Without the folders above the data set."""
    label: int


def load_folder(given: str) -> Dataset:
    """Return the data set of ``PATH`` or ``PATH?option=value&…``; it is called by the folder's name and the options.

    Raises:
        UsageError: an option is unknown or out of range.
        MissingPartError: there is no such folder, or Pillow is absent.
        MalformedError: a file is broken or no image, sizes differ, or a class has no images.
    """
    place, _, written = given.partition("?")
    options = read_options(written)
    root = Path(place)
    name = f"folder:{root.name}" + (f"?{written}" if written else "")
    if not root.is_dir():
        raise MissingPartError(f"{name}: there is no such folder")
    inside = {path.name for path in _entries(root)}
    test_name = next((each for each in ("test", "val") if each in inside), None)
    own_split = "train" in inside and test_name is not None
    classes = _classes(root / "train" if own_split else root, what=name)
    files = _files(root / "train" if own_split else root, classes, what=name)
    tests = _files(root / test_name, classes, what=name) if own_split and test_name is not None else []
    shape = _shape([*files, *tests], options, what=name)
    training, digests = _read(files, shape)
    test = _read(tests, shape)[0] if own_split else None
    return _divided(name, classes, training, digests, test)


def read_options(written: str) -> ImageOptions:
    """Return the options after the question mark.

    Raises:
        UsageError: an option is unknown, written twice or out of range.
    """
    pairs = [each.partition("=") for each in written.split("&")] if written else []
    chosen = {key: value for key, _, value in pairs}
    if len(chosen) != len(pairs) or not set(chosen) <= {"size", "grey"}:
        raise UsageError("an image folder takes the options size and grey, each once: folder:PATH?size=32&grey=yes")
    size, grey = None, None
    if "size" in chosen:
        sides = chosen["size"].split("x")
        if len(sides) > 2 or not all(
            side.isascii() and side.isdecimal() and 1 <= int(side) <= MAX_SIDE for side in sides
        ):
            raise UsageError(f"size is one side or HEIGHTxWIDTH in pixels, each in [1, {MAX_SIDE}]")
        size = (int(sides[0]), int(sides[-1]))
    if "grey" in chosen:
        if chosen["grey"] not in ("yes", "no"):
            raise UsageError("grey is yes or no")
        grey = chosen["grey"] == "yes"
    return ImageOptions(size=size, grey=grey)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise MalformedError(f"{folder.name}: cannot be read ({type(error).__name__})") from error


def _classes(folder: Path, *, what: str) -> tuple[str, ...]:
    entries = _entries(folder)
    for path in entries:
        if not path.is_dir():
            raise MalformedError(f"{what}: {path.name} lies beside the class folders; images belong inside of one")
    if len(entries) < 2:
        raise MalformedError(f"{what}: at least two folders are needed, one per class")
    return tuple(path.name for path in entries)


def _files(folder: Path, classes: tuple[str, ...], *, what: str) -> list[_File]:
    unknown = {path.name for path in _entries(folder)} - set(classes)
    if unknown:
        raise MalformedError(f"{what}: {folder.name} holds {sorted(unknown)[0]!r}, which is no class of the others")
    found = []
    for label, name in enumerate(classes):
        paths = _entries(folder / name) if (folder / name).is_dir() else []
        for path in paths:
            if not path.is_file() or path.suffix.lower() not in SUFFIXES:
                raise MalformedError(f"{what}: {name}/{path.name} is not a PNG or JPEG file")
        found += [_File(path=path, name=f"{name}/{path.name}", label=label) for path in paths]
        if not paths:
            raise MalformedError(f"{what}: class {name!r} has no images in {folder.name}")
    return found


def _shape(files: list[_File], options: ImageOptions, *, what: str) -> tuple[int, int, int]:
    """Return the shape of every image as it is used, from the heads of the files alone."""
    heads = [_head(file) for file in files]
    grey = options.grey if options.grey is not None else all(mode in GREY_MODES for _, mode in heads)
    sizes = sorted({size for size, _ in heads})
    if options.size is None and len(sizes) > 1:
        raise MalformedError(f"{what}: the images have {len(sizes)} different sizes; scale them with ?size=32")
    width, height = sizes[0]
    height, width = options.size or (height, width)
    if max(height, width) > MAX_SIDE:
        raise MalformedError(f"{what}: images of {height} x {width} pixels; scale them with ?size=, up to {MAX_SIDE}")
    channels = 1 if grey else 3
    if len(files) * channels * height * width > MAX_TOTAL_BYTES:
        raise MalformedError(f"{what}: {len(files)} images of this size do not fit; take a smaller ?size=")
    return channels, height, width


def _head(file: _File) -> tuple[tuple[int, int], str]:
    with _opened(file, _bytes(file)) as image:
        return image.size, image.mode


def _bytes(file: _File) -> bytes:
    try:
        if file.path.stat().st_size > MAX_FILE_BYTES:
            raise MalformedError(f"{file.name}: larger than {MAX_FILE_BYTES} bytes")
        return file.path.read_bytes()
    except OSError as error:
        raise MalformedError(f"{file.name}: cannot be read ({type(error).__name__})") from error


def _opened(file: _File, data: bytes) -> "Image":
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPartError(f"image folders need Pillow: pip install '{DISTRIBUTION}[images]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (*_BROKEN, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MalformedError(f"{file.name}: not a readable PNG or JPEG image ({type(error).__name__})") from error
    if image.width * image.height > MAX_SOURCE_PIXELS:
        raise MalformedError(f"{file.name}: {image.width} x {image.height} pixels are too many")
    if image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise MalformedError(f"{file.name}: pixels of mode {image.mode}; images must have 8 bits a channel")
    return image


def _read(files: list[_File], shape: tuple[int, int, int]) -> tuple[Part, list[bytes]]:
    """Return the images in the order of the files, and the digests of the files."""
    inputs = np.zeros((len(files), *shape), dtype=np.uint8)
    digests = []
    for row, file in enumerate(files):
        data = _bytes(file)
        digests.append(hashlib.sha256(data).digest())
        inputs[row] = _pixels(file, data, shape)
    return Part(inputs=inputs, labels=np.array([file.label for file in files], dtype=np.int64)), digests


def _pixels(file: _File, data: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with _opened(file, data) as image, warnings.catch_warnings():
            # Pillow warns of oddities, such as transparency in a palette, that change no pixel here.
            warnings.simplefilter("ignore")
            plain = image.convert("L" if channels == 1 else "RGB")
    except _BROKEN as error:
        raise MalformedError(f"{file.name}: a broken image ({type(error).__name__})") from error
    if plain.size != (width, height):
        plain = ImageOps.fit(plain, (width, height), method=Image.Resampling.BILINEAR)
    array = np.asarray(plain, dtype=np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _divided(name: str, classes: tuple[str, ...], training: Part, digests: list[bytes], test: Part | None) -> Dataset:
    """Return the three parts: the files in the order of their digests, cut where no two copies are parted."""
    order = sorted(range(len(digests)), key=lambda row: (digests[row], training.labels[row]))
    ends = [0]
    for wanted in (min(MAX_CARRIERS, len(order) // CARRIER_SHARE), len(order) // CARRIER_SHARE if test is None else 0):
        end = ends[-1] + wanted
        while 0 < end < len(order) and wanted and digests[order[end]] == digests[order[end - 1]]:
            end += 1
        ends.append(end)
    if ends[1] < 1:
        raise MalformedError(f"{name}: too few images to hold any out")
    rows = np.array(order, dtype=np.intp)
    train = training.take(rows[ends[2] :])
    require_every_class(train, classes, name=name)
    return Dataset(
        name=name,
        classes=classes,
        train=train,
        carriers=training.take(rows[: ends[1]]),
        test=training.take(rows[ends[1] : ends[2]]) if test is None else test,
    )
