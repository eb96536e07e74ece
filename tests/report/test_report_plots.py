import math
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import pytest
from scipy.stats import binom

from auditor.report import plots


def _points(n):
    return [plots.EvidencePoint(n=i + 1, log10_e=i * 0.7, log10_futility=-i * 0.4) for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 24, 5000])
@pytest.mark.parametrize("sequential", [True, False])
def test_the_evidence_figure_is_well_formed_and_repeatable(n, sequential):
    arguments = {"alpha": 5e-7, "futility": 0.01, "p_min": "0.3", "sequential": sequential}
    svg = plots.evidence_figure(_points(n), **arguments)
    assert svg == plots.evidence_figure(_points(n), **arguments)
    ElementTree.fromstring(svg)
    assert len(svg) < 300_000


@pytest.mark.parametrize(
    ("hits", "trials", "rate"), [(0, 0, 0.1), (0, 24, 0.07), (24, 24, 0.0), (3, 3, 1.0), (9, 900, 0.01)]
)
def test_the_null_law_figure_is_well_formed_and_repeatable(hits, trials, rate):
    svg = plots.null_law_figure(hits=hits, trials=trials, null_rate=rate)
    assert svg == plots.null_law_figure(hits=hits, trials=trials, null_rate=rate)
    ElementTree.fromstring(svg)


@pytest.mark.parametrize(("trials", "rate"), [(24, 0.07), (120, 0.5), (5, 0.0), (5, 1.0), (1, 0.3)])
def test_the_drawn_law_is_the_binomial(trials, rate):
    law = plots._binomial_law(trials, rate)
    assert law == pytest.approx(binom.pmf(range(trials + 1), trials, rate), rel=1e-9, abs=1e-15)
    assert math.fsum(law) == pytest.approx(1)


def test_the_user_s_own_style_does_not_show():
    plain = plots.null_law_figure(hits=2, trials=24, null_rate=0.07)
    with mpl.rc_context({"lines.linewidth": 9.0, "axes.grid": True, "xtick.labelsize": 20}):
        assert plots.null_law_figure(hits=2, trials=24, null_rate=0.07) == plain
