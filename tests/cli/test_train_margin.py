"""``train margin``, its baseline, and panels of innocent models, on the command line."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from auditor import datasets
from auditor.attacks.data import Source, attacker_data
from auditor.cli import train_options
from auditor.cli.app import app as auditor_app
from auditor.cli.train import train
from auditor.errors import MissingPartError, TrainingError, UsageError
from auditor.evidence.generation import rederive
from auditor.evidence.keyset import open_sealed
from auditor.models import load_model
from auditor.records import NullBasis
from auditor.training import loop

app = typer.Typer()
app.add_typer(train, name="train")
SHORT = ("--data", "digits", "--epochs", 2, "--keys", 30, "--no-twin")


def run(*arguments):
    return CliRunner().invoke(app, ["train", *(str(a) for a in arguments)])


def test_triggers_are_committed_then_drawn_then_sealed(tmp_path):
    done = run("margin", *SHORT, "--choice", "ambiguous", "--out", tmp_path / "c", "--commit-only")
    assert done.exit_code == 0, done.output
    go_on = (*SHORT, "--choice", "ambiguous", "--commitment", tmp_path / "c", "--judge-nonce", "ab" * 32)
    other = run("margin", *go_on, "--radius", 3, "--out", tmp_path / "o")
    assert "committed to" in str(other.exception)
    (tmp_path / "o").rmdir()
    done = run("margin", *go_on, "--out", tmp_path / "o")
    assert isinstance(done.exception, TrainingError)
    opened = open_sealed(tmp_path / "o" / "k.npz")
    assert opened.seal.protocol.null_basis is NullBasis.DRAWN_LABELS
    assert (opened.seal.protocol.n_keys, opened.seal.protocol.n_shams) == (30, 0)
    assert opened.seal.generator.settings["choice"] == "ambiguous"
    assert rederive(opened.keys, opened.seal).source.value == "nonce"
    record = json.loads((tmp_path / "o" / "train.json").read_bytes())
    assert record["measured"]["settings"]["radius"] == "10.0"
    assert "triggers answered as drawn" in done.stdout


def test_rival_labels_are_sealed_audited_and_reported(tmp_path):
    """A whole case on digits: commit, draw a coin per key, seal, audit the marked model, check the bundle."""
    owner = tmp_path / "o"
    done = run(
        "margin", "--data", "digits", "--draw", "rival", "--choice", "ambiguous", "--keys", 50, "--judge-nonce",
        "ab" * 32, "--out", owner, "--no-twin",
    )  # fmt: skip
    # A single small training may miss half a point of accuracy; everything is written all the same.
    assert done.exception is None or isinstance(done.exception, TrainingError), done.output
    opened = open_sealed(owner / "k.npz")
    assert opened.seal.protocol.null_basis is NullBasis.RIVAL_LABELS
    assert opened.seal.generator.settings["draw"] == "rival"
    assert rederive(opened.keys, opened.seal).source.value == "nonce"
    whole = ["verify", "--model", str(owner), "--keyset", str(owner / "k.npz"), "--out", str(tmp_path / "c")]
    audited = CliRunner().invoke(auditor_app, whole)
    assert audited.exit_code == 0, audited.output
    results = json.loads((tmp_path / "c" / "results.json").read_bytes())
    assert results["verdict"]["status"] == "supported"
    assert results["null"]["kind"] == "rival-labels"
    page = (tmp_path / "c" / "report.html").read_text()
    assert "lie between two" in page
    assert "prefers the drawn class" in page
    assert "deviat" not in page.replace("Deviations from the sealed plan", "")
    checked = CliRunner().invoke(auditor_app, ["check", str(tmp_path / "c"), "--keyset", str(owner / "k.npz")])
    assert checked.exit_code == 0, checked.output


def test_the_baseline_has_no_ball(tmp_path):
    run("plain-trigger", *SHORT, "--out", tmp_path / "p")
    run("margin", *SHORT, "--radius", 0, "--out", tmp_path / "m")
    for name, scheme in (("p", "plain-trigger"), ("m", "margin")):
        opened = open_sealed(tmp_path / name / "k.npz")
        assert opened.seal.generator.name == opened.seal.protocol.scheme == scheme
        assert opened.seal.generator.settings["radius"] == "0.0"


class KilledError(Exception):
    pass


def test_a_training_killed_before_its_commitment_goes_on(tmp_path, monkeypatch):
    steps = loop.Loop._one_step
    count = iter(range(10**6))

    def kill(self, rows):
        if next(count) == 11:
            raise KilledError
        steps(self, rows)

    out = tmp_path / "o"
    arguments = ("margin", *SHORT, "--choice", "ambiguous", "--out", out, "--checkpoint-every", 5)
    monkeypatch.setattr(loop.Loop, "_one_step", kill)
    assert isinstance(run(*arguments).exception, KilledError)
    monkeypatch.undo()
    assert {path.name for path in out.iterdir()} == {"checkpoint"}
    assert isinstance(run(*arguments, "--resume").exception, TrainingError)
    opened = open_sealed(out / "k.npz")
    assert rederive(opened.keys, opened.seal).n_carriers == 30 + opened.seal.protocol.n_controls


def test_a_killed_training_goes_on_with_the_same_secret(tmp_path, monkeypatch):
    steps = loop.Loop._one_step
    count = iter(range(10**6))

    def kill(self, rows):
        if next(count) == 41:
            raise KilledError
        steps(self, rows)

    arguments = ("margin", *SHORT, "--out", tmp_path / "o", "--checkpoint-every", 5)
    monkeypatch.setattr(loop.Loop, "_one_step", kill)
    assert isinstance(run(*arguments).exception, KilledError)
    monkeypatch.undo()
    commitment = (tmp_path / "o" / "k.commit.json").read_bytes()
    assert (tmp_path / "o" / "checkpoint").is_dir()
    assert isinstance(run(*arguments).exception, UsageError)
    done = run(*arguments, "--resume")
    assert isinstance(done.exception, TrainingError), done.output
    assert "going on after step 40 of" not in done.stdout
    opened = open_sealed(tmp_path / "o" / "k.npz")
    assert (tmp_path / "o" / "k.commit.json").read_bytes() == commitment
    assert rederive(opened.keys, opened.seal).n_carriers == 30 + opened.seal.protocol.n_controls
    # The seed lies in the unfinished training's folder, which is gone with it.
    assert not (tmp_path / "o" / "checkpoint").exists()
    assert isinstance(run(*arguments, "--resume").exception, UsageError)


def test_a_panel_of_innocents_is_ordinary_model_folders(tmp_path):
    part = ("--part", "second", "--split-seed", 3)
    done = run(
        "none", "--data", "digits", "--epochs", 1, "--panel", 2, "--seed", 5, *part, "--out", tmp_path / "p", "--json"
    )
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)["panel"]
    assert [r["measured"]["seed"] for r in records] == [5, 6]
    assert records[0]["measured"]["part"] == "second"
    models = [load_model(tmp_path / "p" / f"seed-{seed}") for seed in (5, 6)]
    one, two = (model.network.state_dict() for model in models)
    assert not all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_the_attackers_rest_is_what_the_owner_was_not_trained_on(share):
    whole, owner = datasets.load("digits").train, train_options.owned("digits", share=share, split_seed=4).train
    theirs = attacker_data(datasets.load("digits"), source=Source.REST, owner_share=share, split_seed=4).own
    rows = [{image.tobytes() for image in part.inputs} for part in (whole, owner, theirs)]
    assert len(rows[0]) == len(whole), "all images differ, so that bytes name them"
    assert rows[1] | rows[2] == rows[0]
    assert not rows[1] & rows[2]
    assert len(owner) == round(share * len(whole))


def test_the_record_says_which_share_the_owner_trained_on(tmp_path):
    options = ("--epochs", 1, "--owner-share", 0.5, "--split-seed", 4)
    done = run("plain-trigger", "--data", "digits", *options, "--out", tmp_path / "o")
    # One epoch embeds nothing; the folder is written all the same.
    assert "written:" in done.output
    record = json.loads((tmp_path / "o" / "train.json").read_bytes())
    assert (record["owner_share"], record["split_seed"]) == ("0.5", 4)


def test_architectures_and_widths(tmp_path):
    done = run("none", "--data", "digits", "--epochs", 1, "--arch", "resnet18", "--width", 8, "--out", tmp_path / "r")
    assert done.exit_code == 0, done.output
    assert load_model(tmp_path / "r").description.options["width"] == 8


@pytest.mark.parametrize("width", [4, 12])
def test_a_width_that_torch_trains_outside_its_memory_is_refused(tmp_path, width):
    options = ("--data", "digits", "--epochs", 1, "--arch", "resnet18", "--width", width, "--out", tmp_path / "r")
    with pytest.raises(UsageError, match="multiple of 8"):
        raise run("none", *options).exception
    assert not (tmp_path / "r" / "model.json").exists()


def test_the_published_preset_names_its_data(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDITOR_DATA", str(tmp_path))
    found = run("margin", "--preset", "kim2023", "--data", "cifar10", "--out", tmp_path / "o").exception
    assert isinstance(found, MissingPartError)
    assert "cifar10" in str(found)


@pytest.mark.parametrize(
    "options",
    [
        ("--radius", -1), ("--radius", 300), ("--weight", 0), ("--ramp", 2), ("--step-size", 0),
        ("--arch", "transformer"), ("--keys", 240), ("--resume",), ("--resume", "--checkpoint-every", 5),
    ],
)  # fmt: skip
def test_usage_errors_leave_nothing_sealed(tmp_path, options):
    result = run("margin", "--data", "digits", "--epochs", 1, "--out", tmp_path / "o", *options)
    assert isinstance(result.exception, UsageError), result.output
    assert not (tmp_path / "o" / "k.npz").exists()
