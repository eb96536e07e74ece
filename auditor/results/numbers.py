"""Numbers for readers, from logarithms that no float can hold."""

from math import isinf, log10

LOG10_2 = log10(2.0)


def power_of_ten(log10_value: float) -> str:
    """Return 10**x for readers: three digits where a float can hold it, else a power of ten; never zero."""
    if isinf(log10_value):
        return "0" if log10_value < 0 else "inf"
    if -300 < log10_value < 300:
        return f"{10.0**log10_value:.3g}"
    return f"10^{log10_value:.1f}"


def log10_sum(a: float, b: float) -> float:
    """Return log10(10**a + 10**b); either may be minus infinity."""
    high, low = max(a, b), min(a, b)
    return high + log10(1.0 + 10.0 ** (low - high)) if not isinf(low) else high
