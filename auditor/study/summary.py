"""From records to what a dry run says: power per attack, false claims, keys to seal; pure functions.

Power and false claims are counts of audits with exact intervals. The recommendation is a forecast: the sealed test
at the hit rate of the weakest seed of each attack, so that it does not rest on the average surrogate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median

from auditor.records import NullBasis, Status
from auditor.stats.drawn_labels import FUTILITY_OFF
from auditor.stats.exact import Interval, clopper_pearson
from auditor.stats.forecast import LabelSpace, Question, default_procedure
from auditor.stats.panel import ErrorRate, procedure_error
from auditor.study.runner import Trial
from auditor.study.trials import Role, TrialRecord

CONFIDENCE = 0.95
FUTILITY = 0.01
BREAKING_STEPS = 12
"""Bisections of the smallest hit rate that can be decided; 2^-12 is far below any sampling error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectSummary:
    """All audits of one kind of suspect with one scheme's keys."""

    title: str
    role: Role
    attack: str
    strength: float | None
    trials: int
    failed: int
    """Trials without a result: training or attack ended with an error."""
    supported: int
    not_supported: int
    inconclusive: int
    power: Interval | None
    """Share of *supported*, with its exact interval; None without trials."""
    accuracy_before: float | None
    accuracy_after: float | None
    """Means over the seeds."""
    hit_rate: float | None
    """Hits over all sealed keys of all seeds."""
    seed_rates: tuple[float, ...]
    """Hit rate of each seed, in planned order."""
    keys_until_decision: float | None
    """Median over the audits that decided."""
    keys_needed: int | None
    """Keys to seal so that the weakest seed is recognised with the demanded power; None if no number is enough."""
    decided_at: tuple[int, ...]
    """Keys until *supported*, of each audit that ended so; for the plot of power against queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeSummary:
    """One scheme against everything it was tried on."""

    title: str
    suspects: tuple[SuspectSummary, ...]
    """The copy, then the attacks in planned order."""
    innocents: SuspectSummary | None
    false_claims: ErrorRate | None
    """*Supported* over innocent models, each counted once however many owners' keys it was asked."""
    recommended_keys: int | None
    """Keys that suffice for every attack that can be decided at all; None where none can."""
    hopeless: tuple[str, ...]
    """Suspects whose weakest seed no number of keys can recognise."""
    labels_alone: bool
    """Whether the forecasts are of first labels although ranks of scores took part in audits of drawn labels."""
    breaking_rate: float
    """Smallest hit rate at which the sealed test reaches the demanded power within the largest key set."""


def summarise(trials: Sequence[Trial], *, power: float) -> tuple[SchemeSummary, ...]:
    """Return one summary per scheme, in planned order.

    Args:
        trials: all planned trials of the dry run.
        power: demanded probability of *supported*, in (0, 1).
    """
    titles = list(dict.fromkeys(trial.spec.scheme_title for trial in trials))
    return tuple(
        _scheme(title, [trial for trial in trials if trial.spec.scheme_title == title], power=power) for title in titles
    )


def _scheme(title: str, trials: Sequence[Trial], *, power: float) -> SchemeSummary:
    records = [trial.record for trial in trials if trial.record is not None]
    needed = partial(keys_needed, power=power)
    names = list(dict.fromkeys(t.spec.suspect_title for t in trials if t.spec.role is not Role.INNOCENT))
    suspects = tuple(_suspect([t for t in trials if t.spec.suspect_title == name], needed) for name in names)
    innocent = [trial for trial in trials if trial.spec.role is Role.INNOCENT]
    tried = [summary for summary in suspects if summary.seed_rates]
    possible = [summary.keys_needed for summary in tried if summary.keys_needed is not None]
    return SchemeSummary(
        title=title,
        suspects=suspects,
        innocents=_suspect(innocent, needed) if innocent else None,
        false_claims=_false_claims(innocent),
        recommended_keys=max(possible) if possible else None,
        hopeless=tuple(summary.title for summary in tried if summary.keys_needed is None),
        labels_alone=any(NullBasis(record.null_basis).draws_labels for record in records),
        breaking_rate=breaking_rate(records, power=power),
    )


