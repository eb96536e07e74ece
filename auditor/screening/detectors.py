"""How a suspect could tell keys from ordinary inputs: scores that rise with suspicion, one family per detector.

The first detectors know ordinary images only; ``confidence`` also runs an innocent model of the task. ``leaked`` was
given some of the keys and learns from them; it is tried on the keys that it was not given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from auditor.errors import DISTRIBUTION, MissingPartError
from auditor.records import Inputs
from auditor.screening.ordinary import Ordinary
from auditor.stats.separation import Area, AtBudget, Scores, area_under_curve, at_budget, nearest_distances

BUDGET = 0.01
"""Share of ordinary inputs that a detector may refuse."""
NEIGHBOURS = 5
EXPLAINED = 0.95
"""Share of the ordinary images' variance that the linear reconstruction keeps."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisations among which the leaked keys' detector chooses by cross-validation."""
FOLDS = 3
MIN_LEAKED = 6
MOST_KNOWN_LEAKED = 1_500
"""Ordinary images that the detector with leaked keys learns from; more only cost time."""

Predict = Callable[[Inputs], npt.NDArray[np.float32]]
"""Returns one score per class, shape (n, classes)."""


class Detector(StrEnum):
    """A way to tell keys from ordinary inputs."""

    NEIGHBOURS = "nearest-neighbours"
    """Mean distance to the nearest ordinary images."""
    RECONSTRUCTION = "reconstruction"
    """Residual of a linear autoencoder (principal components) fitted on ordinary images."""
    ROUGHNESS = "roughness"
    """Mean squared difference between each pixel and its four neighbours: added noise raises it."""
    CONFIDENCE = "confidence"
    """One minus the largest probability of an innocent model of the task."""
    LEAKED = "leaked-keys"
    """Logistic regression on the pixels, trained on some of the keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What one detector does."""

    detector: Detector
    area: Area
    """Keys against fresh ordinary images, on the side that speaks for keys."""
    budget: AtBudget | None
    """At :data:`BUDGET`; None where there are too few ordinary images to choose a threshold."""
    leaked: int
    """Keys that the detector was given; 0 for those that know ordinary images only."""
    low_side: bool = False
    """True where low scores speak for a key, because keys look more ordinary than ordinary images."""


def detect(
    keys: Inputs, ordinary: Ordinary, *, innocent: Predict | None, leaked: int, seed: int
) -> tuple[Detection, ...]:
    """Return what every detector does to a key set.

    Args:
        keys: the key samples, uint8, shape (n, channels, height, width).
        ordinary: images to compare with.
        innocent: an unmarked model of the task, or None.
        leaked: keys given to the detector that learns from some; 0 leaves it out.
        seed: draws which keys are leaked.

    Raises:
        MissingPartError: scikit-learn is not installed and ``leaked`` asks for it.
    """
    known = ordinary.known.inputs
    scorers: list[tuple[Detector, Callable[[Inputs], Scores]]] = [
        (Detector.NEIGHBOURS, lambda x: nearest_distances(x, known, k=min(NEIGHBOURS, len(known)))),
        (Detector.RECONSTRUCTION, _reconstruction(known)),
        (Detector.ROUGHNESS, roughness),
    ]
    if innocent is not None:
        scorers.append((Detector.CONFIDENCE, lambda x: 1.0 - _probabilities(innocent(x)).max(axis=1)))
    found = [_detection(detector, score, keys, ordinary, leaked=0) for detector, score in scorers]
    if leaked >= MIN_LEAKED and len(keys) - leaked >= MIN_LEAKED:
        order = np.random.default_rng(seed).permutation(len(keys))
        learned = _learned(keys[order[:leaked]], known)
        found.append(_detection(Detector.LEAKED, learned, keys[order[leaked:]], ordinary, leaked=leaked))
    return tuple(found)


def roughness(images: Inputs) -> Scores:
    """Return the mean squared difference between horizontal and vertical neighbours, shape (n,)."""
    values = images.astype(np.float64)
    across, down = np.diff(values, axis=3) ** 2, np.diff(values, axis=2) ** 2
    parts = [each.reshape(len(images), -1).mean(axis=1) for each in (across, down) if each.size]
    return np.asarray(np.mean(parts, axis=0)) if parts else np.zeros(len(images))


def _detection(
    detector: Detector, score: Callable[[Inputs], Scores], keys: Inputs, ordinary: Ordinary, *, leaked: int
) -> Detection:
    ours, chosen_on, tried_on = (score(x) for x in (keys, ordinary.chosen_on.inputs, ordinary.tried_on.inputs))
    # A suspect may refuse what looks too ordinary as well. The better side overstates it a little.
    low_side = area_under_curve(ours, chosen_on).area < 0.5
    sign = -1.0 if low_side else 1.0
    area = area_under_curve(sign * ours, sign * np.concatenate([chosen_on, tried_on]))
    budget = at_budget(first=sign * ours, chosen_on=sign * chosen_on, tried_on=sign * tried_on, budget=BUDGET)
    return Detection(detector=detector, area=area, budget=budget, leaked=leaked, low_side=low_side)


def _reconstruction(known: Inputs) -> Callable[[Inputs], Scores]:
    rows = known.reshape(len(known), -1).astype(np.float64)
    mean = rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(rows - mean, full_matrices=False)
    explained = np.cumsum(sizes**2) / max(float(np.sum(sizes**2)), 1e-12)
    kept = axes[: int(np.searchsorted(explained, EXPLAINED)) + 1]

    def residual(images: Inputs) -> Scores:
        centred = images.reshape(len(images), -1) - mean
        return np.asarray(np.linalg.norm(centred - (centred @ kept.T) @ kept, axis=1))

    return residual


def _learned(leaked: Inputs, known: Inputs) -> Callable[[Inputs], Scores]:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingPartError(
            f"a detector with leaked keys needs scikit-learn: pip install '{DISTRIBUTION}[train]'; --leaked 0 leaves "
            "it out"
        ) from error
    ordinary = known[:MOST_KNOWN_LEAKED]
    rows = np.concatenate([leaked, ordinary]).reshape(len(leaked) + len(ordinary), -1).astype(np.float64)
    truth = np.repeat([1, 0], [len(leaked), len(ordinary)])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=500))
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="roc_auc", cv=FOLDS)
    search.fit(rows, truth)

    def suspicion(images: Inputs) -> Scores:
        values = search.decision_function(images.reshape(len(images), -1).astype(np.float64))
        return np.asarray(values, dtype=np.float64)

    return suspicion


def _probabilities(scores: npt.NDArray[np.float32]) -> Scores:
    values = scores.astype(np.float64)
    if np.all(values >= 0) and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
