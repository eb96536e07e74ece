"""Our special functions against scipy's and, where that is not exact either, against 40-digit arithmetic."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special as scipy_special

from auditor.stats import special

shapes = st.floats(0.5, 2e4)
inside = st.floats(1e-9, 1.0, exclude_max=True)


@given(shapes, shapes, inside)
def test_the_incomplete_beta_function_agrees_with_scipy_on_both_sides(a, b, x):
    for name in ("betainc", "betaincc"):
        want = float(getattr(scipy_special, name)(a, b, x))
        assert getattr(special, name)(a, b, x) == pytest.approx(want, rel=2e-11, abs=1e-250)


@given(shapes, shapes, inside)
def test_arrays_give_what_numbers_give(a, b, x):
    for function in (special.betainc, special.betaincc):
        got = function(np.asarray([a, 3.0]), b, np.asarray([x, 0.25]))
        assert got[0] == pytest.approx(function(a, b, x), rel=1e-12, abs=1e-250)
        assert got[1] == pytest.approx(function(3.0, b, 0.25), rel=1e-12, abs=1e-250)


def test_the_incomplete_beta_function_agrees_with_forty_digits():
    rng = np.random.default_rng(5)
    with mpmath.workdps(40):
        for _ in range(60):
            a, b = (float(v) for v in np.exp(rng.uniform(math.log(0.5), math.log(3000), 2)))
            x = float(np.clip(rng.beta(a, b), 1e-9, 1 - 1e-9))
            want = mpmath.betainc(a, b, 0, x, regularized=True)
            assert special.betainc(a, b, x) == pytest.approx(float(want), rel=2e-12)
            assert special.betaincc(a, b, x) == pytest.approx(float(1 - want), rel=2e-12)


@pytest.mark.parametrize(("a", "b", "x", "want"), [
    (2.0, 3.0, 0.0, 0.0), (2.0, 3.0, 1.0, 1.0), (0.0, 3.0, 0.2, 1.0), (3.0, 0.0, 0.2, 0.0), (1.0, 1.0, 0.3, 0.3),
])  # fmt: skip
def test_the_ends_of_the_incomplete_beta_function(a, b, x, want):
    for got in (special.betainc(a, b, x), special.betainc([a, a], b, x)[0]):
        assert got == pytest.approx(want, abs=1e-15)
    for got in (special.betaincc(a, b, x), special.betaincc([a, a], b, x)[0]):
        assert got == pytest.approx(1.0 - want, abs=1e-15)


@given(st.integers(1, 5000), st.data(), st.floats(1e-14, 1 - 1e-9))
def test_inverses_agree_with_scipy(trials, data, y):
    hits = data.draw(st.integers(1, trials))
    want = float(scipy_special.betaincinv(hits, trials - hits + 1, y))
    assert special.betaincinv(hits, trials - hits + 1, y) == pytest.approx(want, rel=1e-10)
    want = float(scipy_special.betainccinv(hits, trials - hits + 1, y))
    assert special.betainccinv(hits, trials - hits + 1, y) == pytest.approx(want, rel=1e-10)


def test_inverses_far_out_and_at_the_ends():
    assert special.betaincinv(2489, 97512, 0.025) == pytest.approx(scipy_special.betaincinv(2489, 97512, 0.025))
    small = special.betainccinv(1, 10**6, 1e-9)
    assert small == pytest.approx(-math.expm1(math.log(1e-9) / 10**6), rel=1e-12)
    assert (special.betaincinv(2, 3, 0.0), special.betaincinv(2, 3, 1.0)) == (0.0, 1.0)
    assert (special.betainccinv(2, 3, 0.0), special.betainccinv(2, 3, 1.0)) == (1.0, 0.0)


@given(st.floats(0.5, 1e6), st.floats(0.5, 1e6))
def test_the_beta_function_agrees_with_forty_digits(a, b):
    with mpmath.workdps(40):
        want = float(mpmath.log(mpmath.beta(a, b)))
    assert special.betaln(a, b) == pytest.approx(want, rel=1e-14, abs=1e-14)
    assert special.betaln([a], [b])[0] == pytest.approx(want, rel=1e-14, abs=1e-14)


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=20))
def test_sums_of_exponentials_agree_with_scipy(values):
    assert special.logsumexp(values) == pytest.approx(float(scipy_special.logsumexp(values)), rel=1e-14, abs=1e-14)
    table = np.asarray([values, values[::-1]])
    np.testing.assert_allclose(
        special.logsumexp(table, axis=1), scipy_special.logsumexp(table, axis=1), rtol=1e-14, atol=1e-14
    )


def test_small_functions_agree_with_scipy_at_their_ends():
    assert special.logsumexp([]) == special.logsumexp([-math.inf, -math.inf]) == -math.inf
    x, y = np.asarray([0.0, 0.0, 1.0, 2.5, 3.0]), np.asarray([0.0, 2.0, 0.5, 2.5, 0.0])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(special.xlogy(x, y), scipy_special.xlogy(x, y), rtol=1e-15)
        np.testing.assert_allclose(special.xlog1py(x, -y / 4), scipy_special.xlog1py(x, -y / 4), rtol=1e-15)
        np.testing.assert_allclose(special.rel_entr(x, y), scipy_special.rel_entr(x, y), rtol=1e-15)
    np.testing.assert_allclose(special.gammaln([0.5, 1, 7, 1e6]), scipy_special.gammaln([0.5, 1, 7, 1e6]), atol=1e-15)
    p = np.asarray([0.0, 1e-12, 0.3, 0.5, 1 - 1e-12, 1.0])
    np.testing.assert_allclose(special.ndtri(p), scipy_special.ndtri(p), rtol=1e-13, atol=1e-15)


@given(st.floats(0.001, 0.999))
def test_roots_are_found_to_the_last_digits(root):
    assert special.bracketed_root(lambda x: x**3 - root**3, 0.0, 1.0) == pytest.approx(root, rel=1e-13)


def test_a_bracket_without_a_root_is_refused_and_a_root_at_its_end_is_found():
    with pytest.raises(ValueError, match="one sign"):
        special.bracketed_root(lambda x: x + 1.0, 0.0, 1.0)
    assert special.bracketed_root(lambda x: x, 0.0, 1.0) == 0.0
    assert special.bracketed_root(lambda x: x - 1.0, 0.0, 1.0) == 1.0


def test_what_does_not_converge_is_an_error_and_no_number(monkeypatch):
    monkeypatch.setattr(special, "_MAX_TERMS", 2)
    for a in (50.0, [50.0, 60.0]):
        with pytest.raises(ArithmeticError):
            special.betainc(a, 50.0, 0.5)
