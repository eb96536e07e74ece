"""Parts of a data set, and how one is cut into them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.draws import DrawStream
from auditor.errors import MalformedError
from auditor.records import Inputs, InputSpec

Labels = npt.NDArray[np.int64]
"""Labels from 0, shape (n,)."""

_SPLIT_SEED = b"auditor/1 data set split, fixed!"
MAX_CARRIERS = 2_000
CARRIER_SHARE = 10
"""A data set without a split of its own gives one image in this many to the carriers, up to the maximum."""


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


def split(part: Part, *, sizes: tuple[int, ...], purpose: str) -> tuple[Part, ...]:
    """Return disjoint parts of the given sizes in an order that depends on ``purpose`` only."""
    if sum(sizes) > len(part):
        raise ValueError(f"cannot take {sum(sizes)} of {len(part)} images")
    order = np.array(DrawStream(_SPLIT_SEED + purpose.encode()).permutation(len(part)), dtype=np.intp)
    ends = np.cumsum(sizes)
    return tuple(part.take(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))


def hold_out(*, name: str, classes: tuple[str, ...], training: Part, test: Part | None, purpose: str) -> Dataset:
    """Return a data set whose carriers are cut from its training images, and the test images too if it has none.

    Raises:
        MalformedError: a class has no training image, or there are too few images.
    """
    n_carriers = min(MAX_CARRIERS, len(training) // CARRIER_SHARE)
    n_test = 0 if test is not None else len(training) // CARRIER_SHARE
    if n_carriers < 1 or (test is not None and len(test) == 0):
        raise MalformedError(f"{name}: too few images to hold any out")
    sizes = (len(training) - n_carriers - n_test, n_carriers, n_test)
    train, carriers, cut = split(training, sizes=sizes, purpose=purpose)
    require_every_class(train, classes, name=name)
    return Dataset(name=name, classes=classes, train=train, carriers=carriers, test=cut if test is None else test)


def require_every_class(train: Part, classes: tuple[str, ...], *, name: str) -> None:
    """Refuse training images that leave a class out.

    Raises:
        MalformedError: a class has no training image.
    """
    missing = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if missing:
        raise MalformedError(f"{name}: class {classes[missing[0]]!r} has no training images")
