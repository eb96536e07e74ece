import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from auditor.cli.plan import plan

application = typer.Typer()
application.command()(plan)


def invoke(arguments: str) -> Result:
    return CliRunner().invoke(application, arguments.split(), env={"COLUMNS": "200", "TERM": "dumb"})


def test_table_ends_with_the_number_of_keys_to_seal() -> None:
    result = invoke("--scheme new-label --p 0.8 --null-rate 0.1")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.strip().splitlines()
    assert lines[-1] == "seal at least 22 keys for power 0.99"
    assert any(line.startswith("information limit: 10.00 queries") for line in lines)
    for name in ("default e-process", "fixed exact binomial", "SPRT that knows p", "new-label rule", "threshold rule"):
        assert any(name in line for line in lines)
    assert "≥ 11 hits of 19" in result.stdout


def test_a_rule_that_does_not_keep_the_level_is_named() -> None:
    result = invoke("--scheme new-label")
    assert "new-label rule, 1/p: does not keep the level" in result.stdout
    assert "default e-process: does not keep" not in result.stdout


def test_json_is_one_object_and_nothing_else() -> None:
    result = invoke("--scheme wrong-label --p 0.8 --null-rate 0.1 --power 0.9 --keys 20 --json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["schema"] == "mlaudit.plan/1"
    assert found["seal_at_least"] == 16
    by_name = {row["name"]: row for row in found["procedures"]}
    assert by_name["threshold rule, tau = 0.3"]["keys_for_power"] == 40
    assert float(by_name["default e-process"]["mean"]) == pytest.approx(11.3, abs=0.05)
    assert float(by_name["default e-process"]["ratio_to_limit"]) > 1
    assert found["with_keys"]["keys"] == 20
    assert 0.9 < float(found["with_keys"]["reject"]) < 1


def test_forecast_with_the_keys_at_hand() -> None:
    result = invoke("--scheme new-label --p 0.8 --null-rate 0.1 --keys 3")
    assert "with 3 keys the default e-process decides for the owner with probability 0.0000" in result.stdout


def test_default_null_rates() -> None:
    assert "null rate = 0.07," in invoke("--scheme new-label").stdout
    assert "null rate = 0.111," in invoke("--scheme wrong-label").stdout


def test_power_out_of_reach_is_said_plainly() -> None:
    result = invoke("--scheme wrong-label --p 0.2 --null-rate 0.1")
    assert result.exit_code == 0
    assert result.stdout.strip().splitlines()[-1].startswith("no number of keys up to 8000 gives power 0.99")
    as_json = json.loads(invoke("--scheme wrong-label --p 0.2 --null-rate 0.1 --json").stdout)
    assert as_json["seal_at_least"] is None
    assert as_json["procedures"][0]["ratio_to_limit"] is None


def test_impossible_claims_have_no_logarithm_in_json() -> None:
    arguments = "--scheme new-label --p 0.000001 --null-rate 0.0000001 --alpha 1e-100"
    found = json.loads(invoke(arguments + " --json").stdout)
    assert found["procedures"][1]["false_claim_log10"] is None
    assert invoke(arguments).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--scheme margin",
        "--scheme new-label --p 1.2",
        "--scheme new-label --p 0.05",
        "--scheme new-label --p nan",
        "--scheme new-label --p many",
        "--scheme new-label --null-rate 0",
        "--scheme new-label --null-rate 0.4",
        "--scheme new-label --alpha 0",
        "--scheme new-label --alpha 2",
        "--scheme new-label --power 1",
        "--scheme new-label --p-min 0",
        "--scheme new-label --keys 0",
        "--scheme new-label --answers scores",
        "--scheme wrong-label --answers guesses",
        "--scheme wrong-label --classes 2",
        "--scheme wrong-label --dilution 1",
        "--scheme wrong-label --dilution nan",
        "--scheme wrong-label --attack-loss 1.5",
        "--scheme wrong-label --plot plan.pdf",
        "--scheme new-label --keys 2.5",
        "--scheme new-label --keys 99999999",
    ],
)
def test_bad_values_are_usage_errors(arguments: str) -> None:
    result = invoke(arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr != ""
    assert "Traceback" not in result.stderr


def test_scores_add_the_rank_tests() -> None:
    arguments = "--scheme wrong-label --p 0.3 --null-rate 0.1 --answers scores --json"
    by_name = {row["name"]: row for row in json.loads(invoke(arguments).stdout)["procedures"]}
    assert float(by_name["ranks (simulated)"]["mean"]) < float(by_name["default e-process"]["mean"]) / 5
    assert by_name["probabilities (simulated)"]["keys_for_power"] < 20
    assert "ranks (simulated)" not in invoke("--scheme wrong-label --p 0.5").stdout


def test_dilution_lowers_the_rate_in_every_forecast() -> None:
    diluted = json.loads(invoke("--scheme new-label --p 0.8 --dilution 0.5 --null-rate 0.1 --json").stdout)
    plain = json.loads(invoke("--scheme new-label --p 0.4 --null-rate 0.1 --json").stdout)
    assert (diluted["p"], diluted["effective_p"]) == ("0.8", "0.4")
    assert diluted["procedures"] == plain["procedures"]
    wrong = json.loads(invoke("--scheme wrong-label --p 0.8 --dilution 0.5 --classes 10 --json").stdout)
    assert float(wrong["effective_p"]) == pytest.approx(0.45)


def test_keys_to_seal_for_given_attack_losses() -> None:
    arguments = "--scheme new-label --p 0.8 --null-rate 0.1 --attack-loss 0 --attack-loss 0.375 --attack-loss 0.9"
    lines = invoke(arguments).stdout
    assert "after losing 0 % of the hits (p = 0.8): seal at least 22 keys" in lines
    assert "after losing 37.5 % of the hits (p = 0.5): seal at least 65 keys" in lines
    assert "after losing 90 % of the hits (p = 0.08): not above the null rate" in lines
    found = json.loads(invoke(arguments + " --json").stdout)["after_losses"]
    assert [row["seal_at_least"] for row in found] == [22, 65, None]


def test_optimum_and_every_procedure() -> None:
    found = json.loads(invoke("--scheme new-label --p 0.8 --null-rate 0.1 --json").stdout)
    assert float(found["optimum"]) == pytest.approx(10.2, abs=0.051)
    names = " | ".join(row["name"] for row in found["procedures"])
    for name in ("default e-process", "fixed", "SPRT", "new-label rule", "threshold", "grid", "capped", "calibrated"):
        assert name in names


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_plot(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"plan.{ending}"
    assert invoke(f"--scheme new-label --plot {target}").exit_code == 0
    assert target.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


def test_works_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import typer\n"
        "from auditor.cli.plan import plan\n"
        "app = typer.Typer(); app.command()(plan)\n"
        "app(['--scheme', 'new-label', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scheme"] == "new-label"


def test_walds_figures_are_printed_and_are_his_formulas():
    from math import log

    p1, p0, alpha, beta = 0.8, 0.1, 1e-3, 0.05
    upper, lower = log((1 - beta) / alpha), log(beta / (1 - alpha))
    drift = p1 * log(p1 / p0) + (1 - p1) * log((1 - p1) / (1 - p0))
    expected = ((1 - beta) * upper + beta * lower) / drift
    arguments = "--scheme wrong-label --p 0.8 --null-rate 0.1 --alpha 1e-3 --power 0.95"
    shown = invoke(arguments)
    assert f"Wald's approximation of the SPRT: {expected:.2f} queries on a copy" in shown.stdout
    signed = json.loads(invoke(f"{arguments} --json").stdout)
    assert float(signed["wald"]["copy"]) == pytest.approx(expected, rel=1e-12)
