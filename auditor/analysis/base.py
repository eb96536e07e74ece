"""What every null basis shares: how the level is spent, what the replies are, and what the verdict depends on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

from auditor.records import Design, InputSpec, Protocol, Reply, Sample, SampleKind
from auditor.stats import exact, randomization, sequential
from auditor.stats.drawn_scores import RankShare
from auditor.stats.placebo import PlaceboOutcome
from auditor.verdict import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """How the level of the claim is spent."""

    claim: float
    """Level after the grinding allowance."""
    null_bound: float
    """Error probability of the null rate's upper bound."""
    test: float
    """Level of the test at that bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Null:
    """The null rate and where it comes from."""

    rate: float
    bound: float
    hits: int
    trials: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The state of the test after the replies so far."""

    rejected: bool
    futile: bool
    outcome: sequential.SequentialOutcome | None
    """None when the null rate leaves the test without power, or when no key was asked."""
    ranks: RankShare | None = None
    """What the ranks of the suspect's scores contributed; None where they take no part."""
    uninformative: bool = False
    """True where the answers reveal so little that not rejecting says nothing against the claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """Replies sorted by what they are for; order within each group is the asked order."""

    keys: tuple[Reply, ...]
    shams: tuple[Reply, ...]
    controls: tuple[Reply, ...]
    repeats: tuple[Reply, ...]

    @property
    def everything(self) -> tuple[Reply, ...]:
        """All issued probes."""
        return self.keys + self.shams + self.controls + self.repeats

    @property
    def n_failed(self) -> int:
        """Issued probes without an answer."""
        return sum(reply.answer is None for reply in self.everything)


def sort_replies(replies: Sequence[Reply]) -> Replies:
    """Sort replies into keys, shams, controls and repeats."""
    first = [reply for reply in replies if not reply.probe.repeat]
    return Replies(
        keys=tuple(r for r in first if r.probe.kind is SampleKind.KEY),
        shams=tuple(r for r in first if r.probe.kind is SampleKind.SHAM),
        controls=tuple(r for r in first if r.probe.kind is SampleKind.CONTROL),
        repeats=tuple(r for r in replies if r.probe.repeat),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placebo:
    """The sealed test run again on keys that were never drawn, with this suspect's recorded answers."""

    what: str
    """What was put in the place of the sealed draw."""
    outcome: PlaceboOutcome
    exact_rank: bool
    """Whether the rank among the placebo draws is an exact p-value; see :mod:`auditor.stats.placebo_labels`."""
    reach_log10_e: float | None = None
    """Largest log10 e-value that one placebo draw could have reached; None where it is as large as for the keys."""


class Basis(ABC):
    """One source of randomness that a null rate can rest on; holds the sealed protocol and the task.

    ``panel_rate`` is an upper bound of the rate at which independent models hit, 0.0 without a panel. A measured null
    rate is never set below it; a rate that the draw supplies does not need it.

    A variant says how the level is spent, what the null rate is, which answers are bet on, and what the sequential
    rule does at a given hit rate. Everything else, validity facts and verdict included, is the same for all.
    """

    def __init__(self, protocol: Protocol, spec: InputSpec, *, panel_rate: float = 0.0) -> None:
        self.protocol = protocol
        self.spec = spec
        self.panel_rate = panel_rate

    @abstractmethod
    def levels(self, alpha: float) -> Levels:
        """Split the level ``alpha`` of the claim, after charging the declared grinding allowance."""

    @abstractmethod
    def forecast_null(self, levels: Levels) -> float:
        """Return the null rate that an audit of an unchanged copy will have, as far as it is known beforehand."""

    @abstractmethod
    def measure_null(self, grouped: Replies, samples: Mapping[int, Sample], levels: Levels) -> Null:
        """Return the null rate of the answers that are bet on."""

    @abstractmethod
    def key_outcomes(self, grouped: Replies, samples: Mapping[int, Sample]) -> tuple[bool | None, ...]:
        """Return for every key asked whether it hit, False where its answer is missing, None where nothing is bet."""

    @abstractmethod
    def has_power(self, null_rate: float) -> bool:
        """Return whether the sealed test can decide anything at this null rate."""

    @abstractmethod
    def futility_rate(self, null_rate: float) -> float:
        """Return the rate of an innocent suspect that the futility stop sets against ``p_min``."""

    def decide(self, grouped: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels) -> Decided:
        """Run the sealed test over the keys answered so far."""
        protocol = self.protocol
        if not grouped.keys or not self.has_power(null.rate):
            return Decided(rejected=False, futile=False, outcome=None)
        outcomes = self.key_outcomes(grouped, samples)
        outcome = sequential.run(
            outcomes,
            null_rate=null.rate,
            alpha=levels.test,
            p_min=protocol.p_min,
            futility=protocol.futility,
            futility_rate=self.futility_rate(null.rate),
        )
        if protocol.design is Design.FIXED:
            rejected = len(outcomes) == protocol.n_asked and fixed_log10_p(outcome, null.rate) <= log10(levels.test)
            return Decided(rejected=rejected, futile=False, outcome=outcome)
        return Decided(
            rejected=outcome.decision is sequential.Decision.REJECT,
            futile=outcome.decision is sequential.Decision.FUTILE,
            outcome=outcome,
        )

    def placebo(self, grouped: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels) -> Placebo | None:
        """Return the test run again on placebo draws; None where nothing was asked that could be drawn again."""
        return None

    def operating(self, *, rate: float, null_rate: float, levels: Levels, cap: int) -> sequential.Operating:
        """Return what the sealed sequential rule does on a suspect that hits this share of all keys.

        Raises:
            ValueError: the null rate leaves the test without power, or a rate or number is out of range.
        """
        return sequential.operating(
            rate=rate,
            null_rate=null_rate,
            alpha=levels.test,
            p_min=self.protocol.p_min,
            futility=self.protocol.futility,
            cap=cap,
            futility_rate=self.futility_rate(null_rate),
        )

    def forecast_power(self, *, levels: Levels, cap: int) -> float:
        """Return the chance of *supported* on an unchanged copy within ``cap`` keys, at the sealed hit rate."""
        protocol, null_rate = self.protocol, self.forecast_null(levels)
        if not self.has_power(null_rate) or protocol.forecast_rate <= null_rate:
            return 0.0
        if protocol.design is Design.FIXED:
            return fixed_power(
                trials=protocol.n_keys, null_rate=null_rate, alpha=levels.test, rate=protocol.forecast_rate
            )
        return self.operating(rate=protocol.forecast_rate, null_rate=null_rate, levels=levels, cap=cap).reject


