"""How near keys lie to ordinary images, measured against how near those lie to one another."""

from dataclasses import dataclass

import numpy as np

from auditor.evidence.keyset import KeySet
from auditor.records import SampleKind
from auditor.screening.ordinary import Ordinary
from auditor.stats.exact import Interval, clopper_pearson
from auditor.stats.separation import nearest_distances, squared_distances

CONFIDENCE = 0.95
USUAL = 0.95
"""A key is unusually far where it lies beyond this quantile of the ordinary images' own distances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A count among trials with its exact interval."""

    hits: int
    trials: int
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """Where keys lie among ordinary images."""

    key_distance: float
    """Median Euclidean distance of a key to the nearest known ordinary image, in grey levels."""
    ordinary_distance: float
    """The same for fresh ordinary images."""
    far: Share
    """Keys beyond the :data:`USUAL` quantile of the fresh ordinary images' distances."""
    nearest_is_natural: Share
    """Keys whose nearest ordinary image is of the carrier's own class."""
    nearest_is_sealed: Share
    """Keys whose nearest ordinary image is of the sealed class: what makes any model of the task hit."""


def share(hits: int, trials: int) -> Share:
    """Return a share with its Clopper-Pearson interval."""
    return Share(hits=hits, trials=trials, interval=clopper_pearson(hits=hits, trials=trials, confidence=CONFIDENCE))


def nearness(keys: KeySet, ordinary: Ordinary) -> Nearness:
    """Return how near the keys of a set lie to ordinary images."""
    samples = [sample for sample in keys.samples if sample.kind is SampleKind.KEY]
    inputs = keys.inputs[[sample.index for sample in samples]]
    known = ordinary.known
    squared = squared_distances(inputs, known.inputs)
    nearest = known.labels[np.argmin(squared, axis=1)]
    own = np.sqrt(squared.min(axis=1))
    usual = nearest_distances(ordinary.fresh, known.inputs)
    natural, sealed = (np.array([getattr(s, name) for s in samples]) for name in ("natural", "expected"))
    n = len(samples)
    return Nearness(
        key_distance=float(np.median(own)),
        ordinary_distance=float(np.median(usual)),
        far=share(int(np.sum(own > np.quantile(usual, USUAL))), n),
        nearest_is_natural=share(int(np.sum(nearest == natural)), n),
        nearest_is_sealed=share(int(np.sum(nearest == sealed)), n),
    )
