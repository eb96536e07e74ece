"""Checks that redraw the owner's secret instead of trusting a rate: label code and rank of the pattern."""

from collections.abc import Mapping

from auditor.analysis.base import Replies, count_hits, is_hit
from auditor.records import InputSpec, Protocol, Sample
from auditor.stats import randomization
from auditor.verdict import code_level

CODE_DRAWS = 99_999
CODE_SUSPICION = 0.2
"""Above this p-value of the first look nothing more is asked for the code's sake; not asking costs no level, and asking
one innocent suspect in seven all its keys catches the copies whose code was learned for few classes
(benchmarks/label_code.md)."""


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


def code_is_open(code: randomization.CodeOutcome | None, protocol: Protocol) -> bool:
    """Return whether a first look at the label code is suspicious without being conclusive.

    The remaining keys are then asked before an audit ends without hits: a suspect that dropped the new label would
    otherwise pass for innocent as soon as the missing hits allow it.
    """
    return code is not None and code_level(protocol) < code.p_value <= CODE_SUSPICION


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
