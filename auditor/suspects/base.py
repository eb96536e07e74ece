"""The border to a suspect: adapters write ``_predict``, this base checks everything that comes back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from auditor.errors import SuspectAnswerError, SuspectError
from auditor.records import Answer, Inputs, SuspectId

MAX_LABEL = 1_000_000
MAX_SCORES = 100_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One failed attempt that was followed by another."""

    error: str
    """A short description without credentials or request content."""
    waited_ms: int


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

    def query(self, inputs: Inputs) -> Exchange:
        """Ask the suspect about a batch and check the shape and range of every answer.

        Args:
            inputs: uint8, shape (n, channels, height, width), 1 ≤ n ≤ ``batch_size``.

        Raises:
            SuspectError: no reply, a refusal, or an unusable answer; never anything else.
        """
        if inputs.dtype != np.uint8 or inputs.ndim != 4 or not 1 <= len(inputs) <= self.batch_size:
            raise ValueError("inputs must be uint8 of shape (n, channels, height, width), n within the batch size")
        try:
            exchange = self._predict(inputs)
            check_answers(exchange.reply.answers, n_expected=len(inputs))
        except (SuspectError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise SuspectAnswerError(f"the suspect's answer cannot be used ({type(error).__name__})") from error
        return exchange

    def close(self) -> None:
        """Release connections and files."""

    def __enter__(self) -> "Suspect":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_answers(answers: Sequence[Answer], *, n_expected: int) -> None:
    """Refuse a wrong number of answers, labels out of range and scores that are not finite numbers."""
    if len(answers) != n_expected:
        raise SuspectAnswerError(f"the suspect gave {len(answers)} answers to {n_expected} questions")
    for answer in answers:
        if isinstance(answer.label, bool) or not isinstance(answer.label, int) or not 0 <= answer.label < MAX_LABEL:
            raise SuspectAnswerError("the suspect gave a label that is not an integer in the accepted range")
        if answer.scores is None:
            continue
        if len(answer.scores) > MAX_SCORES or not all(math.isfinite(s) for s in answer.scores):
            raise SuspectAnswerError("the suspect gave scores that are not finite numbers")