def _suspect(trials: Sequence[Trial], needed: Callable[[TrialRecord], int | None]) -> SuspectSummary:
    spec = trials[0].spec
    records = [trial.record for trial in trials if trial.record is not None]
    statuses = [record.status for record in records]
    supported = statuses.count(Status.SUPPORTED.value)
    rates = tuple(record.all_hits / record.n_keys for record in records)
    decided = [r.keys_until_decision for r in records if r.keys_until_decision is not None]
    return SuspectSummary(
        title=spec.suspect_title,
        role=spec.role,
        attack=spec.attack,
        strength=spec.strength,
        trials=len(records),
        failed=len(trials) - len(records),
        supported=supported,
        not_supported=statuses.count(Status.NOT_SUPPORTED.value),
        inconclusive=statuses.count(Status.INCONCLUSIVE.value),
        power=clopper_pearson(hits=supported, trials=len(records), confidence=CONFIDENCE) if records else None,
        accuracy_before=fmean(r.accuracy_before for r in records) if records else None,
        accuracy_after=fmean(r.accuracy_after for r in records) if records else None,
        hit_rate=sum(r.all_hits for r in records) / sum(r.n_keys for r in records) if records else None,
        seed_rates=rates,
        keys_until_decision=median(decided) if decided else None,
        keys_needed=_most([needed(record) for record in records]),
        decided_at=tuple(_decided_at(record) for record in records if record.status == Status.SUPPORTED.value),
    )


def _decided_at(record: TrialRecord) -> int:
    return record.asked if record.keys_until_decision is None else record.keys_until_decision


def _false_claims(innocent: Sequence[Trial]) -> ErrorRate | None:
    # Audits of one innocent with the keys of several owners share its quirks: the model is the unit.
    claimed: dict[str, bool] = {}
    for trial in innocent:
        if trial.record is not None and trial.spec.innocent is not None:
            key = trial.spec.innocent.key
            claimed[key] = claimed.get(key, False) or trial.record.status == Status.SUPPORTED.value
    if not claimed:
        return None
    return procedure_error(false_claims=sum(claimed.values()), models=len(claimed), confidence=CONFIDENCE)


def _most(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return max(known) if known and len(known) == len(counts) else None


def keys_needed(record: TrialRecord, *, power: float) -> int | None:
    """Return the keys to seal for a suspect like this one; None if no number within the limit is enough.

    Where labels were drawn, the answers that are bet on carry the evidence: the number needed of them is divided by
    their share.
    """
    if not NullBasis(record.null_basis).draws_labels:
        rate = record.all_hits / record.n_keys
        return keys_for_rate(rate, null_rate=record.null_rate, alpha=record.alpha, p_min=record.p_min, power=power)
    if record.all_bets == 0 or record.all_hits < record.p_min * record.n_keys:
        return None
    rate, share = record.all_hits / record.all_bets, record.all_bets / record.n_keys
    # Futility looks at all keys and is met by the demand above; among the answers bet on nothing gives up.
    counted = keys_for_rate(
        rate, null_rate=record.null_rate, alpha=record.alpha, p_min=rate, power=power, futility=FUTILITY_OFF
    )
    return None if counted is None else math.ceil(counted / share)


def keys_for_rate(
    rate: float, *, null_rate: float, alpha: float, p_min: float, power: float, futility: float = FUTILITY
) -> int | None:
    """Return the keys the sequential test needs at ``rate``; None if no number within the limit is enough."""
    if rate <= null_rate or null_rate >= p_min:
        return None
    highest = 1.0 - 1e-9
    question = Question(
        labels=LabelSpace.WRONG_LABEL,
        rate=min(rate, highest),
        null_rate=null_rate,
        alpha=alpha,
        power=power,
        p_min=min(p_min, highest),
        futility=futility,
    )
    return default_procedure(question).keys_for_power


def breaking_rate(records: Sequence[TrialRecord], *, power: float) -> float:
    """Return the smallest hit rate over all keys that the audits could recognise; 1 if there is none.

    Where labels were drawn this is the rate below which an audit gives up; otherwise it is found by bisection for the
    largest null rate that was met.
    """
    if not records:
        return 1.0
    worst = max(records, key=lambda record: record.null_rate)
    if NullBasis(worst.null_basis).draws_labels:
        return worst.p_min
    low, high = worst.null_rate, 1.0
    for _ in range(BREAKING_STEPS):
        middle = (low + high) / 2
        keys = keys_for_rate(middle, null_rate=worst.null_rate, alpha=worst.alpha, p_min=worst.p_min, power=power)
        low, high = (middle, high) if keys is None else (low, middle)
    return high
