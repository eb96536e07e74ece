"""Many questions: several suspects, key sets, schemes and audits, and the tries an owner may have made in secret.

Notes:
    p-values enter as log10 so that none underflows; e-values as log10 for the same reason. An e-value has mean at
    most 1 under its hypothesis. Which rule may be used depends on how the evidence is related:

    ========================================  =====================================================
    unknown dependence, p-values              :func:`holm`
    unknown dependence, e-values              :func:`average_log10_e` (one question), :func:`closed_log10_e`
                                              (each of several questions), :func:`e_bh` (screening many)
    secrets drawn independently of each       :func:`product_log10_e`, :func:`fisher_log10_p`
    other
    later audits with keys nobody has asked   :func:`continue_log10_e`
    ========================================  =====================================================
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditor.stats import special


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One earlier audit, as the owner's ledger records it."""

    serial: int
    """Serial number of the key set's seal, from 1."""
    suspect: str
    """What was audited: a digest or address that tells suspects apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvidence:
    """One audit of one suspect, as needed to go on with another."""

    log10_e: float
    """log10 of the e-value at the moment the audit stopped."""
    keys: frozenset[str]
    """Names of the keys asked; unique over all key sets."""
    revealed: frozenset[str]
    """Names of the keys whose labels anybody outside the owner and the examiner could know afterwards."""


def holm(log10_p: Sequence[float]) -> tuple[float, ...]:
    """Return Holm-adjusted p-values as log10, in the order given; valid under every dependence.

    Rejecting the questions whose adjusted value is at most the level keeps the probability of *any* false rejection
    at that level. Give every question that was asked, the unreported ones too.

    Raises:
        ValueError: a value above 0 or not a number.

    References:
        Holm (1979).
    """
    _check_log10_p(log10_p)
    adjusted = [0.0] * len(log10_p)
    running = -math.inf
    for rank, index in enumerate(sorted(range(len(log10_p)), key=lambda i: log10_p[i])):
        running = max(running, min(0.0, log10_p[index] + math.log10(len(log10_p) - rank)))
        adjusted[index] = running
    return tuple(adjusted)


def average_log10_e(log10_e: Sequence[float], *, weights: Sequence[float] | None = None) -> float:
    """Return log10 of the weighted mean of e-values, an e-value under every dependence.

    Args:
        log10_e: one value per question.
        weights: set before the answers were seen; not negative, sum 1. Equal when None.

    Raises:
        ValueError: nothing to average, a value that is not a number, or weights that do not sum to 1.

    References:
        Vovk and Wang (2021); up to a constant the only admissible merging rule.
    """
    _check_log10_e(log10_e)
    share = [1.0 / len(log10_e)] * len(log10_e) if weights is None else list(weights)
    if len(share) != len(log10_e) or min(share) < 0.0 or abs(math.fsum(share) - 1.0) > 1e-9:
        raise ValueError("weights must be given for every e-value, not negative, with sum 1")
    return _log10_sum([value + math.log10(weight) for value, weight in zip(log10_e, share, strict=True) if weight > 0])


def product_log10_e(log10_e: Sequence[float]) -> float:
    """Return log10 of the product; an e-value where each is one *given the others*, as for independent secrets.

    Several schemes whose keys were drawn from independent secrets qualify, because given everything else each
    suspect answers independently of the next secret. Two analyses of the same answers do not.

    Raises:
        ValueError: nothing to multiply, or a value that is not a number.
    """
    _check_log10_e(log10_e)
    # Evidence of zero stays zero, whatever it is multiplied with.
    return -math.inf if -math.inf in log10_e else math.fsum(log10_e)


def closed_log10_e(log10_e: Sequence[float]) -> tuple[float, ...]:
    """Return e-values adjusted by closed testing with averages, as log10, in the order given.

    The adjusted value of a question is the smallest average over all groups that contain it; rejecting those of at
    least 1/α keeps the probability of any false rejection at α under every dependence, and rejects at least as much
    as demanding K/α of each.

    Raises:
        ValueError: nothing given, or a value that is not a number.

    References:
        Vovk and Wang (2021), algorithm 1; the smallest average contains the question and the k smallest others.
    """
    _check_log10_e(log10_e)
    order = sorted(range(len(log10_e)), key=lambda i: log10_e[i])
    adjusted = [0.0] * len(log10_e)
    for index in order:
        others = [log10_e[i] for i in order if i != index]
        sums = [log10_e[index]]
        for value in others:
            sums.append(_log10_sum([sums[-1], value]))
        adjusted[index] = min(total - math.log10(k + 1) for k, total in enumerate(sums))
    return tuple(adjusted)


def e_bh(log10_e: Sequence[float], *, level: float) -> tuple[int, ...]:
    """Return the indices claimed by e-BH: expected share of false ones among them at most ``level``.

    For screening a marketplace, under every dependence (suspects that are copies of each other). A statement about
    one named suspect needs :func:`holm` or :func:`closed_log10_e` instead.

    Raises:
        ValueError: nothing given, a value that is not a number, or a level outside (0, 1).

    References:
        Wang and Ramdas (2022).
    """
    _check_log10_e(log10_e)
    if not 0.0 < level < 1.0:
        raise ValueError("level must lie strictly between 0 and 1")
    order = sorted(range(len(log10_e)), key=lambda i: -log10_e[i])
    needed = math.log10(len(order)) - math.log10(level)
    # Ties with the threshold count as reached; the slack is that of a logarithm's last digits.
    found = [k for k in range(1, len(order) + 1) if log10_e[order[k - 1]] >= needed - math.log10(k) - 1e-12]
    return tuple(sorted(order[: found[-1]])) if found else ()


def fisher_log10_p(log10_p: Sequence[float]) -> float:
    """Return log10 of Fisher's combined p-value; only for p-values from secrets drawn independently of each other.

    Uses the closed form of the χ² tail with an even number of degrees of freedom, in log space.

    Raises:
        ValueError: nothing given, a value above 0, or not a number.
    """
    _check_log10_p(log10_p)
    if not log10_p:
        raise ValueError("nothing to combine")
    x = -math.fsum(log10_p) * math.log(10)
    if math.isinf(x):
        return -math.inf
    j = np.arange(len(log10_p))
    return min(0.0, (float(special.logsumexp(special.xlogy(j, x) - special.gammaln(j + 1))) - x) / math.log(10))


def continue_log10_e(audits: Sequence[AuditEvidence]) -> float:
    """Return log10 of the evidence of several audits of one suspect, in the order they were made.

    e-values multiply, also when the wish to go on came from the earlier result, as long as each later audit asks
    only keys that were neither asked nor revealed before. p-values must not be continued in this way.

    Raises:
        ValueError: no audits, a value that is not a number, or a key that was used up by an earlier audit.
    """
    burned: set[str] = set()
    for number, audit in enumerate(audits, start=1):
        if not audit.keys:
            raise ValueError(f"audit {number} names no keys, so it cannot be continued from")
        if audit.keys & burned:
            raise ValueError(f"audit {number} asks keys that an earlier audit used up")
        burned |= audit.keys | audit.revealed
    return product_log10_e([audit.log10_e for audit in audits])


def family_size(*, serial: int, suspect: str, ledger: Sequence[LedgerEntry]) -> int:
    """Return how many questions the owner asked or could have asked, for Bonferroni's correction.

    Counts pairs of key set and suspect: everything in the ledger, and every key set up to ``serial`` against this
    suspect, because each of them might have been reported instead.

    Args:
        serial: number of the newest seal in the owner's ledger, from 1.
        suspect: the suspect of this claim, named as in the ledger.
        ledger: all audits made, reported or not.

    Raises:
        ValueError: a serial number below 1, or a ledger entry with a number that was never sealed.
    """
    if serial < 1:
        raise ValueError("serial numbers start at 1")
    if not all(1 <= entry.serial <= serial for entry in ledger):
        raise ValueError("the ledger names a seal that does not exist")
    asked = {(entry.serial, entry.suspect) for entry in ledger}
    return len(asked | {(number, suspect) for number in range(1, serial + 1)})


def charge_log10_p(log10_p: float, *, family: int = 1, tries_log2: float = 0.0) -> float:
    """Return log10 of min(1, p · family · 2^tries_log2): Bonferroni over questions and over tries made in secret.

    An owner who can try 2^g seeds before sealing gets the best of as many p-values; 64 is the allowance for drawing
    with no public randomness at all, 0 for a draw that used randomness published after the commitment.

    Raises:
        ValueError: p above 1, a family below 1, or a negative number of tries.
    """
    _check_log10_p([log10_p])
    _check_charge(family, tries_log2)
    return min(0.0, log10_p + math.log10(family) + tries_log2 * math.log10(2))


def charge_log10_e(log10_e: float, *, family: int = 1, tries_log2: float = 0.0) -> float:
    """Return log10 of e / (family · 2^tries_log2), the e-value after the same charge.

    Raises:
        ValueError: a value that is not a number, a family below 1, or a negative number of tries.
    """
    _check_log10_e([log10_e])
    _check_charge(family, tries_log2)
    return log10_e - math.log10(family) - tries_log2 * math.log10(2)


def p_from_e(log10_e: float) -> float:
    """Return log10 of the p-value min(1, 1/e).

    Raises:
        ValueError: a value that is not a number.
    """
    _check_log10_e([log10_e])
    return min(0.0, -log10_e) + 0.0


def e_from_p(log10_p: float) -> float:
    """Return log10 of the e-value (1 - p + p ln p) / (p ln² p) that every p-value can be turned into.

    The mixture of κ p^(κ-1) over κ in (0, 1). It loses much: p = 1e-6 becomes about 5e3, so tests that have their own
    e-value keep it.

    Raises:
        ValueError: a value above 0 or not a number.
    """
    _check_log10_p([log10_p])
    if log10_p == -math.inf:
        return math.inf
    x = -log10_p * math.log(10)
    if x < 1e-4:
        # The quotient of two small differences is 1/2 + x/6 + …; the closed form would be rounding noise.
        return math.log10(0.5 + x / 6.0)
    p = math.exp(-x)
    return (math.log((1.0 - p) - p * x) + x - 2.0 * math.log(x)) / math.log(10)


def _log10_sum(values: Sequence[float]) -> float:
    top = max(values)
    if math.isinf(top):
        return top
    return top + math.log10(math.fsum(10.0 ** (value - top) for value in values))


def _check_log10_p(values: Sequence[float]) -> None:
    # Written so that "not a number" fails the comparison too.
    if not all(value <= 0.0 for value in values):
        raise ValueError("p-values must be given as log10, at most 0")


def _check_log10_e(values: Sequence[float]) -> None:
    if not values:
        raise ValueError("no e-values were given")
    if any(math.isnan(value) or value == math.inf for value in values):
        raise ValueError("e-values must be given as log10 of finite numbers")


def _check_charge(family: int, tries_log2: float) -> None:
    if family < 1 or not 0.0 <= tries_log2 < math.inf:
        raise ValueError("a family has at least one member, and the number of tries cannot be negative")
