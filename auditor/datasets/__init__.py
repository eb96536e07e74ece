"""Real data sets as uint8 images, split once and for all into owner's training data, carriers and test data.

The split is a function of the data set alone: every model of a study sees the same three parts, and the carriers,
which become sealed keys, shams and controls, are never trained on by anybody.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from auditor.datasets.cifar import cifar10, cifar100
from auditor.datasets.folder import load_folder
from auditor.datasets.idx import read_idx as read_idx
from auditor.datasets.idx import read_idx_pair as read_idx_pair
from auditor.datasets.npz import load_npz
from auditor.datasets.parts import Dataset as Dataset
from auditor.datasets.parts import Labels as Labels
from auditor.datasets.parts import Part as Part
from auditor.datasets.parts import hold_out as hold_out
from auditor.datasets.parts import split as split
from auditor.datasets.sources import DATA_VARIABLE as DATA_VARIABLE
from auditor.datasets.sources import folder_of
from auditor.datasets.svhn import load_svhn
from auditor.errors import DISTRIBUTION, MalformedError, MissingPartError, UsageError

NPZ_PREFIX = "npz:"
FOLDER_PREFIX = "folder:"


def names() -> tuple[str, ...]:
    """Return the names that :func:`load` knows."""
    return tuple(_LOADERS)


def load(name: str) -> Dataset:
    """Return a data set by name; ``npz:FILE`` is the one in that file, ``folder:PATH`` the images in that folder.

    Raises:
        UsageError: no data set of that name is known.
        MissingPartError: the files are not on this machine; the message says where to get them.
        MalformedError: the files are damaged.
    """
    if name.startswith(NPZ_PREFIX):
        return load_npz(Path(name.removeprefix(NPZ_PREFIX)))
    if name.startswith(FOLDER_PREFIX):
        return load_folder(name.removeprefix(FOLDER_PREFIX))
    if name not in _LOADERS:
        raise UsageError(f"unknown data set {name!r}; known: {', '.join(names())}, npz:FILE, folder:PATH")
    return _LOADERS[name]()


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
    folder = folder_of("fashion-mnist")
    original = read_idx_pair(folder, prefix="train", n_classes=10)
    test = read_idx_pair(folder, prefix="t10k", n_classes=10)
    if original.inputs.shape != (60_000, 1, 28, 28) or test.inputs.shape != (10_000, 1, 28, 28):
        raise MalformedError("fashion-mnist: expected 60000 training and 10000 test images of 28 x 28 pixels")
    train, carriers = split(original, sizes=(58_000, 2_000), purpose="fashion-mnist")
    return Dataset(name="fashion-mnist", classes=_FASHION_CLASSES, train=train, carriers=carriers, test=test)


def _mnist() -> Dataset:
    folder = folder_of("mnist")
    original = read_idx_pair(folder, prefix="train", n_classes=10)
    test = read_idx_pair(folder, prefix="t10k", n_classes=10)
    classes = tuple(str(i) for i in range(10))
    return hold_out(name="mnist", classes=classes, training=original, test=test, purpose="mnist")


_LOADERS: Mapping[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "mnist": _mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": load_svhn,
}
