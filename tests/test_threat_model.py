"""The threat model names tests, attacks and pages that exist, and every attack of both red teams."""

import re
from pathlib import Path

import pytest

from auditor.attacks import ATTACKS, catalogue

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def test_every_named_test_exists():
    named = set(re.findall(r"`(tests/[\w/.]+)`", PAGE))
    assert len(named) > 15
    for name in named:
        assert (ROOT / name).exists(), name


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_every_named_attack_is_a_preset_or_an_attack():
    named = set(re.findall(r"`([a-z]+(?:/[a-z0-9-]+)?)`", PAGE))
    known = set(ATTACKS) | set(catalogue())
    found = {name for name in named if name.partition("/")[0] in ATTACKS}
    assert {"unlearn", "invert", "extract/filtered", "extract/smoothed", "ensemble/outvoted"} <= found <= known


@pytest.mark.parametrize(
    "name",
    [
        "TransferableTriggers", "SuspectAtHand", "ManyTries", "Afterwards", "OrdinaryImages", "PatternsThatHitAsAWhole",
        "RejectClass",
    ],
)  # fmt: skip
def test_the_accusers_red_team_is_whole(name):
    # Each group of attacks stays, and stays on the page.
    tests = (ROOT / "tests" / "accusers" / "test_accusers.py").read_text()
    assert f"class Test{name}:" in tests
    assert "tests/accusers/test_accusers.py" in PAGE
