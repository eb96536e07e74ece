"""The border to a suspect: adapters write ``_predict``, this base checks everything that comes back."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from auditor.canonical import JsonValue, canonical_bytes, decimal_string
from auditor.errors import Attempt as Attempt
from auditor.errors import SuspectAnswerError, SuspectError, SuspectLoadError, UsageError
from auditor.errors import Wire as Wire
from auditor.evidence.reading import Reading, read_answers
from auditor.records import Answer, Inputs, SuspectId

UNSENT = frozenset(
    {
        "connection refused",
        "no connection",
        "no TLS connection",
        "the host name is not known",
        "the proxy does not answer",
    }
)
"""What attempts are told as that cannot have reached the service, so that nothing was charged for them."""
MAX_LABEL = 1_000_000
MAX_SCORES = 100_000
MAX_MODEL_BYTES = 1 << 30
LOCAL_BATCH = 256

_Number = TypeVar("_Number", bound=np.generic)
Tensor = npt.NDArray[np.generic]
"""A batch as a model or service takes it."""


class Layout(StrEnum):
    """Order of the sides of one input."""

    CHANNELS_FIRST = "chw"
    CHANNELS_LAST = "hwc"
    FLAT = "flat"
    """One list of values, in the order channel, row, column."""


class ImageFormat(StrEnum):
    """How an image is encoded."""

    PNG = "png"
    """Without loss."""
    JPEG = "jpeg"
    """With loss: marks of a few grey levels may not survive it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How uint8 pixels become what the service takes."""

    layout: Layout = Layout.CHANNELS_FIRST
    divide: float = 1.0
    """Every value is divided by this; 1 leaves whole numbers."""
    mean: tuple[float, ...] = ()
    """Subtracted after the division, one per channel or one for all; empty subtracts nothing."""
    std: tuple[float, ...] = ()
    """Divided by after the subtraction, one per channel or one for all; empty divides by nothing."""
    image: ImageFormat = ImageFormat.PNG
    jpeg_quality: int = 95
    """1 to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """What one exchange with the suspect returned, before anything is believed."""

    answers: tuple[Answer, ...]
    body: bytes
    """The bytes as received; for local models a canonical rendering of the answers."""
    elapsed_ms: int
    server_date: str = ""
    """The Date header of the answer, or empty."""
    status: int = 200
    address: str = ""
    """Network address that answered, or empty."""
    certificate_sha256: str = ""
    """Digest of the TLS certificate that was shown, or empty."""
    headers: tuple[tuple[str, str], ...] = ()
    """Response headers by lower-case name without those that may carry secrets."""
    certificates: tuple[str, ...] = ()
    """Digests of every TLS certificate that was shown, the service's own first."""
    redirects: tuple[str, ...] = ()
    """Where the question was sent on to, in order."""

    @property
    def wire(self) -> Wire | None:
        """How the answer arrived; None for a suspect without a network."""
        shown = self.certificates or ((self.certificate_sha256,) if self.certificate_sha256 else ())
        if not (self.address or shown or self.redirects or self.headers):
            return None
        return Wire(address=self.address, certificates=shown, redirects=self.redirects, headers=self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A checked reply together with the failed attempts that preceded it."""

    reply: RawReply
    failed_attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the suspect says about itself."""

    suspect: SuspectId
    input_shape: tuple[int, int, int] | None = None
    """Expected (channels, height, width), or None when not declared."""
    n_labels: int | None = None
    """Declared number of labels, or None when not declared."""
    extra: Mapping[str, str] = field(default_factory=dict)


class Suspect(ABC):
    """A black-box classifier; callers use :meth:`describe` and :meth:`query`, adapters fill the abstract holes."""

    @abstractmethod
    def describe(self) -> Description:
        """Return what is under test.

        Raises:
            SuspectError: the suspect cannot be reached or loaded.
        """

    @abstractmethod
    def _predict(self, inputs: Inputs) -> Exchange:
        """Return one reply for the batch, or raise a :class:`SuspectError`."""

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Largest number of inputs per exchange."""

    def reading(self) -> Reading:
        """Return how the suspect's own labels are read, without any map.

        Raises:
            UsageError: this kind of suspect has no label space to map, or a profile maps it already.
        """
        raise UsageError("this suspect's labels cannot be calibrated")

    def read_with(self, reading: Reading) -> None:
        """Read all later answers so; raises as :meth:`reading` does."""
        raise UsageError("this suspect's labels cannot be calibrated")

    @property
    def concurrency(self) -> int:
        """Most exchanges at a time; from 2 on :meth:`query` is called from several threads."""
        return 1

    def query(self, inputs: Inputs) -> Exchange:
        """Ask the suspect about a batch and check the shape and range of every answer.

        Args:
            inputs: uint8, shape (n, channels, height, width), 1 ≤ n ≤ ``batch_size``.

        Raises:
            SuspectError: no reply, a refusal, or an unusable answer; never anything else. It names every attempt, and
                carries the body of an answer that was received.
        """
        if inputs.dtype != np.uint8 or inputs.ndim != 4 or not 1 <= len(inputs) <= self.batch_size:
            raise ValueError("inputs must be uint8 of shape (n, channels, height, width), n within the batch size")
        exchange: Exchange | None = None
        try:
            exchange = self._predict(inputs)
            check_answers(exchange.reply.answers, n_expected=len(inputs))
        except SuspectError as error:
            if exchange is not None:
                error.attempts, error.body = exchange.failed_attempts, exchange.reply.body
                error.wire = exchange.reply.wire
            raise
        except Exception as error:
            raise SuspectAnswerError(f"the suspect's answer cannot be used ({type(error).__name__})") from error
        return exchange

    def query_all(self, inputs: Inputs) -> tuple[Answer, ...]:
        """Return the answers to any number of inputs, asked batch by batch; raises as :meth:`query` does."""
        answers: list[Answer] = []
        for start in range(0, len(inputs), self.batch_size):
            batch = np.ascontiguousarray(inputs[start : start + self.batch_size])
            answers += self.query(batch).reply.answers
        return tuple(answers)

    def reserve(self, n_inputs: int) -> bool:
        """Set aside what asking so many inputs once may cost; False where the budget does not permit it."""
        return True

    def cancel(self) -> None:
        """End exchanges that are under way in other threads; nothing is asked after it."""

    def close(self) -> None:
        """Release connections and files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def may_be_charged(attempt: Attempt) -> bool:
    """Return whether a service may have answered an attempt whose answer never arrived, and charge for it."""
    return attempt.status is None and attempt.error not in UNSENT


def encode_tensor(inputs: Inputs, encoding: Encoding) -> Tensor:
    """Return the batch in the layout and scale the service takes: whole numbers unless something is divided.

    Raises:
        SuspectAnswerError: mean or standard deviation have neither one value nor one per channel.
    """
    channels = inputs.shape[1]
    values: Tensor = inputs
    if (encoding.divide, encoding.mean, encoding.std) != (1.0, (), ()):
        scaled = inputs.astype(np.float32) / np.float32(encoding.divide)
        for name, constants in (("mean", encoding.mean), ("std", encoding.std)):
            if constants and len(constants) not in (1, channels):
                raise SuspectAnswerError(
                    f"the profile's input.{name} has {len(constants)} values for {channels} channels"
                )
            column = np.array(constants or (0.0 if name == "mean" else 1.0,), dtype=np.float32).reshape(1, -1, 1, 1)
            scaled = scaled - column if name == "mean" else scaled / column
        values = scaled
    return arranged(values, encoding.layout)


def arranged(values: npt.NDArray[_Number], layout: Layout) -> npt.NDArray[_Number]:
    """Return a batch of shape (n, channels, height, width) with the sides of each input in another order."""
    match layout:
        case Layout.CHANNELS_LAST:
            return np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        case Layout.FLAT:
            return np.ascontiguousarray(values.reshape(len(values), -1))
    return np.ascontiguousarray(values)


class LocalSuspect(Suspect):
    """A model that runs on this machine; adapters write ``_outputs`` and ``describe``.

    Args:
        reading: maps the model's own labels to those of the task; None where they are the same.
        batch_size: most inputs per question.
    """

    def __init__(self, *, reading: Reading | None = None, batch_size: int = LOCAL_BATCH) -> None:
        self._reading = reading
        self._batch_size = batch_size
        self._profile = ("", "")
        self._mapped_by_profile = False

    def follows(self, profile: str, sha256: str) -> None:
        """Record the name and digest of the profile that the settings were taken from."""
        self._profile = (profile, sha256)
        self._mapped_by_profile = self._reading is not None and bool(self._reading.label_map)

    def reading(self) -> Reading:
        """Return how the model's own labels are read, without any map."""
        if self._mapped_by_profile:
            raise UsageError("the profile has a label map already; calibration starts from one without")
        return (
            Reading(answers="answers") if self._reading is None else replace(self._reading, label_map={}, n_classes=0)
        )

    def read_with(self, reading: Reading) -> None:
        """Read all later answers so."""
        self._reading = reading

    @property
    def batch_size(self) -> int:
        """Largest number of inputs per question."""
        return self._batch_size

    @abstractmethod
    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        """Return scores, shape (n, labels), or labels as whole numbers or names, shape (n,)."""

    def _suspect_id(self, *, name: str, sha256: str) -> SuspectId:
        return SuspectId(
            uri=name,
            kind="file",
            artefact_sha256=sha256,
            address="",
            declared_name="",
            profile=self._profile[0],
            profile_sha256=self._profile[1],
            reading="" if self._reading is None else self._reading.as_text(),
        )

    def _predict(self, inputs: Inputs) -> Exchange:
        started_s = time.monotonic()
        outputs = np.asarray(self._outputs(inputs))
        elapsed_ms = round((time.monotonic() - started_s) * 1000)
        if self._reading is not None:
            body = json.dumps({"answers": outputs.tolist()}, allow_nan=False).encode()
            return Exchange(reply=RawReply(answers=read_answers(body, self._reading), body=body, elapsed_ms=elapsed_ms))
        answers = _answers(outputs)
        return Exchange(reply=RawReply(answers=answers, body=_rendered(answers), elapsed_ms=elapsed_ms))


def read_model_file(path: Path) -> bytes:
    """Return the bytes of a model file, which its digest is taken of and which are then opened.

    Raises:
        SuspectLoadError: it cannot be read, is empty, or too large.
    """
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise SuspectLoadError(f"{path.name}: larger than {MAX_MODEL_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise SuspectLoadError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    if not data:
        raise SuspectLoadError(f"{path.name}: an empty file")
    return data


def _answers(outputs: npt.NDArray[np.generic]) -> tuple[Answer, ...]:
    if outputs.ndim == 1 and np.issubdtype(outputs.dtype, np.integer):
        return tuple(Answer(label=int(label)) for label in outputs)
    if outputs.ndim != 2 or outputs.shape[1] < 2 or not np.issubdtype(outputs.dtype, np.number):
        raise SuspectAnswerError("the model gives neither one whole number nor one score per label for each input")
    return tuple(Answer(label=int(np.argmax(row)), scores=tuple(float(score) for score in row)) for row in outputs)


def _rendered(answers: Sequence[Answer]) -> bytes:
    items: list[JsonValue] = [
        {"label": answer.label}
        if answer.scores is None
        else {"label": answer.label, "scores": [decimal_string(score) for score in answer.scores]}
        for answer in answers
    ]
    return canonical_bytes({"answers": items})


def check_answers(answers: Sequence[Answer], *, n_expected: int) -> None:
    """Refuse a wrong number of answers, labels out of range and scores that are not finite numbers."""
    if len(answers) != n_expected:
        raise SuspectAnswerError(f"the suspect gave {len(answers)} answers to {n_expected} questions")
    for answer in answers:
        if isinstance(answer.label, bool) or not isinstance(answer.label, int) or not 0 <= answer.label < MAX_LABEL:
            raise SuspectAnswerError("the suspect gave a label that is not an integer in the accepted range")
        if answer.top is not None:
            _check_top(answer.top)
        if answer.scores is None:
            continue
        if len(answer.scores) > MAX_SCORES or not all(map(math.isfinite, answer.scores)):
            raise SuspectAnswerError("the suspect gave scores that are not finite numbers")


def _check_top(top: Sequence[tuple[int, float]]) -> None:
    labels = [label for label, _ in top]
    in_range = all(type(label) is int and 0 <= label < MAX_LABEL for label in labels)
    if not in_range or len(set(labels)) != len(labels) or len(top) > MAX_SCORES:
        raise SuspectAnswerError("the suspect gave a list of the best labels without distinct labels in range")
    if not all(math.isfinite(score) for _, score in top):
        raise SuspectAnswerError("the suspect gave scores that are not finite numbers")
