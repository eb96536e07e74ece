"""Any images in one ``.npz`` file, never a pickle.

Members: ``x`` uint8 of shape (n, height, width) or (n, channels, height, width), ``y`` integers of shape (n,) from 0;
optionally ``x_test`` and ``y_test``, and ``classes``, the names as text.
"""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.datasets.parts import Dataset, Part, hold_out
from auditor.errors import MalformedError, MissingPartError

MAX_CHANNELS = 64


def load_npz(path: Path) -> Dataset:
    """Return the data set in a file; it is called by the file's name, without the folder.

    Raises:
        MissingPartError: there is no such file.
        MalformedError: it is something else, or a class has no images.
    """
    name = f"npz:{path.name}"
    if not path.is_file():
        raise MissingPartError(f"{name}: there is no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {member: archive[member] for member in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise MalformedError(f"{name}: not a readable npz file without pickles ({type(error).__name__})") from error
    unknown = set(arrays) - {"x", "y", "x_test", "y_test", "classes"}
    if unknown or not {"x", "y"} <= set(arrays) or ("x_test" in arrays) != ("y_test" in arrays):
        raise MalformedError(f"{name}: members x and y are needed; x_test with y_test, and classes, may be there")
    training = _part(arrays["x"], arrays["y"], what=f"{name}: x, y")
    test = _part(arrays["x_test"], arrays["y_test"], what=f"{name}: x_test, y_test") if "x_test" in arrays else None
    classes = _classes(arrays.get("classes"), training, what=name)
    if test is not None and (
        test.inputs.shape[1:] != training.inputs.shape[1:] or int(test.labels.max()) >= len(classes)
    ):
        raise MalformedError(f"{name}: the test images are of another shape or have other classes")
    return hold_out(name=name, classes=classes, training=training, test=test, purpose="npz")


def _part(images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], *, what: str) -> Part:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise MalformedError(
            f"{what}: images must be uint8 of shape (n, height, width) or (n, channels, height, width)"
        )
    inputs = np.asarray(images, dtype=np.uint8)
    inputs = inputs[:, None] if inputs.ndim == 3 else inputs
    if inputs.shape[1] > MAX_CHANNELS:
        raise MalformedError(f"{what}: {inputs.shape[1]} channels; the channels come before height and width")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or len(labels) != len(inputs):
        raise MalformedError(f"{what}: labels must be one integer per image")
    numbers = np.asarray(labels).astype(np.int64)
    if int(numbers.min()) < 0:
        raise MalformedError(f"{what}: labels count from 0")
    return Part(inputs=np.ascontiguousarray(inputs), labels=numbers)


def _classes(given: npt.NDArray[np.generic] | None, training: Part, *, what: str) -> tuple[str, ...]:
    n_classes = int(training.labels.max()) + 1
    if given is None:
        names = tuple(str(i) for i in range(n_classes))
    elif given.ndim == 1 and given.dtype.kind == "U":
        names = tuple(str(each) for each in given)
    else:
        raise MalformedError(f"{what}: classes must be a list of texts")
    if len(names) < max(2, n_classes) or len(set(names)) != len(names):
        raise MalformedError(f"{what}: at least two classes with different names, one for every label")
    return names
