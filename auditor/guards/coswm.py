"""CosWM at the API: a keyed cosine of a projection of the query is added to the probabilities.

Differences from the paper
    The published scheme also trains its teacher with the signal, so that the first class is learned with it present.
    Here the signal is added to a finished model's answers, which may change the first class near ties; such queries
    are reported as relabelled. The p-value by fresh keys is not part of the paper.

References:
    L. Charette, L. Chu, Y. Chen, J. Pei, L. Wang, Y. Zhang: Cosine Model Watermarking Against Ensemble Distillation.
    AAAI 2022.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from auditor.draws import DrawStream, Secret
from auditor.errors import UsageError
from auditor.guards.base import Floats, Guard, Guarded, check_classes
from auditor.records import Inputs

AMPLITUDE = 0.05
FREQUENCY = 30.0
HALF_WIDTH = 0.005
"""Half width of the band around the key's angular frequency that counts as signal."""
CLAIM = 8.0
"""Published ratio of signal to noise above which a claim is made."""
N_FREQUENCIES = 2_000
HIGHEST = 40.0
LOWEST = 0.002
CONFIDENT = 0.5
"""Share of the least confident answers that is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineKey:
    """Class, angular frequency and unit direction."""

    target: int
    frequency: float
    direction: Floats
    """Unit vector, shape (pixels,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineTest:
    """The published ratio with its rank among fresh keys."""

    signal_to_noise: float
    claimed: bool
    """By the published rule."""
    p_value: float
    """(1 + fresh keys with at least this ratio) / (fresh keys + 1)."""


def draw_key(stream: DrawStream, *, n_classes: int, n_pixels: int, frequency: float = FREQUENCY) -> CosineKey:
    """Return a key with a uniform class and direction."""
    direction = stream.normal((n_pixels,))
    return CosineKey(
        target=stream.integer(n_classes), frequency=frequency, direction=direction / np.linalg.norm(direction)
    )


class CosWM(Guard):
    """Adds ε(1 + cos) to the key's class and takes the opposite signal from the others, renormalised."""

    name: ClassVar[str] = "coswm"

    def __init__(
        self,
        *,
        client_key: bytes,
        n_classes: int,
        shape: tuple[int, int, int],
        amplitude: float = AMPLITUDE,
        frequency: float = FREQUENCY,
    ) -> None:
        if not 0 < amplitude < 1 or not frequency > 0:
            raise UsageError("guard: the amplitude must lie in (0, 1) and the frequency above 0")
        self._n_classes = check_classes(n_classes)
        self._amplitude = amplitude
        self._shape = shape
        stream = Secret(client_key).stream("coswm key")
        self.key = draw_key(stream, n_classes=n_classes, n_pixels=int(np.prod(shape)), frequency=frequency)

    @property
    def n_classes(self) -> int:
        """Number of classes of the guarded model."""
        return self._n_classes

    def _answer(self, probabilities: Floats, inputs: Inputs) -> Guarded:
        if inputs.shape[1:] != self._shape:
            raise UsageError("guard: the inputs do not have the guarded model's shape")
        signal = np.cos(self.key.frequency * project(inputs, self.key.direction))
        answers = probabilities + self._amplitude * (1.0 - signal)[:, None] / (self._n_classes - 1)
        answers[:, self.key.target] = probabilities[:, self.key.target] + self._amplitude * (1.0 + signal)
        answers /= 1.0 + 2.0 * self._amplitude
        return Guarded(probabilities=answers, relabelled=np.argmax(answers, axis=1) != np.argmax(probabilities, axis=1))


def project(inputs: Inputs, direction: Floats) -> Floats:
    """Return the projection of pixels in [0, 1], shape (n,)."""
    return np.asarray(inputs.reshape(len(inputs), -1).astype(np.float64) @ direction / 255.0)


def signal_to_noise(*, inputs: Inputs, labels: npt.NDArray[np.int64], scores: Floats, key: CosineKey) -> float:
    """Return mean power at the key's frequency over mean power elsewhere, by the published rule.

    Args:
        inputs: probes.
        labels: the probes' classes; only those of the key's class are used.
        scores: the suspect's probabilities, shape (n, classes).
        key: the key to look for.

    Raises:
        UsageError: fewer than 20 usable probes.
    """
    from scipy.signal import lombscargle

    rows = np.flatnonzero(labels == key.target)
    values = scores[rows, key.target]
    kept = values > np.quantile(values, CONFIDENT) if len(values) else np.zeros(0, dtype=bool)
    if kept.sum() < 20:
        raise UsageError("guard: at least 20 confident probes of the key's class are needed")
    x = project(inputs[rows[kept]], key.direction)
    y = values[kept] - values[kept].mean()
    if not np.any(y):
        return 0.0
    # The published grid is in ordinary frequencies, the key's in radians.
    noise = 2.0 * np.pi * np.linspace(LOWEST, HIGHEST, N_FREQUENCIES)
    near = np.abs(noise - key.frequency) <= HALF_WIDTH
    band = np.linspace(key.frequency - HALF_WIDTH, key.frequency + HALF_WIDTH, 11)
    signal = lombscargle(x, y, band)
    return float(signal.mean() / lombscargle(x, y, noise[~near]).mean())


def cosine_test(
    *, inputs: Inputs, labels: npt.NDArray[np.int64], scores: Floats, key: CosineKey, seed: bytes, draws: int
) -> CosineTest:
    """Compare the key's ratio with that of fresh keys of the same frequency.

    Hypothesis: the key's class and direction are independent of the suspect. Then its ratio is as likely as any fresh
    key's to be the largest, whatever the spectrum of the probes is.
    """
    stream = DrawStream(seed)
    n_classes, n_pixels = scores.shape[1], int(np.prod(inputs.shape[1:]))
    own = signal_to_noise(inputs=inputs, labels=labels, scores=scores, key=key)
    fresh = [
        signal_to_noise(
            inputs=inputs,
            labels=labels,
            scores=scores,
            key=draw_key(stream, n_classes=n_classes, n_pixels=n_pixels, frequency=key.frequency),
        )
        for _ in range(draws)
    ]
    return CosineTest(
        signal_to_noise=own, claimed=own > CLAIM, p_value=(1 + sum(value >= own for value in fresh)) / (draws + 1)
    )
