import json

import pytest
from cases import seal_keys, small_protocol
from protocols import SPEC
from typer.testing import CliRunner

from auditor.cli.app import app
from auditor.models import build, describe, save_model

SIDE = 8


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    opened = seal_keys(folder / "k.npz", small_protocol(), side=SIDE)
    for seed in (1, 2):
        description = describe("mlp", input_shape=(1, SIDE, SIDE), classes=SPEC.classes)
        save_model(folder / f"m{seed}", build(description, seed=seed), description)
        (folder / f"m{seed}" / "train.json").write_text(json.dumps({"seed": seed}))
    return folder, opened


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_record_of_two_models(case):
    folder, opened = case
    done = run("panel", "--keyset", folder / "k.npz", folder / "m1", folder / "m2", "--out", folder / "panel.json")
    assert done.exit_code == 0, done.output
    record = json.loads((folder / "panel.json").read_bytes())
    assert record["keyset_id"] == opened.seal.keyset_id
    assert [(m["name"], m["seed"], m["architecture"]) for m in record["models"]] == [
        ("m1", "1", "mlp"),
        ("m2", "2", "mlp"),
    ]
    # Networks without an output for the new label cannot hit.
    assert all(m["keys"] == "m" * 30 and m["sham_hits"] == 0 for m in record["models"])
    again = run("panel", "--keyset", folder / "k.npz", folder / "m1", "--out", folder / "panel.json")
    assert again.exit_code == 2


def test_a_model_named_twice_is_one_model(case):
    folder, _ = case
    done = run("panel", "--keyset", folder / "k.npz", folder / "m1", folder / "m1", "--out", folder / "twice.json")
    assert done.exit_code == 2
    assert not (folder / "twice.json").exists()


def test_verify_takes_the_record(case, tmp_path, monkeypatch):
    folder, _ = case
    monkeypatch.setenv("AUDITOR_HOME", str(tmp_path / "home"))
    panel = tmp_path / "panel.json"
    assert run("panel", "--keyset", folder / "k.npz", folder / "m1", "--out", panel).exit_code == 0
    # One model alone allows a rate of 0.95, so that the plan cannot decide; and the suspect may not vouch for itself.
    done = run(
        "verify", "--keyset", folder / "k.npz", "--model", folder / "m2", "--panel", panel, "--out", tmp_path / "a",
        "--json",
    )  # fmt: skip
    assert done.exit_code == 4, done.output
    results = json.loads(done.stdout)
    assert results["null"]["panel"]["models"] == 1
    assert results["verdict"]["reason"] == "plan-underpowered"
    refused = run(
        "verify", "--keyset", folder / "k.npz", "--model", folder / "m1", "--panel", panel, "--out", tmp_path / "b"
    )
    assert refused.exit_code == 2
