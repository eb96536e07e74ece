"""What can be done to images on their way into a classifier and to probabilities on their way out, without training.

Everything is a deterministic function of its input: the same image gets the same answer each time it is asked.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from auditor.canonical import Fields, JsonValue, decimal_string
from auditor.errors import UsageError

Images = npt.NDArray[np.float32]
"""Float images in [0, 1], shape (n, channels, height, width)."""

Probabilities = npt.NDArray[np.float64]
"""Shape (n, classes); every row sums to one."""

K = TypeVar("K", "InputKind", "AnswerKind")

MAX_SEED = 2**53 - 1
TIE_LEAD = 1e-6
"""What the largest probability keeps above the others when a change makes it equal to them."""


class InputKind(StrEnum):
    """How images are changed."""

    NOISE = "noise"
    """Gaussian noise; ``strength`` is its standard deviation for pixels in [0, 1]."""
    BLUR = "blur"
    """Gaussian blur; ``strength`` is its standard deviation in pixels."""
    MEDIAN = "median"
    """Median filter; ``strength`` is the side of its square window in pixels."""
    JPEG = "jpeg"
    """Compression; ``strength`` is the JPEG quality."""
    BITS = "bits"
    """Fewer grey levels; ``strength`` is the number of bits per channel."""


class AnswerKind(StrEnum):
    """How probabilities are changed."""

    TEMPERATURE = "temperature"
    """p^(1/value), normalised: below 1 sharpens, above 1 flattens."""
    SMOOTH = "smooth"
    """(1 − value)·p + value/classes."""
    ROUND = "round"
    """Rounded to ``value`` decimals, normalised; the largest stays the largest."""
    TOP_K = "top-k"
    """The ``value`` largest, normalised; the others are zero."""
    LABEL = "label"
    """The largest becomes one; ``value`` is not used and 0."""


_INPUT_LIMITS: Mapping[InputKind, tuple[float, float]] = {
    InputKind.NOISE: (0.0, 10.0),
    InputKind.BLUR: (0.0, 64.0),
    InputKind.MEDIAN: (1, 63),
    InputKind.JPEG: (1, 100),
    InputKind.BITS: (1, 8),
}
_ANSWER_LIMITS: Mapping[AnswerKind, tuple[float, float]] = {
    AnswerKind.TEMPERATURE: (0.01, 1000.0),
    AnswerKind.SMOOTH: (0.0, 1.0),
    AnswerKind.ROUND: (0, 9),
    AnswerKind.TOP_K: (1, 100_000),
    AnswerKind.LABEL: (0, 0),
}
_WHOLE = frozenset({InputKind.MEDIAN, InputKind.JPEG, InputKind.BITS, AnswerKind.ROUND, AnswerKind.TOP_K})


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChange:
    """One change of the images."""

    kind: InputKind
    strength: float
    seed: int = 0
    """Where noise comes from; together with the image it fixes the noise."""

    def __post_init__(self) -> None:
        _check(self.kind, self.strength, _INPUT_LIMITS[self.kind])
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"a seed lies in [0, {MAX_SEED}]")

    def apply(self, images: Images) -> Images:
        """Return the changed images, float32 in [0, 1]."""
        match self.kind:
            case InputKind.NOISE:
                changed = _with_noise(images, std=self.strength, seed=self.seed)
            case InputKind.BLUR:
                from scipy.ndimage import gaussian_filter

                changed = gaussian_filter(images, sigma=(0, 0, self.strength, self.strength))
            case InputKind.MEDIAN:
                from scipy.ndimage import median_filter

                changed = median_filter(images, size=(1, 1, int(self.strength), int(self.strength)))
            case InputKind.JPEG:
                changed = through_jpeg(to_bytes(images), quality=int(self.strength)) / np.float32(255.0)
            case InputKind.BITS:
                steps = 2 ** int(self.strength) - 1
                changed = np.rint(images * steps) / steps
            case _:
                assert_never(self.kind)
        return np.asarray(np.clip(changed, 0.0, 1.0), dtype=np.float32)

    def as_json(self) -> dict[str, JsonValue]:
        """Return the change for a description."""
        return {"kind": self.kind.value, "strength": decimal_string(self.strength), "seed": self.seed}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerChange:
    """One change of the answers."""

    kind: AnswerKind
    value: float = 0.0

    def __post_init__(self) -> None:
        _check(self.kind, self.value, _ANSWER_LIMITS[self.kind])

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """Return the changed probabilities; the label with the largest one stays the same."""
        match self.kind:
            case AnswerKind.TEMPERATURE:
                return at_temperature(probabilities, temperature=self.value)
            case AnswerKind.SMOOTH:
                return np.asarray((1.0 - self.value) * probabilities + self.value / probabilities.shape[1])
            case AnswerKind.ROUND:
                return rounded(probabilities, decimals=int(self.value))
            case AnswerKind.TOP_K:
                return largest(probabilities, k=int(self.value))
            case AnswerKind.LABEL:
                return np.asarray(np.eye(probabilities.shape[1])[np.argmax(probabilities, axis=1)])
        assert_never(self.kind)

    def as_json(self) -> dict[str, JsonValue]:
        """Return the change for a description."""
        return {"kind": self.kind.value, "value": decimal_string(self.value)}


def read_input_change(fields: Fields) -> InputChange:
    """Return the change that :meth:`InputChange.as_json` wrote.

    Raises:
        MalformedError: a field is missing, unknown or of a wrong type.
        UsageError: an unknown kind, or a strength outside its range.
    """
    kind = _kind(InputKind, fields.text("kind", max_length=32))
    change = InputChange(kind=kind, strength=fields.decimal("strength"), seed=fields.integer("seed"))
    fields.finish()
    return change


def read_answer_change(fields: Fields) -> AnswerChange:
    """Return the change that :meth:`AnswerChange.as_json` wrote.

    Raises:
        MalformedError: a field is missing, unknown or of a wrong type.
        UsageError: an unknown kind, or a value outside its range.
    """
    change = AnswerChange(kind=_kind(AnswerKind, fields.text("kind", max_length=32)), value=fields.decimal("value"))
    fields.finish()
    return change


def change_inputs(images: Images, changes: Sequence[InputChange]) -> Images:
    """Return the images after all changes, in order."""
    for change in changes:
        images = change.apply(images)
    return images


def change_answers(probabilities: Probabilities, changes: Sequence[AnswerChange]) -> Probabilities:
    """Return the probabilities after all changes, in order."""
    for change in changes:
        probabilities = change.apply(probabilities)
    return probabilities


def at_temperature(probabilities: Probabilities, *, temperature: float) -> Probabilities:
    """Return softmax(log p / temperature)."""
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def largest(probabilities: Probabilities, *, k: int) -> Probabilities:
    """Return the k largest of each row, normalised; among equals the lower label is kept."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    kept = np.zeros_like(probabilities)
    np.put_along_axis(kept, order, np.take_along_axis(probabilities, order, axis=1), axis=1)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def rounded(probabilities: Probabilities, *, decimals: int) -> Probabilities:
    """Return the rows rounded and normalised; where another entry ties with the largest, that one keeps a lead."""
    top = np.argmax(probabilities, axis=1)[:, None]
    coarse = np.round(probabilities, decimals)
    # A row of many small entries can round to nothing; its label is still what the service answers.
    lead = np.take_along_axis(coarse, top, axis=1) + TIE_LEAD
    rivals = coarse.copy()
    np.put_along_axis(rivals, top, 0.0, axis=1)
    tied = rivals.max(axis=1, keepdims=True) >= lead - TIE_LEAD
    np.put_along_axis(coarse, top, np.where(tied, lead, lead - TIE_LEAD), axis=1)
    return np.asarray(coarse / coarse.sum(axis=1, keepdims=True))


