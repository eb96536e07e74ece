"""``auditor plan``: the query forecast, before money is spent."""

import importlib.util
from enum import StrEnum
from math import isinf, log10
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.canonical import JsonValue, decimal_string
from auditor.cli import console

if TYPE_CHECKING:
    from auditor.stats.forecast import Forecast, ProcedureForecast, Question
    from auditor.stats.losses import LossForecast
    from auditor.stats.sequential import Operating

FUTILITY = 0.01


class PlanScheme(StrEnum):
    """Schemes a forecast can be made for."""

    NEW_LABEL = "new-label"
    WRONG_LABEL = "wrong-label"
    DYNAMARKS = "dynamarks"


class PlanAnswers(StrEnum):
    """What the suspect reveals about each key."""

    LABELS = "labels"
    SCORES = "scores"
    CONFIDENCE = "confidence"


DEFAULT_NULL_RATE = {PlanScheme.NEW_LABEL: 0.07, PlanScheme.WRONG_LABEL: 1 / 9}
"""Without a stated null rate: the bound that 200 shams without a hit give at the default level, and the chance of
one drawn wrong label among nine."""


def plan(
    scheme: Annotated[PlanScheme, typer.Option(help="A new label, wrong labels, or a guard's drawn table.")],
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
    answers: Annotated[
        PlanAnswers | None,
        typer.Option(
            help="What the suspect reveals; scores add the rank tests (wrong-label only). Default: labels, but scores "
            "for dynamarks, which alone knows confidence (of the first label, second channel)."
        ),
    ] = None,
    classes: Annotated[int, typer.Option(help="Classes of the task, at least 3.")] = 10,
    dilution: Annotated[
        float, typer.Option(help="Share of its answers that the suspect gives at random, in [0, 1).")
    ] = 0.0,
    attack_loss: Annotated[
        list[float] | None,
        typer.Option(help="Share of the hits an attack takes, in [0, 1); may be given several times."),
    ] = None,
    mu: Annotated[float, typer.Option(help="dynamarks: mean share of probability that the guard moves.")] = 0.1,
    agreement: Annotated[float, typer.Option(help="dynamarks: share of labels a surrogate has right.")] = 0.93,
    bits: Annotated[int, typer.Option(help="dynamarks: secret bits of the guard.")] = 1,
    clients: Annotated[int, typer.Option(help="dynamarks: clients of the guard.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="Draw the number of keys against power: FILE.svg or .png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Forecast how many paid queries an audit needs, for each procedure, next to the limit no test can beat.

    The last line says how many keys to seal for the demanded power; for dynamarks, how many probes of which data.
    """
    from auditor.stats.forecast import AnswerKind, LabelSpace, Question, forecast
    from auditor.stats.losses import diluted_rate, losses

    if scheme is PlanScheme.DYNAMARKS:
        from auditor.cli.plan_table import plan_table
        from auditor.guards.planning import ProbeQuestion, Revealed

        revealed = Revealed((answers or PlanAnswers.SCORES).value)
        question_of_probes = ProbeQuestion(
            mu=mu, agreement=agreement, answers=revealed, classes=classes, bits=bits, clients=clients, alpha=alpha,
            power=power,
        )  # fmt: skip
        plan_table(question_of_probes, as_json=json)
        return
    if answers is PlanAnswers.CONFIDENCE:
        raise typer.BadParameter("only a guard has a channel for confidences: --scheme dynamarks")
    labels = LabelSpace(scheme.value)
    try:
        if plot is not None and plot.suffix not in (".svg", ".png"):
            raise ValueError("the plot must be a .svg or a .png file")
        question = Question(
            labels=labels,
            rate=diluted_rate(rate=p, dilution=dilution, labels=labels, classes=classes),
            null_rate=DEFAULT_NULL_RATE[scheme] if null_rate is None else null_rate,
            alpha=alpha,
            power=power,
            p_min=p_min,
            futility=FUTILITY,
            answers=AnswerKind((answers or PlanAnswers.LABELS).value),
            classes=classes,
            dilution=dilution,
        )
        # The exact optimum is a search that only scipy's optimiser does well; the plan itself does not rest on it.
        result = forecast(question, keys=keys, optimum=importlib.util.find_spec("scipy") is not None)
        after = losses(question, attack_loss or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if plot is not None:
        from auditor.cli.plan_plot import draw

        draw(plot, question, result)
    if json:
        console.print_json(_as_json(question, result, after, keys=keys, rate=p, dilution=dilution))
    else:
        _show(question, result, after, keys=keys)


def _show(question: "Question", result: "Forecast", after: "tuple[LossForecast, ...]", *, keys: int | None) -> None:
    console.say(
        f"{question.labels.value}: hit rate p = {question.rate:g}, null rate = {question.null_rate:.3g}, "
        f"alpha = {question.alpha:g}, power = {question.power:g}"
    )
    console.say(
        f"information limit: {result.limit:.2f} queries on average; no test of this level and power needs fewer"
    )
    if result.optimum is not None:
        console.say(f"exact optimum: {result.optimum:.2f} queries for a test made for exactly these rates")
    console.say(
        f"Wald's approximation of the SPRT: {result.wald.derived:.2f} queries on a copy, "
        f"{result.wald.innocent:.2f} on an innocent suspect"
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
    for line in after:
        console.say(_loss_line(line, power=question.power))
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


def _loss_line(line: "LossForecast", *, power: float) -> str:
    from auditor.stats.forecast import MAX_KEYS

    head = f"after losing {100 * line.loss:g} % of the hits (p = {line.rate:.3g}): "
    if line.default is None:
        return head + "not above the null rate, no test can work"
    if line.default.keys_for_power is None:
        return head + f"no number of keys up to {MAX_KEYS} gives power {power:g}"
    return head + (
        f"seal at least {line.default.keys_for_power} keys; "
        f"{_rounded(line.default.mean)} queries expected, 99 % within {_count(line.default.q99)}"
    )


def _last_line(question: "Question", result: "Forecast") -> str:
    from auditor.stats.forecast import MAX_KEYS

    if result.keys_for_power is None:
        return (
            f"no number of keys up to {MAX_KEYS} gives power {question.power:g}: "
            "a lower p-min, a higher hit rate or a lower power is needed"
        )
    return f"seal at least {result.keys_for_power} keys for power {question.power:g}"


def _as_json(
    question: "Question",
    result: "Forecast",
    after: "tuple[LossForecast, ...]",
    *,
    keys: int | None,
    rate: float,
    dilution: float,
) -> dict[str, JsonValue]:
    held = result.with_keys
    return {
        "schema": "mlaudit.plan/1",
        "scheme": question.labels.value,
        "p": decimal_string(rate),
        "dilution": decimal_string(dilution),
        "effective_p": decimal_string(question.rate),
        "answers": question.answers.value,
        "classes": question.classes,
        "null_rate": decimal_string(question.null_rate),
        "alpha": decimal_string(question.alpha),
        "power": decimal_string(question.power),
        "p_min": decimal_string(question.p_min),
        "futility": decimal_string(question.futility),
        "information_limit": decimal_string(result.limit),
        "optimum": _optional(result.optimum),
        "wald": {
            "copy": decimal_string(result.wald.derived),
            "innocent": decimal_string(result.wald.innocent),
        },
        "procedures": [_procedure_json(row, result.limit) for row in result.procedures],
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
        "after_losses": [
            {
                "loss": decimal_string(line.loss),
                "p": decimal_string(line.rate),
                "mean": None if line.default is None else _optional(line.default.mean),
                "q99": None if line.default is None else line.default.q99,
                "seal_at_least": None if line.default is None else line.default.keys_for_power,
            }
            for line in after
        ],
    }


def _procedure_json(row: "ProcedureForecast", limit: float) -> dict[str, JsonValue]:
    return {
        "name": row.name,
        "rule": row.rule,
        "mean": _optional(row.mean),
        "median": row.median,
        "q95": row.q95,
        "q99": row.q99,
        "ratio_to_limit": _optional(row.ratio_to(limit)),
        "keys_for_power": row.keys_for_power,
        "false_claim_log10": _optional(row.false_claim_log10),
        "innocent_mean": decimal_string(row.innocent_mean),
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
