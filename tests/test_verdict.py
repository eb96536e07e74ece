import dataclasses
import itertools

import pytest
from protocols import a_protocol

from auditor.records import Reason, Status
from auditor.verdict import EXPLANATIONS, Facts, decide, explain, status_of

GOOD = Facts(
    interrupted=False,
    opening_complete=True,
    opening_failed_share=0.0,
    obstruction_log10_p=0.0,
    control_accuracy=0.95,
    disagreement=0.0,
    null_rate=0.07,
    rejected=True,
    futile=False,
    design_exhausted=False,
    code_p_value=None,
)


def test_good_facts_support_the_claim():
    assert decide(GOOD, a_protocol()) is Reason.NULL_REJECTED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"interrupted": True}, Reason.INTERRUPTED),
        ({"contestable": True}, Reason.CONTESTABLE),
        ({"contestable": True, "rejected": False, "futile": True}, Reason.HIT_RATE_EXCLUDED),
        ({"opening_complete": False}, Reason.TOO_FEW_ANSWERS),
        ({"opening_failed_share": 0.11}, Reason.TOO_FEW_ANSWERS),
        ({"obstruction_log10_p": -3.0}, Reason.OBSTRUCTED),
        ({"control_accuracy": None}, Reason.CONTROLS_FAILED),
        ({"control_accuracy": 0.49}, Reason.CONTROLS_FAILED),
        ({"disagreement": 0.11}, Reason.ANSWERS_UNSTABLE),
        ({"null_rate": 0.3}, Reason.NULL_UNCALIBRATED),
        ({"rejected": False, "futile": True}, Reason.HIT_RATE_EXCLUDED),
        ({"rejected": False, "futile": True, "code_p_value": 5e-4}, Reason.LABEL_HIDDEN),
        ({"rejected": False, "futile": True, "code_p_value": 6e-4}, Reason.HIT_RATE_EXCLUDED),
        ({"rejected": False, "design_exhausted": True}, Reason.NULL_NOT_REJECTED),
        ({"rejected": False, "design_exhausted": True, "uninformative": True}, Reason.ANSWERS_UNINFORMATIVE),
        ({"rejected": False, "uninformative": True}, Reason.BUDGET_EXHAUSTED),
        ({"uninformative": True}, Reason.NULL_REJECTED),
        ({"rejected": False}, Reason.BUDGET_EXHAUSTED),
    ],
)
def test_each_fact_has_its_reason(change, reason):
    assert decide(dataclasses.replace(GOOD, **change), a_protocol()) is reason


def test_supported_only_when_rejected_and_every_validity_rule_holds():
    choices = {
        "interrupted": (False, True),
        "opening_complete": (True, False),
        "opening_failed_share": (0.0, 0.5),
        "obstruction_log10_p": (0.0, -9.0),
        "control_accuracy": (0.9, 0.1, None),
        "disagreement": (0.0, 0.9),
        "null_rate": (0.01, 0.9),
        "rejected": (True, False),
        "futile": (False, True),
    }
    supported = 0
    for values in itertools.product(*choices.values()):
        facts = dataclasses.replace(GOOD, **dict(zip(choices, values, strict=True)))
        if status_of(decide(facts, a_protocol())) is Status.SUPPORTED:
            supported += 1
            assert values[:-1] == (False, True, 0.0, 0.0, 0.9, 0.0, 0.01, True)
    assert supported == 2


def test_every_reason_has_a_status_and_an_explanation():
    assert set(EXPLANATIONS) == set(Reason)
    for reason in Reason:
        assert status_of(reason) in Status
        assert explain(reason).explanation.endswith(".")