def to_bytes(images: Images) -> npt.NDArray[np.uint8]:
    """Return float images on the deployment grid, uint8 in 0-255."""
    return np.asarray(np.rint(255.0 * np.clip(images, 0.0, 1.0)), dtype=np.uint8)


def through_jpeg(images: npt.NDArray[np.uint8], *, quality: int) -> npt.NDArray[np.uint8]:
    """Return the images after JPEG compression: three channels as one colour image, others channel by channel."""
    from PIL import Image

    out = np.empty_like(images)
    for index, image in enumerate(images):
        planes = [image.transpose(1, 2, 0)] if image.shape[0] == 3 else list(image)
        decoded = []
        for plane in planes:
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(plane)).save(file, format="JPEG", quality=quality)
            decoded.append(np.asarray(Image.open(file)))
        out[index] = decoded[0].transpose(2, 0, 1) if image.shape[0] == 3 else np.stack(decoded)
    return out


def _with_noise(images: Images, *, std: float, seed: int) -> npt.NDArray[np.float64]:
    noisy = np.empty(images.shape)
    for index, image in enumerate(images):
        # From the image itself, so that asking twice gives one answer and the batch does not matter.
        digest = hashlib.sha256(seed.to_bytes(8, "big") + to_bytes(image[None]).tobytes()).digest()
        generator = np.random.default_rng(int.from_bytes(digest, "big"))
        noisy[index] = image + std * generator.standard_normal(image.shape)
    return noisy


def _check(kind: InputKind | AnswerKind, value: float, limits: tuple[float, float]) -> None:
    low, high = limits
    if not low <= value <= high or (kind in _WHOLE and value != int(value)):
        what = "a whole number" if kind in _WHOLE else "a number"
        raise UsageError(f"{kind.value} takes {what} in [{low:g}, {high:g}], not {value:g}")


def _kind(kinds: type[K], name: str) -> K:
    try:
        return kinds(name)
    except ValueError as error:
        raise UsageError(f"unknown change {name!r}; known: {', '.join(kinds)}") from error
