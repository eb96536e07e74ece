"""What an audit will cost, procedure by procedure, before any query is paid for.

Procedures differ in what they promise, so each row carries its false-claim probability at the null rate: the
published rules are cheap where they promise nothing about innocent suspects.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from auditor.stats import mixtures, queries, rank, sequential
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.optimum import least_mean

MAX_KEYS = 8_000
"""Forecasts look no further than this many keys."""
SMALLEST_LEVEL = 1e-100
"""Levels below this are refused; 1e-9 charged with 2**64 tries is about 1e-28."""
LONGEST_CAPPED = 120.0
"""Mean number of keys up to which the capped bet's exact law is cheap enough for a forecast."""
LONGEST_OPTIMUM = 60.0
"""Information limit up to which the exact optimum is computed."""
CALIBRATED_MAXIMUM = 1_500
"""Most keys the calibrated threshold is computed for."""
SCORES_SEED = 20261122
SCORES_KEYS = 400
THRESHOLD_TAU = 0.3
"""The published tolerance of the wrong-label threshold rule: a claim needs misses below τ of the keys."""


class LabelSpace(StrEnum):
    """Which answers the keys of a scheme can get from an innocent suspect."""

    NEW_LABEL = "new-label"
    """The sealed label lies outside the task's classes."""
    WRONG_LABEL = "wrong-label"
    """The sealed label is one of the task's own classes."""


