"""What `verify` makes of a surrogate that answers over HTTP with less than all scores; and guards under age's locks."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import requests
import web
from typer.testing import CliRunner

from auditor import datasets, serving
from auditor.cli.app import app
from auditor.errors import UsageError
from auditor.evidence.encryption import Unlocks
from auditor.evidence.keyset import open_sealed
from auditor.guards import Guard
from auditor.guards.desk import open_desk
from auditor.models import load_model, predict

BEACON = "cd" * 32
PASSPHRASE = "correct horse battery staple"


def run(*arguments: object, code: int = 0, or_code: int | None = None) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code in (code, or_code), result.output
    return result.output


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guarded model with both channels; the guard's own answers to client bob stand for a perfect surrogate."""
    folder = tmp_path_factory.mktemp("answers")
    run("train", "none", "--data", "digits", "--epochs", 8, "--out", folder / "model")
    run(
        "guard", folder / "model", "--data", "digits", "--clients", "alice,bob,carol", "--probes", 220,
        "--controls", 30, "--depth", 0.8, "--bits", 2, "--mu", 0.2, "--beacon", BEACON, "--out", folder / "g",
    )  # fmt: skip
    return folder


def verified(
    world: Path, out: Path, *, mode: serving.AnswerMode, top_k: int = 1, digits: int = 9, code: int = 0
) -> dict:
    loaded = load_model(world / "model")
    guard = Guard.open(world / "g" / "k.npz", client_id="bob")
    suspect = serving.create_app(
        lambda inputs: np.round(guard(predict(loaded.network, inputs), inputs), digits).astype(np.float32),
        name="suspect", classes=loaded.description.classes, input_shape=loaded.description.input_shape, answers=mode,
        top_k=top_k,
    )  # fmt: skip
    with web.running(suspect) as url:
        told = run(
            "verify", "--endpoint", url, "--keyset", world / "g" / "k.npz", "--out", out, "--reuse-keys", code=code,
            or_code=code or 3,
        )  # fmt: skip
    assert "every number follows" in " ".join(run("check", out, "--keyset", world / "g" / "k.npz").split())
    return {**json.loads((out / "results.json").read_text()), "told": " ".join(told.split())}


@pytest.mark.parametrize("k", [2, 3])
def test_a_list_of_the_best_labels_is_read_as_scores_and_names_the_client(world: Path, tmp_path: Path, k: int) -> None:
    found = verified(world, tmp_path / "a", mode=serving.AnswerMode.TOP_K, top_k=k)
    assert found["table"]["channel"] == "scores"
    assert found["table"]["named"] == ["bob"]
    assert "silence says nothing" not in found["told"]
    lines = (tmp_path / "a" / "transcript.jsonl").read_text().splitlines()
    answers = [answer for line in lines for answer in json.loads(line).get("answers", [])]
    assert answers
    assert all(len(answer["top"]) == k and "scores" not in answer for answer in answers)


def test_rounded_scores_name_the_client(world: Path, tmp_path: Path) -> None:
    found = verified(world, tmp_path / "a", mode=serving.AnswerMode.SCORES, digits=2)
    assert found["table"]["channel"] == "scores"
    assert found["table"]["named"] == ["bob"]


def test_confidence_alone_is_tested_against_the_signs(world: Path, tmp_path: Path) -> None:
    found = verified(world, tmp_path / "a", mode=serving.AnswerMode.TOP_K, top_k=1, code=4)
    assert found["verdict"]["reason"] == "answers-uninformative"
    assert found["table"]["channel"] == "confidence"
    best = found["table"]["clients"][0]
    assert best["client"] == "bob"
    assert float(best["log10_p"]) <= -2.5
    assert found["test"]["name"].startswith("exact law of the drawn signs")
    assert float(found["null"]["rate"]) == 0.5
    assert float(found["test"]["log10_p"]) >= -found["table"]["cells"] * np.log10(2) - 1e-9
    assert "confidence: only the score of the first label came" in found["told"]
    assert "confidence moved as the drawn sign says" in (tmp_path / "a" / "report.html").read_text()


def test_labels_alone_say_in_one_line_what_they_can_show(world: Path, tmp_path: Path) -> None:
    # The guard keeps every first label, so that its own answers hold nothing of the table.
    found = verified(world, tmp_path / "a", mode=serving.AnswerMode.LABELS, code=4)
    assert found["table"]["channel"] == "labels"
    assert found["table"]["named"] == []
    assert "labels: only first labels are read: supporting evidence at most" in found["told"]


