import json
import re
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from auditor.cli.app import app
from auditor.errors import UsageError
from auditor.guard_keys import ProbeData
from auditor.guards.planning import (
    MEASURED,
    ProbeQuestion,
    Revealed,
    confidence_shape,
    expected_shape,
    plan_probes,
)
from auditor.stats.table_forecast import forecast

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "dynamarks.trials.jsonl"


@pytest.fixture(autouse=True)
def fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty simulated surrogates instead of a hundred: what is tested here does not depend on their number."""
    monkeypatch.setitem(forecast.__kwdefaults__, "rounds", 20)


def plan(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["plan", "--scheme", "dynamarks", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def test_the_planner_rests_on_the_record_of_the_benchmark() -> None:
    recorded: dict[str, list[dict]] = {}
    for line in RECORD.read_text().splitlines():
        trial = json.loads(line)
        if trial["name"].startswith("shape of "):
            recorded.setdefault(trial["name"].removeprefix("shape of "), []).append(trial["measured"])
    assert {each.name for each in MEASURED} == set(recorded)
    for each in MEASURED:
        trials = recorded[each.name]
        assert each.seeds == len(trials)
        assert each.agreement == pytest.approx(np.mean([trial["agreement"] for trial in trials]), abs=1e-4)
        for (revealed, data), shape in each.shapes.items():
            for name in ("shift", "shift_sd", "spread", "noise"):
                values = [trial[f"{revealed.value} {data.value}"][name] for trial in trials]
                assert getattr(shape, name) == pytest.approx(np.mean(values), abs=1e-4)


@pytest.mark.parametrize("data", ProbeData)
@pytest.mark.parametrize("revealed", [Revealed.SCORES, Revealed.LABELS])
def test_measured_surrogates_are_met_and_others_lie_between(revealed: Revealed, data: ProbeData) -> None:
    usual = next(each for each in MEASURED if each.name == "soft-15000")
    for each in (each for each in MEASURED if not each.depth):
        agreement = each.agreement if each.mu == usual.mu else usual.agreement
        found = expected_shape(each.mu, agreement, revealed=revealed, data=data)
        assert astuple(found) == pytest.approx(astuple(each.shapes[revealed, data]), rel=1e-6)
    by_mu = sorted((each for each in MEASURED if each.mu != 0.1), key=lambda each: each.mu)
    low, high = by_mu[0], next(each for each in [*by_mu[1:], usual] if each.mu > by_mu[0].mu)
    between = expected_shape((low.mu * high.mu) ** 0.5, usual.agreement, revealed=revealed, data=data)
    middle = (low.shapes[revealed, data].noise + high.shapes[revealed, data].noise) / 2
    assert between.noise == pytest.approx(middle)


def test_outside_the_measured_range_nothing_is_said() -> None:
    assert "lies outside the measured" in plan("--mu", 0.4, code=2)
    assert "lies outside the measured" in plan("--agreement", 0.5, code=2)
    with pytest.raises(UsageError):
        ProbeQuestion(classes=2)
    with pytest.raises(UsageError):
        ProbeQuestion(power=1.0)


def test_the_forecast_meets_what_the_same_surrogates_gave() -> None:
    """Measured p-values by number of probes (five services) against simulation from the measured shapes."""
    measured: dict[str, list[float]] = {}
    for line in RECORD.read_text().splitlines():
        trial = json.loads(line)
        if trial["name"] == "probes":
            for number, found in trial["measured"].items():
                measured.setdefault(number, []).append(found["log10_p"])
    shape = next(each for each in MEASURED if each.name == "soft-15000").shapes[Revealed.SCORES, ProbeData.HELD_OUT]
    for number in ("100", "200", "500", "1000"):
        found = forecast(shape, n_cells=20, n_choices=9, probes=int(number), level=1e-6, rounds=60)
        # Five services stand on the one side: the forecast's median lies within their range, give or take a decade.
        assert min(measured[number]) - 2 <= found.log10_p <= max(measured[number]) + 2


def test_the_command_says_how_many_probes_of_which_data() -> None:
    told = plan("--power", 0.9)
    assert "held-out pictures of the task" in told
    last = told.strip().splitlines()[-1]
    told_numbers = re.fullmatch(
        r"ask at least ([\d,]+) probes \(held-out\) for power 0\.9, picked by the judge's nonce from a sealed pool of "
        r"([\d,]+)",
        last,
    )
    assert told_numbers is not None, last
    asked, pool = (int(number.replace(",", "")) for number in told_numbers.groups())
    assert pool == 2 * asked
    assert "no number of probes" in plan("--bits", 0, "--classes", 3).strip().splitlines()[-1]


def test_json_is_one_object_and_says_the_same() -> None:
    found = json.loads(plan("--power", 0.9, "--clients", 10, "--json"))
    assert found["schema"] == "mlaudit.plan-table/2"
    assert float(found["level"]) == pytest.approx(1e-7)
    by_data = {each["data"]: each for each in found["plans"]}
    chosen = by_data["held-out"]["ask_at_least"]
    assert by_data["held-out"]["pool"] == 2 * chosen
    tried = {each["probes"]: float(each["power"]) for each in by_data["held-out"]["tried"]}
    assert tried[chosen] >= 0.9
    assert all(power < 0.9 for number, power in tried.items() if number < chosen)


def test_more_clients_need_no_fewer_probes() -> None:
    one, many = (plan_probes(ProbeQuestion(clients=n, power=0.9))[0].enough for n in (1, 1000))
    assert one is not None
    assert many is not None
    assert many.probes >= one.probes


def test_confidences_are_planned_where_they_were_measured() -> None:
    """The forecast of the second channel against the p-values of the same surrogates, by number of probes."""
    recorded: dict[str, list[dict]] = {}
    for line in RECORD.read_text().splitlines():
        trial = json.loads(line)
        if trial["name"].startswith("shape of depth-"):
            recorded.setdefault(trial["name"].removeprefix("shape of "), []).append(trial["measured"])
    for each in (each for each in MEASURED if each.depth):
        question = ProbeQuestion(bits=each.bits, agreement=each.agreement, answers=Revealed.CONFIDENCE)
        assert (
            confidence_shape(question, data=ProbeData.HELD_OUT) == each.shapes[Revealed.CONFIDENCE, ProbeData.HELD_OUT]
        )
        for number in (500, 2_000):
            found = forecast(
                each.shapes[Revealed.CONFIDENCE, ProbeData.HELD_OUT], n_cells=question.n_cells, n_choices=2,
                probes=number, level=1e-3, cells_per_class=1 << each.bits, rounds=60,
            )  # fmt: skip
            seen = [one["confidence held-out"]["log10_p"][str(number)] for one in recorded[each.name]]
            assert min(seen) - 2 <= found.log10_p <= max(seen) + 2


def test_confidences_elsewhere_are_not_guessed() -> None:
    assert "confidences were measured" in plan("--answers", "confidence", "--mu", 0.05, code=2)
    assert "one secret bit" in plan("--answers", "confidence", "--bits", 0, code=2)
    told = plan("--answers", "confidence", "--bits", 2, "--alpha", 0.001, "--power", 0.8)
    assert "smallest p of 40 cells: 1e-12.0" in told
    refused = CliRunner().invoke(app, ["plan", "--scheme", "wrong-label", "--answers", "confidence"])
    assert refused.exit_code == 2
