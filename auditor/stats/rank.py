"""E-values for drawn labels when the suspect reveals rankings or scores, not only its first label.

A key's label was drawn uniformly from the C−1 wrong classes after its carrier was fixed. Whatever the suspect
answers, every place among these candidates is then equally probable for the drawn label. So any weight of places
with mean one is an exact e-value given the past, for any suspect, however it adapts; products over keys are a test
martingale, and mixing several weightings in advance costs at most the logarithm of their number.

Notes:
    Rank form: weight falling geometrically with the number of candidates above the drawn label; candidates with equal
    scores share the mean weight of their places; labels outside a top-k list share the remaining places.
    Soft form: p(y)^g over the mean of p^g over the candidates. Both: statistics of the label draw, Ville's inequality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from auditor.stats import special
from auditor.stats.sequential import Floats

SLOPES: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
"""Slopes of the rank weights: each further place costs a factor exp(-slope)."""
POWERS: tuple[float, ...] = (0.5, 1.0, 2.0)
"""Exponents of the soft form."""
BOOST_OF_TRUTH = 4.0
_TIE = 1e-12
_BLOCK = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the drawn label stands among the candidates of one answer."""

    above: int
    """Candidates certainly ranked above it."""
    tied: int
    """Candidates that share its places, itself included; at least 1."""
    candidates: int
    """Wrong classes the label was drawn from, C−1."""

    def __post_init__(self) -> None:
        if self.candidates < 2 or self.tied < 1 or self.above < 0 or self.above + self.tied > self.candidates:
            raise ValueError("places must lie inside at least two candidates")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOutcome:
    """The wealth of a mixture of products of e-values."""

    log10_e: tuple[float, ...]
    """Evidence after each key."""
    decided_at: int | None
    """Keys after which 1/alpha was first reached; None if it was not."""
    log10_p: float
    """Anytime-valid p-value min(1, 1 / largest evidence)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticCost:
    """Simulated cost of a scores audit on the synthetic suspect."""

    mean: float
    standard_error: float
    undecided: float
    """Share of the simulated audits that the keys did not suffice for; they count with all keys in the mean."""
    stops: tuple[int, ...] = field(repr=False)
    """Keys until the claim of each audit that made one, ascending."""
    audits: int

    def keys_for(self, probability: float) -> int | None:
        """Return the keys within which this share of the audits claimed; None if too few did."""
        place = math.ceil(probability * self.audits - 1e-9)
        return self.stops[place - 1] if 1 <= place <= len(self.stops) else None

    @property
    def median(self) -> int | None:
        """Keys within which half of the audits claimed."""
        return self.keys_for(0.5)

    @property
    def q95(self) -> int | None:
        """Keys within which 95 % of the audits claimed."""
        return self.keys_for(0.95)

    @property
    def q99(self) -> int | None:
        """Keys within which 99 % of the audits claimed."""
        return self.keys_for(0.99)


def place_from_scores(scores: Sequence[float], *, natural: int, drawn: int) -> Place:
    """Return the place of the drawn label among all classes but the natural one, by the suspect's scores.

    Raises:
        ValueError: a score that is not a number, or labels outside the scores or equal.
    """
    values = np.asarray(scores, dtype=np.float64)
    _check_labels(len(values), natural, drawn)
    if np.isnan(values).any():
        raise ValueError("scores must be numbers")
    candidates = np.delete(values, natural)
    own = values[drawn]
    return Place(above=int((candidates > own).sum()), tied=int((candidates == own).sum()), candidates=len(candidates))


def place_from_list(listed: Sequence[int], *, natural: int, drawn: int, n_classes: int) -> Place:
    """Return the place of the drawn label in a top-k list, best first; unlisted candidates share what remains.

    An empty list (no answer) ties all candidates, so the key's factor is one. Labels outside the task are ignored,
    repeated ones count once.

    Raises:
        ValueError: labels outside the task or equal.
    """
    _check_labels(n_classes, natural, drawn)
    candidates = [label for label in dict.fromkeys(listed) if 0 <= label < n_classes and label != natural]
    if drawn in candidates:
        return Place(above=candidates.index(drawn), tied=1, candidates=n_classes - 1)
    return Place(above=len(candidates), tied=n_classes - 1 - len(candidates), candidates=n_classes - 1)


def rank_weights(candidates: int, slope: float) -> Floats:
    """Return the weights of the places 0 … candidates − 1: falling, with mean exactly one up to rounding."""
    if candidates < 2 or not slope >= 0.0:
        raise ValueError("rank weights need at least two candidates and a slope of at least zero")
    raw = np.exp(-slope * np.arange(candidates))
    return np.asarray(raw * (candidates / raw.sum()), dtype=np.float64)


def rank_factors(place: Place, *, slopes: Sequence[float] = SLOPES) -> Floats:
    """Return the natural-log e-value of one key per slope, shape (slopes,)."""
    shared = slice(place.above, place.above + place.tied)
    means = [float(rank_weights(place.candidates, slope)[shared].mean()) for slope in slopes]
    return np.asarray(np.log(means), dtype=np.float64)


def soft_factors(log_scores: Sequence[float], *, natural: int, drawn: int, powers: Sequence[float] = POWERS) -> Floats:
    """Return the natural-log e-value of one key per exponent from log-probabilities or logits, shape (powers,).

    A common offset of the scores does not matter. A score of -inf (probability zero) is allowed; if every candidate
    has it, the key is neutral.

    Raises:
        ValueError: scores that are not numbers or +inf, or labels outside the scores or equal.
    """
    values = np.asarray(log_scores, dtype=np.float64)
    _check_labels(len(values), natural, drawn)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("log scores must be numbers below infinity")
    candidates = np.delete(values, natural)
    if np.isneginf(candidates).all():
        return np.zeros(len(powers))
    g = np.asarray(powers, dtype=np.float64)[:, None]
    mean = np.logaddexp.reduce(g * candidates[None, :], axis=1) - math.log(len(candidates))
    return np.asarray(g[:, 0] * values[drawn] - mean, dtype=np.float64)


def mixture_outcome(log_factors: Sequence[npt.ArrayLike], *, alpha: float) -> MixtureOutcome:
    """Return the course of the equal mixture of products, one array of log e-values per key.

    Raises:
        ValueError: a level outside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError("alpha must lie strictly between 0 and 1")
    if not len(log_factors):
        return MixtureOutcome(log10_e=(), decided_at=None, log10_p=0.0)
    path = _mixture_path(np.asarray(log_factors, dtype=np.float64)[None])[0]
    reached = np.flatnonzero(path >= -math.log(alpha) - _TIE)
    return MixtureOutcome(
        log10_e=tuple(float(x) for x in path / math.log(10)),
        decided_at=int(reached[0]) + 1 if reached.size else None,
        log10_p=-max(0.0, float(path.max()) / math.log(10)) + 0.0,
    )


