"""Numbers and outside text as a report prints them: short, aligned, harmless."""

import math
import unicodedata

MAX_TEXT = 200
"""Longest outside text printed in one place, in characters."""

# What the bundled fonts can draw; anything else is printed as its code point, so that the page never depends on
# the fonts of the machine that renders it.
_PRINTABLE = (
    (0x20, 0x7E),
    (0xA0, 0xAC),
    (0xAE, 0x17F),
    (0x384, 0x3CE),
    (0x2010, 0x2023),
    (0x2026, 0x2026),
    (0x2030, 0x2037),
    (0x2070, 0x209C),
    (0x2190, 0x2194),
    (0x2200, 0x2213),
    (0x2217, 0x2220),
    (0x2227, 0x222D),
    (0x2241, 0x2269),
    (0x2282, 0x228B),
    (0x2295, 0x22A5),
)
_OTHERS = frozenset("€№™⇐⇒⇔⋅■□●☐☑☒")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def clean(text: str, *, limit: int = MAX_TEXT) -> str:
    """Return outside text safe to print: control, bidi and undrawable characters become visible code points.

    Escaping for HTML is the template's job. Longer text is cut and its length stated.
    """
    kept = "".join(_visible(character) for character in text[:limit])
    return kept if len(text) <= limit else f"{kept} … [{len(text)} characters]"


def _visible(character: str) -> str:
    code = ord(character)
    drawable = any(low <= code <= high for low, high in _PRINTABLE) or character in _OTHERS
    if drawable and unicodedata.category(character) not in _HIDDEN_CATEGORIES:
        return character
    return f"[U+{code:04X}]"


def decimal(value: float, *, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits, in powers of ten outside [10⁻³, 10⁶)."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    if 1e-3 <= abs(value) < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{places}f}".replace("-", "−")
    return power_of_ten(math.log10(abs(value)), negative=value < 0)


def power_of_ten(log10_value: float, *, negative: bool = False) -> str:
    """Return 10**log10_value as ``a × 10ⁿ``, for exponents of any size."""
    exponent = math.floor(log10_value)
    mantissa = round(10 ** (log10_value - exponent), 1)
    if mantissa >= 10:
        mantissa, exponent = 1.0, exponent + 1
    sign = "−" if negative else ""
    power = f"10{str(exponent).translate(_SUPERSCRIPTS)}"
    return f"{sign}{power}" if mantissa == 1 else f"{sign}{mantissa:.1f} × {power}"


def ratio(log10_value: float) -> str:
    """Return 10**log10_value, plainly where that is short and in powers of ten where it is not."""
    return decimal(10**log10_value) if -3 <= log10_value < 6 else power_of_ten(log10_value)


def rate(value: float) -> str:
    """Return a share in [0, 1] with three decimals; tiny shares in powers of ten."""
    return f"{value:.3f}" if value == 0 or value >= 0.0005 else decimal(value, digits=2)


def p_value(log10_p: float) -> str:
    """Return a p-value; below 10⁻¹² only the bound is printed, as no model of chance is exact that far out."""
    if log10_p < -12:
        return "< 10⁻¹²"
    if log10_p < -3:
        return power_of_ten(log10_p)
    return "1" if log10_p >= 0 else f"{10**log10_p:.4f}"


def level(value: float) -> str:
    """Return an error level such as 10⁻⁶ or 0.01."""
    return power_of_ten(math.log10(value)) if 0 < value < 1e-3 else f"{value:g}"


def groups(hex_digest: str, *, size: int = 8) -> str:
    """Return a hex digest in groups that a person can compare."""
    return " ".join(hex_digest[i : i + size] for i in range(0, len(hex_digest), size))
