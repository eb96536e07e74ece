"""Thieves who know the scheme, but not the secret, up to the verdict; powers and costs: benchmarks/thieves.md."""

from dataclasses import replace

import pytest

from auditor.study.making import audit_suspect, make_innocent, make_owner
from auditor.study.trials import InnocentSpec, OwnerSpec, Role, TrialSpec

NEW_LABEL = OwnerSpec(
    data="digits", scheme="new-label", settings={"label_code": "off"}, architecture="mlp", seed=5
)  # fmt: skip
MARGIN = OwnerSpec(data="digits", scheme="margin", settings={}, architecture="small-cnn", seed=1, epochs=20)
AFTERWARDS = {"epochs": 10, "batch_size": 64, "learning_rate": 0.01, "threads": 1}
FROM_NOTHING = {"epochs": 30, "threads": 1}
MOST_POINTS = 5.0
"""Of task accuracy that a removal may cost here: one that destroys the model says nothing."""

RELABEL = ("unlearn", {"copies": 2, "beta": 0.3, **AFTERWARDS})
DROP = ("unlearn", {"drop_outputs": True, "copies": 0, **AFTERWARDS})
PRUNE = ("prune", {"rate": 0.8, **AFTERWARDS})
HARDEN = ("adversarial", {"radius": 0.1, "step": 0.025, "steps": 3, "clean_share": 0.5, **AFTERWARDS})
EXTRACT = ("extract", {"taught": "soft", **FROM_NOTHING})
OUTVOTE = ("ensemble", {"combination": "majority", "n_others": 2, **FROM_NOTHING})


@pytest.fixture(scope="module")
def made():
    return {owner.scheme: make_owner(owner) for owner in (NEW_LABEL, MARGIN)}


def trial(owner, attack, settings):
    return TrialSpec(
        owner=owner, scheme_title=owner.scheme, role=Role.SURROGATE, suspect_title=attack, attack=attack,
        attack_settings=settings,
    )  # fmt: skip


@pytest.mark.parametrize("attack", [RELABEL, PRUNE, HARDEN], ids=["relabel", "prune", "harden"])
def test_a_new_label_survives_who_does_not_know_it(made, attack):
    found = audit_suspect(trial(NEW_LABEL, *attack), made["new-label"])
    assert (found.status, found.reason) == ("supported", "null-rejected")
    assert found.accuracy_after > found.accuracy_before - MOST_POINTS / 100


@pytest.mark.parametrize("attack", [DROP, EXTRACT, OUTVOTE], ids=["drop", "extract", "outvote"])
def test_stated_limit_a_new_label_without_a_label_code_goes_with_its_output_or_by_extraction(made, attack):
    found = audit_suspect(trial(NEW_LABEL, *attack), made["new-label"])
    # How few hits are left differs from one draw to the next; none of them carries a claim.
    assert (found.status, found.reason) in (
        ("not supported", "hit-rate-excluded"), ("inconclusive", "budget-exhausted"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "attack", [RELABEL, PRUNE, HARDEN, EXTRACT, OUTVOTE], ids=["relabel", "prune", "harden", "extract", "outvote"]
)
def test_margin_triggers_survive_where_the_suspect_reveals_scores(made, attack):
    found = audit_suspect(trial(MARGIN, *attack), made["margin"])
    assert (found.status, found.reason) == ("supported", "null-rejected")
    assert found.accuracy_after > found.accuracy_before - MOST_POINTS / 100


@pytest.mark.parametrize("owner", [NEW_LABEL, MARGIN], ids=["new-label", "margin"])
def test_an_independent_model_that_reveals_scores_is_not_accused(made, owner):
    innocent = InnocentSpec(data="digits", architecture=owner.architecture, seed=901)
    plain = replace(trial(owner, "", {}), role=Role.INNOCENT, innocent=innocent)
    assert audit_suspect(plain, made[owner.scheme], make_innocent(innocent)).status == "not supported"