def fixed_log10_p(outcome: sequential.SequentialOutcome, null_rate: float) -> float:
    """Return log10 of the exact binomial tail over the answers that were bet on; 0.0 without answers."""
    if not outcome.steps:
        return 0.0
    last = outcome.steps[-1]
    return exact.binomial_tail_log10(hits=last.hits, trials=last.bets, rate=null_rate) if last.bets else 0.0


def fixed_power(*, trials: int, null_rate: float, alpha: float, rate: float) -> float:
    """Return the probability of a claim by the exact binomial test, if every answer is bet on; 0.0 without power."""
    critical = exact.critical_hits(trials=trials, rate=null_rate, alpha=alpha)
    if critical is None:
        return 0.0
    return float(10.0 ** exact.binomial_tail_log10(hits=critical, trials=trials, rate=rate))


def gather_facts(
    grouped: Replies,
    samples: Mapping[int, Sample],
    protocol: Protocol,
    *,
    null: Null,
    decided: Decided,
    code: randomization.CodeOutcome | None,
    closed_reason: str,
    contestable: bool = False,
    claimed: frozenset[int] | None = None,
) -> Facts:
    """Return the numbers the verdict depends on.

    ``claimed`` are the classes that a calibration found a label for; only their controls can be answered rightly, and
    only they count. None counts all.
    """
    first_answers = {r.probe.index: r.answer for r in grouped.keys + grouped.shams + grouped.controls}
    compared = [
        (r.answer.label, first.label)
        for r in grouped.repeats
        if r.answer is not None and (first := first_answers.get(r.probe.index)) is not None
    ]
    answered_controls = [r for r in claimed_controls(grouped, samples, claimed) if r.answer is not None]
    opening_keys = grouped.keys[: protocol.opening_keys]
    opening = opening_keys + grouped.shams + grouped.controls + grouped.repeats
    n_planned = protocol.opening_keys + protocol.n_shams + protocol.n_controls + protocol.n_repeats
    return Facts(
        interrupted=closed_reason == "interrupted",
        opening_complete=len(opening) == n_planned,
        opening_failed_share=sum(r.answer is None for r in opening) / len(opening) if opening else 1.0,
        obstruction_log10_p=_obstruction(grouped),
        control_accuracy=(
            sum(is_hit(r, samples) for r in answered_controls) / len(answered_controls) if answered_controls else None
        ),
        disagreement=sum(a != b for a, b in compared) / len(compared) if compared else 0.0,
        null_rate=null.rate,
        rejected=decided.rejected,
        futile=decided.futile,
        design_exhausted=protocol.design is Design.FIXED and len(grouped.keys) == protocol.n_asked,
        code_p_value=None if code is None else code.p_value,
        uninformative=decided.uninformative,
        contestable=contestable,
    )


def claimed_controls(
    grouped: Replies, samples: Mapping[int, Sample], claimed: frozenset[int] | None
) -> tuple[Reply, ...]:
    """Return the controls of the claimed classes; all of them for None."""
    if claimed is None:
        return grouped.controls
    return tuple(reply for reply in grouped.controls if samples[reply.probe.index].natural in claimed)


def is_hit(reply: Reply, samples: Mapping[int, Sample]) -> bool:
    """Return whether the answer is the sealed label; no answer is no hit."""
    return reply.answer is not None and reply.answer.label == samples[reply.probe.index].expected


def count_hits(replies: Sequence[Reply], samples: Mapping[int, Sample]) -> int:
    """Return the number of hits."""
    return sum(is_hit(reply, samples) for reply in replies)


def _is_usable(reply: Reply) -> bool:
    """Return whether an answer came that its own scores do not contradict.

    A service that hides a mark may rewrite the label it states and forget the scores beside it.
    """
    return reply.answer is not None and not reply.answer.contradicts_itself


def _obstruction(grouped: Replies) -> float:
    if not grouped.keys or not grouped.controls:
        return 0.0
    return exact.fisher_log10_p(
        hits_a=sum(not _is_usable(r) for r in grouped.keys),
        trials_a=len(grouped.keys),
        hits_b=sum(not _is_usable(r) for r in grouped.controls),
        trials_b=len(grouped.controls),
    )