class AnswerKind(StrEnum):
    """What the suspect reveals about each key."""

    LABELS = "labels"
    SCORES = "scores"
    """Full rankings or probabilities; of use only where the sealed labels were drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcedureForecast:
    """Query counts of one procedure on a copy that hits at the assumed rate."""

    name: str
    rule: str
    """When the procedure claims, in a few words."""
    mean: float | None
    """Mean number of key queries until a decision; None if it takes longer than MAX_KEYS."""
    median: int | None
    """Queries within which the claim is made with probability 0.5; None if it never gets that probable."""
    q95: int | None
    """The same with probability 0.95."""
    q99: int | None
    """The same with probability 0.99."""
    keys_for_power: int | None
    """Keys that must be at hand for the demanded power; None if no number is enough."""
    false_claim_log10: float
    """log10 of the probability of a claim at the null rate with ``keys_for_power`` keys (or the forecast's cap);
    -inf where no claim is possible."""
    innocent_mean: float
    """Mean number of queries at the null rate with the same number of keys."""

    def ratio_to(self, limit: float) -> float | None:
        """Return the mean over the information limit; None where the power is out of reach.

        It is below 1 only for rules that do not keep the level.
        """
        return None if self.mean is None or self.keys_for_power is None else self.mean / limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The cost of an audit under every procedure."""

    limit: float
    """Mean number of queries below which no test of this level and power can be."""
    wald: queries.WaldMeans
    """Wald's approximate means of the SPRT, overshoot ignored; for comparison with hand calculations."""
    procedures: tuple[ProcedureForecast, ...]
    """The default procedure first."""
    optimum: float | None
    """Exact least mean number of queries of any sequential test; None where the limit is above LONGEST_OPTIMUM or
    the optimum was not asked for."""
    keys_for_power: int | None
    """Keys to seal for the default procedure; None if no number within MAX_KEYS gives the power."""
    with_keys: sequential.Operating | None
    """The default procedure with the given number of keys, None where none was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a forecast is asked for."""

    labels: LabelSpace
    rate: float
    """Hit rate of a copy on fresh keys, in (null_rate, 1)."""
    null_rate: float
    """Largest hit rate of an independent suspect, in (0, p_min)."""
    alpha: float
    """Level of the test, in [SMALLEST_LEVEL, power)."""
    power: float
    """Probability with which a copy is to be recognised, in (0, 1)."""
    p_min: float
    """Smallest hit rate the sequential test promises to detect."""
    futility: float
    """Level of its futility stop."""
    answers: AnswerKind = AnswerKind.LABELS
    classes: int = 10
    """Classes of the task, for drawn labels and scores; at least 3."""
    dilution: float = 0.0
    """Share of answers given at random, in [0, 1); ``rate`` already counts it, scores need it apart."""

    def __post_init__(self) -> None:
        if not 0.0 < self.null_rate < self.rate < 1.0:
            raise ValueError("the rates must satisfy 0 < null rate < hit rate < 1")
        if not self.null_rate < self.p_min < 1.0:
            raise ValueError("p-min must lie between the null rate and 1")
        if not SMALLEST_LEVEL <= self.alpha < self.power < 1.0:
            raise ValueError(f"the level must be at least {SMALLEST_LEVEL:g} and below the power, the power below 1")
        if not 0.0 < self.futility < 1.0:
            raise ValueError("the futility level must lie strictly between 0 and 1")
        if not 0.0 <= self.dilution < 1.0:
            raise ValueError("the dilution must lie in [0, 1)")
        if self.classes < 3:
            raise ValueError("the task needs at least three classes")
        if self.answers is AnswerKind.SCORES and self.labels is not LabelSpace.WRONG_LABEL:
            raise ValueError("scores help only where the labels were drawn among the task's own classes")


def forecast(question: Question, *, keys: int | None = None, optimum: bool = False) -> Forecast:
    """Return the cost of an audit under every procedure.

    Args:
        question: rates and levels.
        keys: number of keys at hand, to forecast the default procedure with exactly these.
        optimum: compute the exact optimum too, about a second.

    Raises:
        ValueError: ``keys`` below 1 or above MAX_KEYS.
    """
    if keys is not None and not 1 <= keys <= MAX_KEYS:
        raise ValueError(f"the number of keys must lie between 1 and {MAX_KEYS}")
    default = default_procedure(question)
    rows = [default, _fixed(question), _sprt(question)]
    if question.labels is LabelSpace.NEW_LABEL:
        rows.append(_new_label(question))
    rows += [_threshold(question), _grid(question), _capped(question, default), _calibrated(question, default)]
    if question.answers is AnswerKind.SCORES:
        rows += [_scores(question, soft=False), _scores(question, soft=True)]
    levels = {"alpha": question.alpha, "power": question.power}
    rates = {"rate": question.rate, "null_rate": question.null_rate}
    limit = queries.information_limit(**levels, **rates)
    return Forecast(
        limit=limit,
        wald=queries.wald_means(**levels, **rates),
        optimum=least_mean(**levels, **rates) if optimum and limit <= LONGEST_OPTIMUM else None,
        procedures=tuple(row for row in rows if row is not None),
        keys_for_power=default.keys_for_power,
        with_keys=None if keys is None else _operate(question, rate=question.rate, cap=keys),
    )


def _operate(question: Question, *, rate: float, cap: int) -> sequential.Operating:
    return sequential.operating(
        rate=rate,
        null_rate=question.null_rate,
        alpha=question.alpha,
        p_min=question.p_min,
        futility=question.futility,
        cap=cap,
    )


def default_procedure(question: Question) -> ProcedureForecast:
    """Return the cost of the default procedure alone."""
    cap = 256
    operating = _operate(question, rate=question.rate, cap=cap)
    while operating.undecided > 1e-9 and cap < MAX_KEYS:
        cap = min(2 * cap, MAX_KEYS)
        operating = _operate(question, rate=question.rate, cap=cap)
    needed = operating.keys_to_reject(question.power)
    innocent = _operate(question, rate=question.null_rate, cap=needed or cap)
    return _from_operating("default e-process", f"evidence ≥ {1 / question.alpha:.3g}", operating, innocent, needed)


def _sprt(question: Question) -> ProcedureForecast:
    design = queries.sprt_design(
        alpha=question.alpha, power=question.power, rate=question.rate, null_rate=question.null_rate
    )
    cap = 256
    operating = queries.sprt_operating(design, rate=question.rate, cap=cap)
    while operating.undecided > 1e-9 and cap < MAX_KEYS:
        cap = min(2 * cap, MAX_KEYS)
        operating = queries.sprt_operating(design, rate=question.rate, cap=cap)
    needed = operating.keys_to_reject(question.power)
    innocent = queries.sprt_operating(design, rate=question.null_rate, cap=needed or cap)
    return _from_operating(
        "SPRT that knows p", f"likelihood ratio ≥ {1 / question.alpha:.3g}", operating, innocent, needed
    )


def _from_operating(
    name: str, rule: str, operating: sequential.Operating, innocent: sequential.Operating, needed: int | None
) -> ProcedureForecast:
    return ProcedureForecast(
        name=name,
        rule=rule,
        mean=operating.mean if operating.undecided < 1e-6 else None,
        median=operating.median,
        q95=operating.q95,
        q99=operating.q99,
        keys_for_power=needed,
        false_claim_log10=math.log10(innocent.reject) if innocent.reject > 0.0 else -math.inf,
        innocent_mean=innocent.mean,
    )


def _all_keys(name: str, *, keys: int, hits: int, power: float, null_rate: float) -> ProcedureForecast:
    # A rule that looks only once, at the end: whoever is asked pays for every key.
    return ProcedureForecast(
        name=name,
        rule=f"≥ {hits} hits of {keys}",
        mean=float(keys),
        median=keys if power >= 0.5 else None,
        q95=keys if power >= 0.95 else None,
        q99=keys if power >= 0.99 else None,
        keys_for_power=keys,
        false_claim_log10=binomial_tail_log10(hits=hits, trials=keys, rate=null_rate),
        innocent_mean=float(keys),
    )


def _fixed(question: Question) -> ProcedureForecast | None:
    design = queries.fixed_design(
        alpha=question.alpha,
        power=question.power,
        rate=question.rate,
        null_rate=question.null_rate,
        max_keys=MAX_KEYS,
    )
    if design is None:
        return None
    return _all_keys(
        "fixed exact binomial", keys=design.keys, hits=design.hits, power=design.power, null_rate=question.null_rate
    )


def _new_label(question: Question) -> ProcedureForecast:
    keys = queries.new_label_quantile(rate=question.rate, miss=1.0 - question.power)
    false_claim = queries.new_label_within(rate=question.null_rate, queries=keys)
    return ProcedureForecast(
        name="new-label rule, 1/p",
        rule="first answer Δ",
        mean=queries.new_label_bound(question.rate).mean,
        median=queries.new_label_quantile(rate=question.rate, miss=0.5),
        q95=queries.new_label_quantile(rate=question.rate, miss=0.05),
        q99=queries.new_label_quantile(rate=question.rate, miss=0.01),
        keys_for_power=keys,
        false_claim_log10=math.log10(false_claim),
        innocent_mean=queries.new_label_cost(rate=question.null_rate, keys=keys),
    )


def _threshold(question: Question) -> ProcedureForecast | None:
    try:
        size = queries.threshold_size(rate=question.rate, tau=THRESHOLD_TAU, accuracy=question.power)
    except ValueError:
        # τ practically equals the miss rate: the rule has no size anyone could pay for.
        return None
    if size is None or size.first > MAX_KEYS:
        return None
    return _all_keys(
        f"threshold rule, tau = {THRESHOLD_TAU:g}",
        keys=size.first,
        hits=queries.threshold_hits(keys=size.first, tau=THRESHOLD_TAU),
        power=queries.threshold_accuracy(rate=question.rate, keys=size.first, tau=THRESHOLD_TAU),
        null_rate=question.null_rate,
    )


def _grid(question: Question) -> ProcedureForecast | None:
    if question.null_rate >= max(mixtures.GRID):
        return None

    def at(rate: float, cap: int) -> sequential.Operating:
        return mixtures.open_ended(
            lambda k, n: mixtures.grid_log_e(k, n, null_rate=question.null_rate),
            rate=rate,
            alpha=question.alpha,
            cap=cap,
        )

    cap = 256
    operating = at(question.rate, cap)
    while operating.undecided > 1e-9 and cap < MAX_KEYS:
        cap = min(2 * cap, MAX_KEYS)
        operating = at(question.rate, cap)
    needed = operating.keys_to_reject(question.power)
    innocent = at(question.null_rate, needed or cap)
    return _from_operating(
        "grid mixture, no futility stop", f"evidence ≥ {1 / question.alpha:.3g}", operating, innocent, needed
    )


def _capped(question: Question, default: ProcedureForecast) -> ProcedureForecast | None:
    if default.mean is None or default.mean > LONGEST_CAPPED or default.keys_for_power is None:
        return None
    levels = {"null_rate": question.null_rate, "alpha": question.alpha}
    # Three times the default's keys: the capped bet's wealth lags only where the default has already claimed.
    operating = mixtures.capped_operating(rate=question.rate, cap=3 * default.keys_for_power, **levels)
    needed = operating.keys_to_reject(question.power)
    innocent = mixtures.capped_operating(rate=question.null_rate, cap=needed or default.keys_for_power, **levels)
    return _from_operating(
        "default with capped last bet, no futility stop",
        f"evidence ≥ {1 / question.alpha:.3g}",
        operating,
        innocent,
        needed,
    )


def _calibrated(question: Question, default: ProcedureForecast) -> ProcedureForecast | None:
    # The maximum is registered before the audit: the keys the default needs for the power.
    maximum = default.keys_for_power
    if maximum is None or maximum > CALIBRATED_MAXIMUM:
        return None
    made = mixtures.calibrated_boundary(
        lambda k, n: sequential.log_e(k, n, question.null_rate),
        null_rate=question.null_rate,
        alpha=question.alpha,
        maximum=maximum,
    )
    keep = made.reject_from * 0
    at = [
        sequential.boundary_operating(rate=rate, reject_from=made.reject_from, continue_from=keep)
        for rate in (question.rate, question.null_rate)
    ]
    return ProcedureForecast(
        name=f"default, calibrated to {maximum} keys",
        rule=f"evidence ≥ {math.exp(made.log_threshold):.3g}",
        mean=at[0].mean,
        median=at[0].median,
        q95=at[0].q95,
        q99=at[0].q99,
        keys_for_power=at[0].keys_to_reject(question.power),
        false_claim_log10=math.log10(made.level) if made.level > 0.0 else -math.inf,
        innocent_mean=at[1].mean,
    )


def _scores(question: Question, *, soft: bool) -> ProcedureForecast | None:
    undiluted = (question.rate - question.dilution / question.classes) / (1.0 - question.dilution)
    if not 0.0 < undiluted < 1.0:
        return None
    cost = rank.synthetic_cost(
        hit_rate=undiluted,
        dilution=question.dilution,
        n_classes=question.classes,
        alpha=question.alpha,
        soft=soft,
        seed=SCORES_SEED,
        audits=1000,
        keys=SCORES_KEYS,
    )
    needed = cost.keys_for(question.power)
    return ProcedureForecast(
        name="probabilities (simulated)" if soft else "ranks (simulated)",
        rule=f"evidence ≥ {1 / question.alpha:.3g}",
        mean=cost.mean if cost.undecided == 0.0 else None,
        median=cost.median,
        q95=cost.q95,
        q99=cost.q99,
        keys_for_power=needed,
        false_claim_log10=math.log10(question.alpha),
        innocent_mean=float(needed or SCORES_KEYS),
    )