def age_key(folder: Path) -> tuple[Path, str]:
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    file = folder / "identity.txt"
    file.write_text(f"# a comment\n{identity}\n")
    return file, str(identity.to_public())


def test_a_guard_is_sealed_and_served_under_an_age_recipient(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity, recipient = age_key(folder_in(tmp_path, "mine"))
    options = (
        "guard", world / "model", "--data", "digits", "--clients", "alice,bob", "--probes", 60,
        "--recipient", recipient,
    )  # fmt: skip
    run(*options, "--commit-only", "--out", tmp_path / "draft")
    assert {path.suffix for path in (tmp_path / "draft").glob("k.guard-draft*")} == {".age"}
    again = (*options, "--commitment", tmp_path / "draft", "--beacon", BEACON, "--out")
    assert "an identity is needed" in run(*again, tmp_path / "no", code=2)
    run(*again, tmp_path / "g", "--identity", identity)
    keyset = tmp_path / "g" / "k.npz"
    served: list[object] = []
    monkeypatch.setattr(serving, "serve", lambda application, **_: served.append(application))
    assert "an identity is needed" in run("serve", world / "model", "--guard", keyset, code=2)
    other, _ = age_key(folder_in(tmp_path, "other"))
    run("serve", world / "model", "--guard", keyset, "--identity", other, code=5)
    assert not served
    run("serve", world / "model", "--guard", keyset, "--identity", identity)
    inputs = datasets.load("digits").test.inputs[:4]
    body = {"inputs": {"shape": list(inputs.shape), "dtype": "uint8", "data_b64": base64.b64encode(inputs).decode()}}
    with web.running(served[0]) as url:  # type: ignore[arg-type]
        told = requests.post(f"{url}/v1/predict", json=body, headers={"X-Client-Id": "bob"}, timeout=30).json()
    secrets = tuple(line for line in identity.read_text().splitlines() if not line.startswith("#"))
    guard = Guard.open(keyset, client_id="bob", unlocks=Unlocks(identities=secrets))
    expected = guard(predict(load_model(world / "model").network, inputs), inputs)
    assert np.allclose([answer["scores"] for answer in told["answers"]], expected, atol=1e-5)


def folder_in(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_a_guard_under_a_passphrase_is_opened_by_nothing_else(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening with the right one is tested with the key set's: age refuses its own work factor on a starved machine."""
    pytest.importorskip("pyrage")
    monkeypatch.setenv("AUDITOR_PASSPHRASE", PASSPHRASE)
    options = ("guard", world / "model", "--data", "digits", "--clients", "alice", "--probes", 60)
    run(*options, "--commit-only", "--out", tmp_path / "draft")
    run(*options, "--beacon", BEACON, "--out", tmp_path / "g")
    monkeypatch.delenv("AUDITOR_PASSPHRASE")
    refused = "passphrase, which was not given"
    assert refused in run("serve", world / "model", "--guard", tmp_path / "g" / "k.npz", code=2)
    again = ("--commitment", tmp_path / "draft", "--beacon", BEACON, "--out", tmp_path / "again")
    assert refused in " ".join(run(*options, *again, code=2).split())
    description = load_model(world / "model").description
    with pytest.raises(UsageError, match=refused):
        open_desk(
            tmp_path / "g" / "k.npz", model_sha256=description.weights_sha256, classes=description.classes,
            header="X-Client-Id",
        )  # fmt: skip
    assert "go with a guard" in run("serve", world / "model", "--identity", tmp_path / "x", "--port", 0, code=2)


def test_probes_may_be_mixtures_that_the_clean_model_finds_hard(world: Path, tmp_path: Path) -> None:
    options = (
        "guard", world / "model", "--data", "digits", "--clients", "alice", "--probes", 120, "--probe-data", "mixtures",
    )  # fmt: skip
    run(*options, "--commit-only", "--out", tmp_path / "draft")
    run(*options, "--commitment", tmp_path / "draft", "--beacon", BEACON, "--out", tmp_path / "g")
    opened, plain = (open_sealed(folder / "g" / "k.npz") for folder in (tmp_path, world))
    assert opened.seal.generator.settings["probe_data"] == "mixtures"
    assert "probe_data" not in plain.seal.generator.settings
    network = load_model(world / "model").network
    leads = []
    for keys, number in ((opened.keys, 120), (plain.keys, 220)):
        best = np.sort(predict(network, keys.inputs[:number]), axis=1)
        leads.append(float(np.median(best[:, -1] - best[:, -2])))
    assert leads[0] < 0.5 * leads[1]
