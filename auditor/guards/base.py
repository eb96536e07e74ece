"""The border of a guard: checks what comes in and what goes out; variants write ``_answer`` on numpy arrays."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.errors import UsageError
from auditor.evidence.encryption import Unlocks
from auditor.guard_keys import MIN_CLASSES
from auditor.records import Inputs

Floats = npt.NDArray[np.float64]
SUM_TOLERANCE = 1e-3
"""Largest departure of a row's sum from one; float16 and wider stay below it, bfloat16 with many classes does not."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guarded:
    """What a guard answers to a batch."""

    probabilities: Floats
    """Shape (n, classes); rows sum to one."""
    relabelled: npt.NDArray[np.bool_]
    """Queries whose first class was deliberately changed; shape (n,)."""


class Guard(ABC):
    """Maps a model's clean probabilities to the answers one client gets."""

    name: ClassVar[str]

    @staticmethod
    def open(
        path: str | Path,
        *,
        client_id: str,
        model_sha256: str | None = None,
        classes: tuple[str, ...] | None = None,
        unlocks: Unlocks | None = None,
    ) -> "Guard":
        """Return the guard of one client from a sealed ``k.npz``.

        Args:
            path: the sealed key set.
            client_id: whose queries it will answer.
            model_sha256: digest of the served model's weights; None leaves unchecked that it is the sealed one.
            classes: the served model's output names in order; None leaves them unchecked.
            unlocks: age identities or a passphrase, for an encrypted key set.

        Raises:
            UsageError: no such client, or the guard belongs to another model or order of labels.
            EvidenceError: the file is not a sealed key set.
        """
        from auditor.guards.sealed import open_guard

        return open_guard(Path(path), client_id=client_id, model_sha256=model_sha256, classes=classes, unlocks=unlocks)

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """Number of classes that every answer must have."""

    @abstractmethod
    def _answer(self, probabilities: Floats, inputs: Inputs) -> Guarded:
        """Return the answers; may change the first class only where it says so."""

    def __call__(self, probabilities: Any, inputs: Any) -> Any:
        """Return the probabilities to send, of the same type, precision and device; whole numbers become floats.

        Args:
            probabilities: shape (n, classes), numpy array or torch tensor; rows are distributions.
            inputs: the queries, shape (n, channels, height, width): uint8, or numbers in [0, 1], which are brought to
                the 8-bit grid first.

        Raises:
            UsageError: negative, unnormalised or misshapen scores, or inputs of another number or kind.
        """
        return self._send(probabilities, inputs)[1]

    def answer(self, probabilities: Any, inputs: Any) -> Guarded:
        """Return the answers with what was changed; see :meth:`__call__`."""
        return self._send(probabilities, inputs)[0]

    def _send(self, probabilities: Any, inputs: Any) -> tuple[Guarded, Any]:
        given = _array(probabilities)
        clean = self._check(given)
        images = to_grid(inputs)
        if len(images) != len(clean):
            raise UsageError("guard: there must be one input per row of scores")
        guarded = self._answer(clean, images)
        # What leaves is rounded to the caller's precision, where a lead of one unit may become a tie.
        sent = _like(probabilities, guarded.probabilities)
        if len(given) == 1:
            # One row: the same comparison without the cost of calls that work along an axis.
            first = given.argmax()
            if _array(sent).argmax() == first:
                return guarded, sent
        first = given.argmax(axis=1)
        if (_array(sent).argmax(axis=1) != first).any():
            return self._keep_first(probabilities, guarded, clean=clean, first=first)
        return guarded, sent

    def _keep_first(
        self, probabilities: Any, guarded: Guarded, *, clean: Floats, first: npt.NDArray[np.int64]
    ) -> tuple[Guarded, Any]:
        kept = (_array(_like(probabilities, guarded.probabilities)).argmax(axis=1) == first) | guarded.relabelled
        answers = np.where(kept[:, None], guarded.probabilities, clean)
        sent = _like(probabilities, answers)
        kept = (_array(sent).argmax(axis=1) == first) | guarded.relabelled
        if not kept.all():
            raise AssertionError("a guard must keep the first class of every answer it does not relabel")
        return Guarded(probabilities=answers, relabelled=guarded.relabelled), sent

    def _check(self, given: npt.NDArray[Any]) -> Floats:
        if given.ndim != 2 or given.shape[1] != self.n_classes:
            raise UsageError(f"guard: scores must have shape (n, {self.n_classes})")
        clean = given.astype(np.float64)
        # Extremes of the sums also find what is not finite: no comparison with it holds.
        if len(clean) == 1:
            low = high = float(np.add.reduce(clean[0]))
        else:
            sums = clean.sum(axis=1)
            low, high = sums.min(initial=1.0), sums.max(initial=1.0)
        if not (low >= 1.0 - SUM_TOLERANCE and high <= 1.0 + SUM_TOLERANCE):
            raise UsageError("guard: every row of scores must be finite and sum to one")
        if clean.size and np.minimum.reduce(clean, axis=None) < 0.0:
            raise UsageError("guard: scores must not be negative")
        return clean


def check_classes(n_classes: int) -> int:
    """Return the number of classes.

    Raises:
        UsageError: fewer than three.
    """
    if n_classes < MIN_CLASSES:
        raise UsageError(f"guard: at least {MIN_CLASSES} classes are needed, not {n_classes}")
    return n_classes


def to_grid(inputs: Any) -> Inputs:
    """Return inputs as uint8, shape (n, channels, height, width).

    Raises:
        UsageError: another shape or type, or numbers outside [0, 1].
    """
    array = _array(inputs)
    if array.ndim != 4 or array.dtype.kind not in "uf":
        raise UsageError("guard: inputs must be uint8 or floats, of shape (n, channels, height, width)")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" or not (array.min(initial=0.0) >= 0.0 and array.max(initial=0.0) <= 1.0):
        raise UsageError("guard: inputs that are not uint8 must be floats in [0, 1]")
    return np.rint(array * 255.0).astype(np.uint8)


def _is_tensor(value: Any) -> bool:
    # By name, because importing torch here would make it a requirement of every service.
    return type(value).__module__.split(".")[0] == "torch"


def _like(given: Any, answers: Floats) -> Any:
    if isinstance(given, np.ndarray):
        return answers.astype(given.dtype, copy=False) if given.dtype.kind == "f" else answers
    return given.new_tensor(answers) if _is_tensor(given) else answers


def _array(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if _is_tensor(value):
        plain = value.detach().cpu()
        return np.asarray(plain.numpy() if plain.is_floating_point() is False else plain.float().numpy())
    return np.asarray(value)