def boost_for(hit_rate: float) -> float:
    """Return the drawn label's boost at which the synthetic suspect answers it about this often."""
    if not 0.0 < hit_rate < 1.0:
        raise ValueError("the hit rate must lie strictly between 0 and 1")
    return BOOST_OF_TRUTH + math.sqrt(2.0) * float(special.ndtri(hit_rate))


def synthetic_cost(
    *,
    hit_rate: float,
    n_classes: int,
    alpha: float,
    soft: bool,
    seed: int,
    dilution: float = 0.0,
    audits: int = 2000,
    keys: int = 400,
) -> SyntheticCost:
    """Simulate what a scores audit costs on a synthetic suspect with this share of first-place hits.

    Its logits are independent N(0, 1), plus 4 on the natural label and a boost on the drawn one. Real classes
    resemble one another, so the figure is optimistic; the level of the test does not depend on it. A share
    ``dilution`` of its answers knows nothing of the drawn label.

    Raises:
        ValueError: a rate or level outside (0, 1), or fewer than three classes.
    """
    if not 0.0 < alpha < 1.0 or n_classes < 3:
        raise ValueError("a scores forecast needs a level in (0, 1) and at least three classes")
    if not 0.0 <= dilution < 1.0:
        raise ValueError("the dilution must lie in [0, 1)")
    boost, generator = boost_for(hit_rate), np.random.default_rng(seed)
    stops = np.full(audits, keys)
    decided = np.zeros(audits, dtype=bool)
    for start in range(0, audits, _BLOCK):
        block = slice(start, min(start + _BLOCK, audits))
        boosts = np.where(generator.random((stops[block].size, keys)) < dilution, 0.0, boost)
        path = _mixture_path(_synthetic_factors(generator, boosts, n_classes, soft))
        reached = path >= -math.log(alpha) - _TIE
        decided[block] = reached.any(axis=1)
        stops[block] = np.where(decided[block], reached.argmax(axis=1) + 1, keys)
    return SyntheticCost(
        mean=float(stops.mean()),
        standard_error=float(stops.std() / math.sqrt(audits)),
        undecided=float(1.0 - decided.mean()),
        stops=tuple(int(stop) for stop in np.sort(stops[decided])),
        audits=audits,
    )


def _synthetic_factors(generator: np.random.Generator, boosts: Floats, n_classes: int, soft: bool) -> Floats:
    # The natural label's own score matters to neither form, so only the candidates are drawn; the first is boosted.
    logits = generator.standard_normal((*boosts.shape, n_classes - 1))
    logits[..., 0] += boosts
    if soft:
        parts = [
            g * logits[..., 0] - np.logaddexp.reduce(g * logits, axis=-1) + math.log(n_classes - 1) for g in POWERS
        ]
        return np.stack(parts, axis=-1)
    above = (logits[..., 1:] > logits[..., :1]).sum(axis=-1)
    return np.stack([np.log(rank_weights(n_classes - 1, slope))[above] for slope in SLOPES], axis=-1)


def _mixture_path(log_factors: Floats) -> Floats:
    # Shape (audits, keys, weightings) to (audits, keys).
    products = np.cumsum(log_factors, axis=1)
    return np.asarray(np.logaddexp.reduce(products, axis=2) - math.log(products.shape[2]), dtype=np.float64)


def _check_labels(n_classes: int, natural: int, drawn: int) -> None:
    if not 0 <= natural < n_classes or not 0 <= drawn < n_classes or natural == drawn:
        raise ValueError("natural and drawn labels must be two different classes of the task")
