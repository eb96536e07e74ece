"""What a panel of innocent models shows, with the model as the unit.

Notes:
    Hypothesis: the suspect is one more model of the population the panel was drawn from (exchangeable with it).
    Assumption: the panel models were trained independently of the owner's keys and of one another, and are asked the
    same keys by the same procedure as the suspect. Which population they stand for (data, architectures, tuning) is
    an argument, not a computation, and belongs in the report.
    Guarantee: :func:`rank_p`, :func:`rank_log10_e`, :func:`innocent_ceiling` with :func:`ceiling_p`, and
    :func:`procedure_error` hold for every such population and every dependence between the keys. None of them can go
    below about one over the number of models; :func:`smallest_level` says what no test whatever can go below.
    Treating the answers of one model as independent facts (binomial, Fisher or Boschloo against pooled controls,
    Poisson-binomial with per-key estimates) claims 7 to 13 % of innocents at a nominal 1 % in the simulations of
    tests/stats/test_panel.py, and a larger panel makes it worse. docs/adr/0006 gives the reasons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.stats import special
from auditor.stats.exact import Interval, clopper_pearson, upper_bound_at


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRate:
    """How many innocent models hit one key."""

    hits: int
    models: int
    upper: float
    """Upper confidence bound of the share of the population that hits this key, for this key alone."""
    upper_all: float
    """The same, so that the bounds of all keys hold together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelNull:
    """The null rate as the panel measures it."""

    models: int
    keys: tuple[KeyRate, ...]
    error: float
    """Error probability of each of the bounds, and of all keys' ``upper_all`` together."""
    mean_rate: float
    """Share of hits over all models and keys."""
    mean_upper: float
    """Upper confidence bound of the population's mean hit rate; the unit is the model."""
    worst_rate: float
    """Largest hit rate of one panel model."""
    smallest_p: float
    """Smallest p-value the rank among the panel can give, 1 / (models + 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelRank:
    """Where the suspect ranks among innocent models."""

    at_least_as_high: int
    """Panel models with a statistic at least as high; ties count against the owner."""
    models: int
    p_value: float
    """(1 + at_least_as_high) / (models + 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """A number of hits that one more innocent model exceeds with a known probability."""

    hits: int
    """Hits over all keys."""
    error: float
    """Probability that an innocent model has more, at most the one asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRate:
    """False claims of the whole procedure on independent models."""

    false_claims: int
    models: int
    upper: float
    """One-sided upper Clopper-Pearson bound at ``confidence``."""
    interval: Interval
    """Two-sided Clopper-Pearson interval at ``confidence``."""
    confidence: float

    @property
    def sentence(self) -> str:
        """The finding in words, with the bound rounded up to the next percent (or digit, below one percent)."""
        digits = 0 if self.upper >= 0.01 else 1 - math.ceil(math.log10(100.0 * self.upper))
        scale = 10.0**digits
        bound = math.ceil(100.0 * self.upper * scale - 1e-9) / scale
        return (
            f"{self.false_claims} of {self.models} independent models were claimed; "
            f"at {100 * self.confidence:g} % confidence this still allows a rate of {bound:.{max(digits, 0)}f} %"
        )


def measure_panel(hits: npt.ArrayLike, *, error: float = 0.05) -> PanelNull:
    """Return the null rate per key and overall from the panel's hits.

    Args:
        hits: shape (models, keys), True where a model hit a key. A panel model's missing answer must be treated as
            the procedure treats the suspect's.
        error: error probability of the bounds, in (0, 1).

    Raises:
        ValueError: no models or no keys, entries that are not 0 or 1, or an error outside (0, 1).
    """
    table = np.asarray(hits)
    if table.ndim != 2 or table.size == 0 or not np.all((table == 0) | (table == 1)):
        raise ValueError("a panel needs at least one model and one key, and each answer is a hit or not")
    models, n_keys = table.shape
    per_key = table.astype(np.int64).sum(axis=0).tolist()
    bounds = {
        k: (
            upper_bound_at(hits=k, trials=models, error=error),
            upper_bound_at(hits=k, trials=models, error=error / n_keys),
        )
        for k in set(per_key)
    }
    rates = (table.astype(np.int64).sum(axis=1) / n_keys).tolist()
    return PanelNull(
        models=models,
        keys=tuple(KeyRate(hits=k, models=models, upper=bounds[k][0], upper_all=bounds[k][1]) for k in per_key),
        error=error,
        mean_rate=math.fsum(rates) / models,
        mean_upper=mean_rate_upper(rates, error=error),
        worst_rate=max(rates),
        smallest_p=1.0 / (models + 1),
    )


def mean_rate_upper(rates: Sequence[float], *, error: float) -> float:
    """Return an upper confidence bound of the mean of a population of rates, from one rate per model.

    The largest μ with exp(-m KL(mean ‖ μ)) > error, m the number of models. Valid for independent rates in [0, 1] of
    any shape; with no hit at all it equals Clopper-Pearson's 1 - error^(1/m), however many keys each model was asked.

    Raises:
        ValueError: no rates, a rate outside [0, 1], or an error outside (0, 1).

    References:
        Hoeffding (1963), theorem 1.
    """
    if not rates or not all(0.0 <= rate <= 1.0 for rate in rates):
        raise ValueError("rates must be given and lie in [0, 1]")
    if not 0.0 < error < 1.0:
        raise ValueError("error must lie strictly between 0 and 1")
    mean = math.fsum(rates) / len(rates)
    allowed = -math.log(error) / len(rates)
    low, high = mean, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        divergence = float(special.rel_entr(mean, middle) + special.rel_entr(1.0 - mean, 1.0 - middle))
        low, high = (middle, high) if divergence < allowed else (low, middle)
    return high


def rank_p(*, statistic: float, panel: Sequence[float]) -> PanelRank:
    """Return the exact p-value of the suspect's rank among innocent models.

    The statistic may be any function of a model's answers that is computed alike for all of them: hits over all
    keys, or the largest e-value of a sequential test that stopped by itself for each. Numbers of hits at the moment
    the *suspect's* test stopped would not do, since the panel models were not stopped by their own answers.

    Raises:
        ValueError: a statistic that is not a number.
    """
    if math.isnan(statistic) or any(math.isnan(value) for value in panel):
        raise ValueError("statistics must be numbers")
    at_least = sum(value >= statistic for value in panel)
    return PanelRank(at_least_as_high=at_least, models=len(panel), p_value=(1 + at_least) / (len(panel) + 1))


def rank_log10_e(*, statistic: float, panel: Sequence[float]) -> float:
    """Return log10 of the e-value (m + 1) T / (T + Σ T_j), which has mean at most 1 for an exchangeable suspect.

    For merging with other e-values; never above m + 1. Statistics must not be negative; 0.0 when all are zero.

    Raises:
        ValueError: a negative statistic, or one that is not finite.
    """
    values = [statistic, *panel]
    if not all(math.isfinite(value) and value >= 0.0 for value in values):
        raise ValueError("statistics must be finite and not negative")
    total = math.fsum(values)
    if total == 0.0:
        return 0.0
    return math.log10(len(values) * statistic / total) if statistic > 0.0 else -math.inf


def innocent_ceiling(*, totals: Sequence[int], error: float) -> Ceiling | None:
    """Return the fewest hits that one more innocent model exceeds with probability at most ``error``.

    An order statistic of the panel's totals over the same keys; None where the panel is too small for any, that is
    for ``error`` below 1 / (models + 1).

    Raises:
        ValueError: a negative total, or an error outside (0, 1).
    """
    if any(total < 0 for total in totals):
        raise ValueError("totals of hits cannot be negative")
    if not 0.0 < error < 1.0:
        raise ValueError("error must lie strictly between 0 and 1")
    n = len(totals) + 1
    # P(new total above the r-th smallest of m) is at most (m + 1 - r) / (m + 1) by exchangeability.
    above = math.floor(error * n + 1e-9)
    if above < 1:
        return None
    if above >= n:
        return Ceiling(hits=0, error=1.0)
    return Ceiling(hits=sorted(totals)[n - above - 1], error=above / n)


def ceiling_p(*, hits: int, asked: int, keys: int, ceiling: Ceiling) -> float:
    """Return the p-value of a suspect that was asked only part of the keys, in an order drawn at random.

    The ceiling's error plus P(hypergeometric ≥ hits) for a suspect that would hit at most ``ceiling.hits`` of all
    ``keys``: by the union bound valid for every innocent model, with the panel's uncertainty in the first term and
    the sample's in the second. The number asked is fixed beforehand.

    Raises:
        ValueError: counts that cannot be.
    """
    if not 0 <= hits <= asked <= keys or ceiling.hits > keys:
        raise ValueError("hits, asked keys and keys must be in order, and the ceiling within the keys")
    support = np.arange(hits, min(asked, ceiling.hits) + 1)
    if hits == 0:
        return 1.0
    support = support[asked - support <= keys - ceiling.hits]
    log_tail = (
        float(
            special.logsumexp(
                _log_choose(ceiling.hits, support)
                + _log_choose(keys - ceiling.hits, asked - support)
                - _log_choose(keys, np.asarray(asked))
            )
        )
        if support.size
        else -math.inf
    )
    return min(1.0, ceiling.error + math.exp(min(0.0, log_tail)))


def procedure_error(*, false_claims: int, models: int, confidence: float = 0.95) -> ErrorRate:
    """Return the false-claim rate of the whole procedure, counted over independently trained models.

    "0 of 20" still allows 14 %. Count models, not audits: repeated audits of one model are one observation.

    Raises:
        ValueError: counts that cannot be, or a confidence outside (0, 1).
    """
    interval = clopper_pearson(hits=false_claims, trials=models, confidence=confidence)
    return ErrorRate(
        false_claims=false_claims,
        models=models,
        upper=upper_bound_at(hits=false_claims, trials=models, error=1.0 - confidence),
        interval=interval,
        confidence=confidence,
    )


def smallest_level(models: int) -> float:
    """Return a level below which no test based on the panel alone can claim, even against a clean panel.

    If a share ε of all innocent models hit every key and the others none, a clean panel together with a suspect that
    hits everything has probability ε (1 - ε)^m, which at ε = 1/(m + 1) is (m/(m+1))^m / (m+1), about 0.37/(m + 1). A
    test that claims there has at least that level; 1e-6 needs several hundred thousand models or another null.

    Raises:
        ValueError: a negative number of models.
    """
    if models < 0:
        raise ValueError("the number of models cannot be negative")
    return (models / (models + 1)) ** models / (models + 1)


def beta_binomial_log10_p(*, hits: int, keys: int, totals: Sequence[int]) -> float:
    """Return log10 of P(total ≥ hits) when models' rates follow a beta law fitted to the panel by moments.

    Descriptive: it lets rates vary between models, so it is the least misleading of the smooth figures, but its far
    tail rests on the shape of the beta law and on few models, and keeps no level there.

    Raises:
        ValueError: fewer than two models, or counts that cannot be.
    """
    if len(totals) < 2 or keys < 1 or not 0 <= hits <= keys or not all(0 <= t <= keys for t in totals):
        raise ValueError("at least two models are needed, with hits between 0 and the number of keys")
    m = len(totals)
    # Half a hit and half a miss are added so that a clean panel is not read as a rate of zero.
    mean = (sum(totals) + 0.5) / (m * keys + 1.0)
    variance = sum((t - sum(totals) / m) ** 2 for t in totals) / (m - 1)
    binomial_variance = keys * mean * (1.0 - mean)
    ratio = variance / binomial_variance
    # The intra-model correlation; floored at one over all answers, where the law is binomial for every purpose.
    correlation = min(0.999, max((ratio - 1.0) / (keys - 1) if keys > 1 else 0.0, 1.0 / (m * keys + 1.0)))
    total = 1.0 / correlation - 1.0
    a, b = mean * total, (1.0 - mean) * total
    support = np.arange(hits, keys + 1)
    terms = _log_choose(keys, support) + special.betaln(support + a, keys - support + b) - special.betaln(a, b)
    return min(0.0, float(special.logsumexp(terms)) / math.log(10))


def _log_choose(n: int, k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(-special.betaln(n - k + 1, k + 1) - math.log1p(n), dtype=np.float64)
