"""SVHN, cropped digits, from its two MATLAB files.

``train_32x32.mat`` and ``test_32x32.mat`` hold ``X``, uint8 of shape (32, 32, 3, n), and ``y``, the digits from 1 to
10, where 10 stands for the digit 0. The third file of the data set, ``extra_32x32.mat``, is not used.
"""

import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.datasets import mat_worker
from auditor.datasets.parts import Dataset, Part, hold_out
from auditor.datasets.sources import MAX_FILE_BYTES, folder_of
from auditor.errors import DISTRIBUTION, MalformedError, MissingPartError

logger = logging.getLogger(__name__)

N_CLASSES = 10
TIME_LIMIT_S = 300.0


def load_svhn() -> Dataset:
    """Return SVHN from ``train_32x32.mat`` and ``test_32x32.mat``.

    Raises:
        MissingPartError: a file or scipy is absent.
        MalformedError: a file is damaged.
    """
    folder = folder_of("svhn")
    training, test = (read_digits(folder / f"{part}_32x32.mat") for part in ("train", "test"))
    classes = tuple(str(i) for i in range(N_CLASSES))
    return hold_out(name="svhn", classes=classes, training=training, test=test, purpose="svhn")


def read_digits(path: Path) -> Part:
    """Return the images of one file under their digits.

    Raises:
        MissingPartError: the file or scipy is absent.
        MalformedError: it is not such a file, or a label is out of range.
    """
    if not path.is_file():
        raise MissingPartError(f"{path.name} is not in {path.parent}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise MalformedError(f"{path.name}: larger than {MAX_FILE_BYTES} bytes")
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "arrays.npz"
        command = [sys.executable, "-P", mat_worker.__file__, str(path.resolve()), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT_S, check=False, cwd=name)
        except subprocess.TimeoutExpired as error:
            raise MalformedError(f"{path.name}: was not read within {TIME_LIMIT_S:g} s") from error
        told = done.stderr.decode("utf-8", "replace")
        logger.debug("the reader of %s ended with %d: %s", path.name, done.returncode, told[-2000:])
        if done.returncode == mat_worker.EXIT_MISSING:
            raise MissingPartError(f"data set 'svhn' needs scipy: pip install '{DISTRIBUTION}[statistics]'")
        if done.returncode != mat_worker.EXIT_READ:
            raise MalformedError(
                f"{path.name}: not a readable MATLAB 5 file of X, uint8 of shape (32, 32, 3, n), and y, one label each"
            )
        try:
            with np.load(target, allow_pickle=False) as arrays:
                images, digits = arrays["X"], arrays["y"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise MalformedError(f"{path.name}: X or y are no plain arrays") from error
    return _part(images, digits, what=path.name)


def _part(images: npt.NDArray[np.uint8], digits: npt.NDArray[np.generic], *, what: str) -> Part:
    if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or digits.dtype.kind not in "uif":
        raise MalformedError(f"{what}: X must be uint8 of shape (32, 32, 3, n), and y numbers")
    numbers = digits.reshape(-1).astype(np.float64)
    whole = len(numbers) == images.shape[3] and bool(np.isfinite(numbers).all())
    if not whole or not np.isin(numbers, np.arange(1, N_CLASSES + 1)).all():
        raise MalformedError(f"{what}: labels are whole numbers from 1 to {N_CLASSES}, 10 for the digit 0")
    labels = numbers.astype(np.int64) % N_CLASSES
    return Part(inputs=np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels=labels)
