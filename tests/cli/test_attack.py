import dataclasses
import json

import numpy as np
import pytest
import typer
import web
from typer.testing import CliRunner

from auditor import datasets, models, serving, training, wrapped
from auditor.attacks import ATTACKS, build_attack
from auditor.cli import attack_options
from auditor.cli.attack import attack
from auditor.errors import SuspectAnswerError, SuspectLoadError, SuspectUnavailableError, UsageError

app = typer.Typer()
app.command("attack")(attack)


@app.command("other")
def other() -> None:
    """Keep ``attack`` a sub-command."""


def run(*arguments):
    return CliRunner().invoke(app, ["attack", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    digits = datasets.load("digits")
    plan = training.TrainingPlan(epochs=5, batch_size=50, learning_rate=0.05, seed=1, threads=1)
    model = training.train_unmarked(
        architecture="small-cnn", spec=digits.spec, inputs=digits.train.inputs, labels=digits.train.labels, plan=plan
    )
    folder = tmp_path_factory.mktemp("attacked") / "victim"
    models.save_model(folder, model.network, model.description)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "--preset", "rounded", "--epochs", 1, "--budget", 100, "--arch", "mlp"),
        ("extract", "--attacker-data", "rest", "--owner-share", 0.6, "--split-seed", 4, "--epochs", 1),
        ("distill", "--temperature", 4, "--temperature-squared", "--mix", 0.9, "--epochs", 1),
        ("finetune", "--layers", "last", "--fresh-head", "--epochs", 1, "--set", "momentum=0.5"),
        ("prune", "--structure", "channel-norm", "--rate", 0.3),
        ("quantize", "--preset", "int8"),
        ("noise", "--scale", 0.05, "--seed", 3),
        ("preprocess", "--kind", "jpeg", "--strength", 80),
        ("answers", "--preset", "top-3"),
        ("ensemble", "--n-others", 1, "--epochs", 1, "--combination", "majority"),
    ],
)
def test_each_attack_writes_a_suspect_and_its_record(victim, tmp_path, arguments):
    out = tmp_path / "o"
    result = run(*arguments, "--victim", victim, "--data", "digits", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads((out / "attack.json").read_bytes())
    model = wrapped.load(out)
    assert record["model_sha256"] == model.description.weights_sha256
    assert record["victim_sha256"] == models.load_model(victim).description.weights_sha256
    assert (record["schema"], record["attack"], record["data"]) == ("mlaudit.attack/1", arguments[0], "digits")
    build_attack(record["attack"], record["settings"])
    digits = datasets.load("digits")
    judging = digits.test if "rest" in arguments else digits.test.halves()[1]
    right = float(np.mean(models.labels_of(model.network, judging.inputs) == judging.labels))
    assert float(record["accuracy_after"]) == right
    assert record["evaluation_images"] == len(judging)


def test_options_reach_the_settings(victim, tmp_path):
    out = tmp_path / "o"
    arguments = ("finetune", "--layers", "last", "--epochs", 1, "--set", "momentum=0.5", "--set", "device=cpu")
    record = json.loads(run(*arguments, "--victim", victim, "--data", "digits", "--out", out, "--json").stdout)
    wanted = {"layers": "last", "epochs": 1, "momentum": "0.5", "device": "cpu", "threads": 1, "fresh_head": False}
    assert {name: record["settings"][name] for name in wanted} == wanted


def test_every_setting_of_the_built_in_attacks_can_be_given():
    from auditor.attacks.base import attack_class
    from auditor.attacks.settings import setting_names

    of_plans = {field.name for field in dataclasses.fields(training.TrainingPlan)}
    named = {name for attack_name in ATTACKS for name in setting_names(attack_class(attack_name))}
    assert named - of_plans <= set(attack_options.SETTINGS)
    assert set(attack_options.SETTINGS) <= named


def test_a_service_is_extracted_within_the_budget(victim, tmp_path):
    loaded = models.load_model(victim)
    asked = []

    def predict(inputs):
        asked.append(len(inputs))
        return models.predict(loaded.network, inputs)

    service = serving.create_app(
        predict, name="v", classes=loaded.description.classes, input_shape=(1, 8, 8), answers=serving.AnswerMode.LABELS
    )
    base = ("extract", "--data", "digits", "--attacker-data", "owner", "--epochs", 2)
    with web.running(service) as url:
        kept = tmp_path / "answers.safetensors"
        for name in ("a", "b"):
            result = run(
                *base, "--victim", url, "--out", tmp_path / name, "--taught", "hard", "--budget", 200,
                "--answers-file", kept,
            )  # fmt: skip
            assert result.exit_code == 0, result.output
            assert "task accuracy not measured before" in result.stdout
            assert "200 queries, answered right at " in result.stdout
        assert sum(asked) == 200
        record = json.loads((tmp_path / "b" / "attack.json").read_bytes())
        assert (record["victim_uri"], record["victim_sha256"], record["accuracy_before"]) == (url, "", None)
        for error, arguments in (
            (SuspectAnswerError, (*base, "--budget", 10)),
            (UsageError, (*base, "--budget", 1001)),
            (UsageError, ("noise", "--data", "digits")),
        ):
            result = run(*arguments, "--victim", url, "--out", tmp_path / "c")
            assert isinstance(result.exception, error)
            assert not (tmp_path / "c").exists()
        assert sum(asked) == 200
    unreachable = run(*base, "--victim", "http://127.0.0.1:9", "--out", tmp_path / "c")
    assert isinstance(unreachable.exception, SuspectUnavailableError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "--budget", 10_000), "budget of 10000 queries does not fit the attacker's 274 images"),
        (("noise", "--rate", 0.5), "has no setting 'rate'"),
        (("noise", "--preset", "loud"), "has no preset 'loud'; it has: light, strong"),
        (("hypnosis",), "unknown attack 'hypnosis'"),
        (("prune", "--rate", 1.5), "rate lies in"),
        (("extract", "--taught", "loud"), "'taught' must be one of"),
        (("extract", "--set", "epochs"), "--set takes NAME=VALUE"),
        (("extract", "--set", "epochs=many"), "'epochs' must be a whole number"),
        (("extract", "--arch", "vgg"), "unknown architecture 'vgg'"),
        (("extract", "--attacker-data", "foreign"), "need the name of another data set"),
        (("extract", "--foreign", "digits"), "need the name of another data set"),
        (("extract", "--attacker-data", "rest", "--owner-share", 1.0), "owner's share"),
        (("noise", "--answers-file", "x"), "buys no answers"),
        (("preprocess",), "needs the setting 'kind'"),
        (("extract", "--answers-file", "/no/such/folder/x", "--epochs", 1), "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(victim, tmp_path, arguments, message):
    result = run(*arguments, "--victim", victim, "--data", "digits", "--out", tmp_path / "o")
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "o").exists()


def test_a_victim_of_another_task_is_refused(victim, tmp_path):
    description = models.describe("mlp", input_shape=(1, 4, 4), classes=tuple("0123456789"))
    models.save_model(tmp_path / "small", models.build(description, seed=1), description)
    few = models.describe("mlp", input_shape=(1, 8, 8), classes=tuple("012"))
    models.save_model(tmp_path / "few", models.build(few, seed=1), few)
    for folder, message in ((tmp_path / "small", "of shape"), (tmp_path / "few", "3 outputs")):
        result = run("noise", "--victim", folder, "--data", "digits", "--out", tmp_path / "o")
        assert isinstance(result.exception, UsageError)
        assert message in str(result.exception)
    missing = run("noise", "--victim", tmp_path / "gone", "--data", "digits", "--out", tmp_path / "o")
    assert isinstance(missing.exception, SuspectLoadError)
