import math

import pytest

from auditor.report import text
from auditor.report.home import home


@pytest.mark.parametrize(("value", "printed"), [
    (0.0, "0"), (1.0, "1.00"), (13.858, "13.9"), (0.05, "0.0500"), (123456.0, "123,456"), (1e-6, "10⁻⁶"),
    (5e-7, "5.0 × 10⁻⁷"), (-2.5, "−2.50"), (math.inf, "∞"), (9.99e9, "10¹⁰"), (2.5e12, "2.5 × 10¹²"),
])  # fmt: skip
def test_decimal(value, printed):
    assert text.decimal(value) == printed


@pytest.mark.parametrize(("log10_p", "printed"), [
    (0.0, "1"), (-0.5, "0.3162"), (-6.0, "10⁻⁶"), (-12.5, "< 10⁻¹²"), (-5000.0, "< 10⁻¹²"), (-math.inf, "< 10⁻¹²"),
])  # fmt: skip
def test_p_value(log10_p, printed):
    assert text.p_value(log10_p) == printed


@pytest.mark.parametrize(("log10_value", "printed"), [
    (0.5, "3.16"), (20.0, "10²⁰"), (-4000.3, "5.0 × 10⁻⁴⁰⁰¹"), (2.9999999, "1,000"),
])  # fmt: skip
def test_ratio_survives_any_exponent(log10_value, printed):
    assert text.ratio(log10_value) == printed


@pytest.mark.parametrize(("raw", "printed"), [
    ("plain", "plain"), ("é ß α ≤ ∞", "é ß α ≤ ∞"), ("a\nb", "a[U+000A]b"), ("\u200b", "[U+200B]"),
    ("\u202e", "[U+202E]"), ("\ufeff", "[U+FEFF]"), ("\u00ad", "[U+00AD]"), ("😀", "[U+1F600]"), ("\ud800", "[U+D800]"),
])  # fmt: skip
def test_clean(raw, printed):
    assert text.clean(raw) == printed


def test_everything_clean_lets_through_is_in_every_bundled_font():
    from fontTools.ttLib import TTFont

    from auditor.report.html import FONTS, templates_folder

    let_through = {code for code in range(0x20, 0x3000) if text.clean(chr(code)) == chr(code)}
    for _, _, name in FONTS:
        font = TTFont(templates_folder() / "fonts" / name)
        missing = let_through - set(font.getBestCmap())
        font.close()
        assert not [hex(code) for code in missing]


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDITOR_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("AUDITOR_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert home() == tmp_path / "config" / "auditor"
    monkeypatch.setattr("sys.platform", "darwin")
    assert home().parts[-2:] == ("Application Support", "auditor")
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("APPDATA", str(tmp_path / "roaming"))
    assert home() == tmp_path / "roaming" / "auditor"
