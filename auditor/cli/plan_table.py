"""``auditor plan --scheme dynamarks``: how many probes of which data a guard's key set should hold."""

from math import log10
from typing import TYPE_CHECKING

from auditor.canonical import JsonValue, decimal_string
from auditor.cli import console

if TYPE_CHECKING:
    from auditor.guards.planning import ProbePlan, ProbeQuestion

SCHEMA = "mlaudit.plan-table/2"
DATA_WORDS = {
    "held-out": "held-out pictures of the task that nobody trained on and no client asked",
    "mixtures": "even mixtures of two held-out pictures, of low margin (auditor guard --probe-data mixtures)",
}


def plan_table(question: "ProbeQuestion", *, as_json: bool) -> None:
    """Print how many probes are needed of every kind of data, and which to seal; the last line is the advice."""
    from auditor.guards.planning import plan_probes

    plans = plan_probes(question)
    if as_json:
        console.print_json(_as_json(question, plans))
        return
    console.say(
        f"dynamarks: mu = {question.mu:g}, surrogate agreement = {question.agreement:g}, {question.answers.value}, "
        f"{question.classes} classes, {question.bits} secret bits, alpha = {question.alpha:g} over {question.clients} "
        f"client{'' if question.clients == 1 else 's'}, power = {question.power:g}"
    )
    choices = 2 if question.answers.value == "confidence" else question.classes - 1
    console.say(
        f"smallest p of {question.n_cells} cells: 1e{-question.n_cells * log10(choices):.1f}; more cells, "
        "not more probes, make p smaller"
    )
    columns = ("data", "probes", "cells filled", "median log10 p", "power")
    rows = [
        (plan.data.value, f"{each.probes:,}", str(each.cells), f"{each.log10_p:.1f}", f"{each.power:.2f}")
        for plan in plans
        for each in plan.tried
    ]
    console.table("Simulated surrogates of the measured kind", columns, rows)
    for plan in plans:
        console.say(f"{plan.data.value}: {DATA_WORDS[plan.data.value]}; {plan.source}")
    console.say(advice(question, plans))


def advice(question: "ProbeQuestion", plans: "tuple[ProbePlan, ...]") -> str:
    """Return the one line that says what to ask and to seal."""
    from auditor.guard_keys import POOL_FACTOR

    enough = [(plan.enough.probes, plan) for plan in plans if plan.enough is not None]
    if not enough:
        return (
            f"no number of probes up to {plans[0].most:,} is expected to give p <= {question.level:.1g} with power "
            f"{question.power:g}: more bits, a stronger mark, a larger level or a suspect that reveals more is needed"
        )
    probes, plan = min(enough, key=lambda item: item[0])
    return (
        f"ask at least {probes:,} probes ({plan.data.value}) for power {question.power:g}, picked by the judge's nonce "
        f"from a sealed pool of {POOL_FACTOR * probes:,}"
    )


def _as_json(question: "ProbeQuestion", plans: "tuple[ProbePlan, ...]") -> dict[str, JsonValue]:
    from auditor.guard_keys import POOL_FACTOR

    return {
        "schema": SCHEMA,
        "scheme": "dynamarks",
        "mu": decimal_string(question.mu),
        "agreement": decimal_string(question.agreement),
        "answers": question.answers.value,
        "classes": question.classes,
        "bits": question.bits,
        "clients": question.clients,
        "alpha": decimal_string(question.alpha),
        "level": decimal_string(question.level),
        "power": decimal_string(question.power),
        "plans": [
            {
                "data": plan.data.value,
                "source": plan.source,
                "ask_at_least": None if plan.enough is None else plan.enough.probes,
                "pool": None if plan.enough is None else POOL_FACTOR * plan.enough.probes,
                "tried": [
                    {
                        "probes": each.probes,
                        "cells": each.cells,
                        "median_log10_p": decimal_string(each.log10_p),
                        "power": decimal_string(each.power),
                    }
                    for each in plan.tried
                ],
            }
            for plan in plans
        ],
    }
