"""How much a key set could show at best: sets that its draw could have produced, and the smallest p-value they allow.

The capacity says what nobody could have guessed or met by chance, before anything is asked. It never exceeds the
owner's seed, from which everything is drawn. A set whose generation nobody can repeat has none: its keys may have been
chosen, so that no number of sets stands behind them.
"""

from dataclasses import dataclass
from math import erf, log, log2, log10, sqrt

from auditor.analysis import basis_of
from auditor.patterns import GENERATORS, RIVAL_GENERATORS, TRIGGER_GENERATORS
from auditor.records import Design, Generator, InputSpec, NullBasis, Protocol
from auditor.stats import sequential

SEED_BITS = 256
"""Bits of the owner's seed; nothing drawn from it can be more uncertain."""
LOG10_2 = log10(2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the sealed draw and plan can show at best."""

    bits: float
    """log2 of the number of key sets that the draw could have produced, at most :data:`SEED_BITS`."""
    drawn: str
    """What was drawn, in words."""
    best_log10_p: float
    """log10 of the smallest p-value that the sealed procedure can report, all keys hit and all charges included."""
    reaches_level: bool
    """Whether that p-value is at most the sealed level; a plan that cannot reach it cannot support a claim."""


def capacity(protocol: Protocol, spec: InputSpec, generator: Generator) -> Capacity:
    """Return the capacity of a sealed plan.

    Args:
        protocol: the sealed protocol.
        spec: the task's input and label space.
        generator: how the key material was drawn.

    Notes:
        The p-value is the one of the sealed test on first labels; ranks of scores, where they take part, can add to
        it. A pattern counts the entropy of its values on the grid of grey levels, before clipping.
    """
    bits, drawn = _bits(protocol, spec, generator)
    best = _best_log10_p(protocol, spec, generator)
    # The test stops at the level that is left after the charges; the threshold itself is reached within rounding.
    return Capacity(
        bits=min(bits, float(SEED_BITS)),
        drawn=drawn,
        best_log10_p=best,
        reaches_level=best <= log10(protocol.alpha) + 1e-9,
    )


def _bits(protocol: Protocol, spec: InputSpec, generator: Generator) -> tuple[float, str]:
    n_classes = len(spec.classes)
    known = (generator.name, generator.version)
    if protocol.null_basis is NullBasis.DRAWN_TABLE:
        cells = _cells(spec, generator)
        return cells * log2(n_classes - 1), f"target classes of {cells} cells, {n_classes - 1} choices each"
    if known in TRIGGER_GENERATORS:
        return protocol.n_keys * log2(n_classes - 1), f"labels of {protocol.n_keys} keys, {n_classes - 1} choices each"
    if known in RIVAL_GENERATORS:
        return float(protocol.n_keys), f"one of two classes for each of {protocol.n_keys} keys"
    if known in GENERATORS:
        n_values = spec.shape[0] * spec.shape[1] * spec.shape[2]
        beta = generator.settings.get("beta")
        per_value = _grid_entropy(255.0 * float(beta)) if isinstance(beta, str) else 0.0
        return n_values * per_value, f"a pattern of {n_values} values, {per_value:.1f} bits each on the pixels' grid"
    return 0.0, "nothing: the generation cannot be repeated"


def _best_log10_p(protocol: Protocol, spec: InputSpec, generator: Generator) -> float:
    tries = protocol.grinding_log2 * LOG10_2
    basis = basis_of(protocol, spec)
    levels = basis.levels(protocol.alpha)
    if protocol.null_basis is NullBasis.DRAWN_TABLE:
        return min(0.0, tries - _cells(spec, generator) * log10(len(spec.classes) - 1))
    null_rate = basis.forecast_null(levels)
    if not basis.has_power(null_rate) or null_rate >= 1.0:
        return 0.0
    if protocol.design is Design.FIXED:
        log10_test = protocol.n_keys * log10(null_rate)
    else:
        # The e-value of nothing but hits grows with every key, so that the last one is the largest.
        log10_test = -float(sequential.log_e(protocol.n_keys, protocol.n_keys, null_rate)) / log(10.0)
    test = 10.0 ** max(-300.0, log10_test)
    total = test + levels.null_bound
    return min(0.0, tries + log10(total))


def _cells(spec: InputSpec, generator: Generator) -> int:
    bits = generator.settings.get("bits")
    return len(spec.classes) << (bits if isinstance(bits, int) and 0 <= bits <= 16 else 0)


def _grid_entropy(deviation: float) -> float:
    """Return the entropy in bits of a normal value of this standard deviation, rounded to whole numbers."""
    if not 0.0 < deviation < 1e4:
        return 0.0
    reach = int(10.0 * deviation) + 2
    scale = deviation * sqrt(2.0)
    shares = [0.5 * (erf((j + 0.5) / scale) - erf((j - 0.5) / scale)) for j in range(-reach, reach + 1)]
    return max(0.0, -sum(share * log2(share) for share in shares if share > 0.0))
