"""What the replies say: null rate, state of the test, validity facts; shared by ``verify`` while asking and after.

The guarantee, for schemes whose hit is "the answer equals the sealed label": if the suspect's hit rate on keys is at
most its rate on sham patterns or the sealed floor, the probability that the sealed test ever rejects is at most the
level. The level is split: ``null_share`` of it pays for the upper confidence bound of the null rate, the rest for the
e-process at that bound, so the two add up to it (docs/adr/0001).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

from auditor.records import Design, InputSpec, Protocol, Reply, Sample, SampleKind
from auditor.stats import exact, randomization, sequential
from auditor.verdict import Facts

CODE_DRAWS = 99_999


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


def spend(alpha: float, protocol: Protocol) -> Levels:
    """Split the level ``alpha`` between null bound and test, after charging the declared grinding allowance."""
    claim = alpha * 2.0**-protocol.grinding_log2
    return Levels(claim=claim, null_bound=claim * protocol.null_share, test=claim * (1 - protocol.null_share))


def sort_replies(replies: Sequence[Reply]) -> Replies:
    """Sort replies into keys, shams, controls and repeats."""
    first = [reply for reply in replies if not reply.probe.repeat]
    return Replies(
        keys=tuple(r for r in first if r.probe.kind is SampleKind.KEY),
        shams=tuple(r for r in first if r.probe.kind is SampleKind.SHAM),
        controls=tuple(r for r in first if r.probe.kind is SampleKind.CONTROL),
        repeats=tuple(r for r in replies if r.probe.repeat),
    )


def measure_null(sorted_replies: Replies, samples: Mapping[int, Sample], levels: Levels, protocol: Protocol) -> Null:
    """Return the null rate: the larger of the sealed floor and the shams' exact upper bound on this suspect.

    A sham without an answer counts as a hit, because a suspect that hides sham answers must not lower the bound.
    """
    missing = sum(reply.answer is None for reply in sorted_replies.shams)
    hits = missing + sum(is_hit(reply, samples) for reply in sorted_replies.shams)
    trials = len(sorted_replies.shams)
    bound = exact.upper_bound_at(hits=hits, trials=trials, error=levels.null_bound) if trials else 1.0
    return Null(rate=max(protocol.null_floor, bound), bound=bound, hits=hits, trials=trials, missing=missing)


def decide_keys(
    sorted_replies: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels, protocol: Protocol
) -> Decided:
    """Run the sealed test over the keys answered so far; a key without an answer counts as a miss."""
    hits = [is_hit(reply, samples) for reply in sorted_replies.keys]
    if null.rate >= protocol.p_min or not hits:
        return Decided(rejected=False, futile=False, outcome=None)
    outcome = sequential.run(
        hits, null_rate=null.rate, alpha=levels.test, p_min=protocol.p_min, futility=protocol.futility
    )
    if protocol.design is Design.FIXED:
        tail = exact.binomial_tail_log10(hits=sum(hits), trials=len(hits), rate=null.rate)
        rejected = len(hits) == protocol.n_keys and tail <= log10(levels.test)
        return Decided(rejected=rejected, futile=False, outcome=outcome)
    return Decided(
        rejected=outcome.decision is sequential.Decision.REJECT,
        futile=outcome.decision is sequential.Decision.FUTILE,
        outcome=outcome,
    )


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
) -> Facts:
    """Return the numbers the verdict depends on."""
    first_answers = {r.probe.index: r.answer for r in grouped.keys + grouped.shams + grouped.controls}
    compared = [
        (r.answer.label, first.label)
        for r in grouped.repeats
        if r.answer is not None and (first := first_answers.get(r.probe.index)) is not None
    ]
    answered_controls = [r for r in grouped.controls if r.answer is not None]
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
        design_exhausted=protocol.design is Design.FIXED and len(grouped.keys) == protocol.n_keys,
        code_p_value=None if code is None else code.p_value,
        contestable=contestable,
    )


def is_hit(reply: Reply, samples: Mapping[int, Sample]) -> bool:
    """Return whether the answer is the sealed label; no answer is no hit."""
    return reply.answer is not None and reply.answer.label == samples[reply.probe.index].expected


def count_hits(replies: Sequence[Reply], samples: Mapping[int, Sample]) -> int:
    """Return the number of hits."""
    return sum(is_hit(reply, samples) for reply in replies)


def _obstruction(grouped: Replies) -> float:
    if not grouped.keys or not grouped.controls:
        return 0.0
    return exact.fisher_log10_p(
        hits_a=sum(r.answer is None for r in grouped.keys),
        trials_a=len(grouped.keys),
        hits_b=sum(r.answer is None for r in grouped.controls),
        trials_b=len(grouped.controls),
    )


def label_code(
    grouped: Replies, samples: Mapping[int, Sample], spec: InputSpec, protocol: Protocol
) -> randomization.CodeOutcome | None:
    """Return the label-code test, or None where keys carry no code or the new label was answered at all."""
    # The code is consulted only where the new label never shows: the sealed plan decides, not a later choice.
    answered = [r for r in grouped.keys if r.answer is not None]
    coded = answered and all(samples[r.probe.index].code >= 0 for r in answered)
    if not coded or count_hits(answered, samples):
        return None
    return randomization.derangement_test(
        natural=[samples[r.probe.index].natural for r in answered],
        answers=[r.answer.label for r in answered if r.answer is not None],
        code=[samples[r.probe.index].code for r in answered],
        n_classes=len(spec.classes),
        seed=bytes.fromhex(protocol.order_seed),
        draws=CODE_DRAWS,
    )


def pattern_rank(
    grouped: Replies, samples: Mapping[int, Sample], protocol: Protocol
) -> randomization.RankOutcome | None:
    """Return the exact rank of the owner's pattern among the sham patterns, over the same number of images each."""
    hits_of: dict[int, int] = {}
    asked_of: dict[int, int] = {}
    for reply in grouped.shams:
        pattern = samples[reply.probe.index].pattern
        hits_of[pattern] = hits_of.get(pattern, 0) + is_hit(reply, samples)
        asked_of[pattern] = asked_of.get(pattern, 0) + 1
    if not hits_of or len(set(asked_of.values())) != 1:
        return None
    per_pattern = next(iter(asked_of.values()))
    if len(grouped.keys) < per_pattern:
        return None
    own = count_hits(grouped.keys[:per_pattern], samples)
    return randomization.pattern_rank(own_hits=own, sham_hits=[hits_of[p] for p in sorted(hits_of)])
