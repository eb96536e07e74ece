"""``auditor plan``: the query forecast, before money is spent."""

from enum import StrEnum
from math import isinf, log10
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.canonical import JsonValue, decimal_string
from auditor.cli import console

if TYPE_CHECKING:
    from auditor.stats.forecast import Forecast, ProcedureForecast, Question
    from auditor.stats.sequential import Operating

FUTILITY = 0.01


class PlanScheme(StrEnum):
    """Schemes a forecast can be made for."""

    NEW_LABEL = "new-label"
    WRONG_LABEL = "wrong-label"


DEFAULT_NULL_RATE = {PlanScheme.NEW_LABEL: 0.07, PlanScheme.WRONG_LABEL: 1 / 9}
"""Without a stated null rate: the bound that 200 shams without a hit give at the default level, and the chance of
one drawn wrong label among nine."""


def plan(
    scheme: Annotated[PlanScheme, typer.Option(help="Which keys: a new label, or wrong labels of the task.")],
    p: Annotated[
        float, typer.Option("--p", help="Hit rate of a copy on fresh keys, between the null rate and 1.")
    ] = 0.8,
    null_rate: Annotated[
        float | None,
        typer.Option(
            help="Largest hit rate of an independent model, in (0, p-min). Default: 0.07 for new-label (what 200 shams "
            "without a hit show), 1/9 for wrong-label (drawn among 9 wrong classes)."
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(help="Level of the test, from 1e-100. Verify spends half of a sealed level on the null rate."),
    ] = 1e-6,
    power: Annotated[float, typer.Option(help="Probability of recognising a copy, in (0, 1).")] = 0.99,
    p_min: Annotated[float, typer.Option(help="Smallest hit rate the audit promises to detect.")] = 0.3,
    keys: Annotated[int | None, typer.Option(help="Forecast the default procedure with this many keys.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Forecast how many paid queries an audit needs, for each procedure, next to the limit no test can beat.

    The last line says how many keys to seal for the demanded power.
    """
    from auditor.stats.forecast import LabelSpace, Question, forecast

    try:
        question = Question(
            labels=LabelSpace(scheme.value),
            rate=p,
            null_rate=DEFAULT_NULL_RATE[scheme] if null_rate is None else null_rate,
            alpha=alpha,
            power=power,
            p_min=p_min,
            futility=FUTILITY,
        )
        result = forecast(question, keys=keys)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if json:
        console.print_json(_as_json(question, result, keys=keys))
    else:
        _show(question, result, keys=keys)


def _show(question: "Question", result: "Forecast", *, keys: int | None) -> None:
    console.say(
        f"{question.labels.value}: hit rate p = {question.rate:g}, null rate = {question.null_rate:.3g}, "
        f"alpha = {question.alpha:g}, power = {question.power:g}"
    )
    console.say(
        f"information limit: {result.limit:.2f} queries on average; no test of this level and power needs fewer"
    )
    columns = (
        "procedure",
        "claims at",
        "expected",
        "median",
        "95 %",
        "99 %",
        "x limit",
        "keys",
        "false claim",
        "innocent",
    )
    console.table("Key queries on a copy", columns, [_row(row, result.limit) for row in result.procedures])
    console.say(
        "keys: needed for the power; false claim: probability at the null rate with these keys; "
        "innocent: mean queries at the null rate"
    )
    for row in result.procedures:
        if row.false_claim_log10 > log10(question.alpha) + 1e-9:
            console.say(
                f"{row.name}: does not keep the level at this null rate; sound only if innocent models never hit"
            )
    if result.with_keys is not None:
        console.say(_with_keys_line(result.with_keys, keys=keys))
    console.say(_last_line(question, result))


def _row(row: "ProcedureForecast", limit: float) -> tuple[str, ...]:
    return (
        row.name,
        row.rule,
        _rounded(row.mean),
        _count(row.median),
        _count(row.q95),
        _count(row.q99),
        _rounded(row.ratio_to(limit)),
        _count(row.keys_for_power),
        _power_of_ten(row.false_claim_log10),
        f"{row.innocent_mean:.1f}",
    )


def _with_keys_line(operating: "Operating", *, keys: int | None) -> str:
    return (
        f"with {keys} keys the default e-process decides for the owner with probability {operating.reject:.4f}, "
        f"stops for futility with {operating.futile:.4f}, runs out with {operating.undecided:.4f}; "
        f"{operating.mean:.1f} queries on average"
    )


def _last_line(question: "Question", result: "Forecast") -> str:
    from auditor.stats.forecast import MAX_KEYS

    if result.keys_for_power is None:
        return (
            f"no number of keys up to {MAX_KEYS} gives power {question.power:g}: "
            "a lower p-min, a higher hit rate or a lower power is needed"
        )
    return f"seal at least {result.keys_for_power} keys for power {question.power:g}"


def _as_json(question: "Question", result: "Forecast", *, keys: int | None) -> dict[str, JsonValue]:
    held = result.with_keys
    return {
        "schema": "mlaudit.plan/1",
        "scheme": question.labels.value,
        "p": decimal_string(question.rate),
        "null_rate": decimal_string(question.null_rate),
        "alpha": decimal_string(question.alpha),
        "power": decimal_string(question.power),
        "p_min": decimal_string(question.p_min),
        "futility": decimal_string(question.futility),
        "information_limit": decimal_string(result.limit),
        "procedures": [
            {
                "name": row.name,
                "rule": row.rule,
                "mean": _optional(row.mean),
                "median": row.median,
                "q95": row.q95,
                "q99": row.q99,
                "ratio_to_limit": _optional(row.ratio_to(result.limit)),
                "keys_for_power": row.keys_for_power,
                "false_claim_log10": _optional(row.false_claim_log10),
                "innocent_mean": decimal_string(row.innocent_mean),
            }
            for row in result.procedures
        ],
        "with_keys": None
        if held is None
        else {
            "keys": keys,
            "reject": decimal_string(held.reject),
            "futile": decimal_string(held.futile),
            "undecided": decimal_string(held.undecided),
            "mean": decimal_string(held.mean),
            "median": held.median,
            "q95": held.q95,
            "q99": held.q99,
        },
        "seal_at_least": result.keys_for_power,
    }


def _optional(value: float | None) -> str | None:
    return None if value is None or isinf(value) else decimal_string(value)


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _power_of_ten(log10_value: float) -> str:
    if isinf(log10_value):
        return "0"
    return f"{10.0**log10_value:.1e}" if log10_value > -300 else f"1e{log10_value:.0f}"
