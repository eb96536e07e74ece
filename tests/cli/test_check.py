import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "evidence"))

import bundles
import typer
from typer.testing import CliRunner

from auditor.cli.check import check
from auditor.errors import MissingPartError, UsageError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def made(tmp_path):
    return bundles.make_bundle(tmp_path / "bundle")


def run(*arguments):
    app = typer.Typer()
    app.command("check")(check)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def keys(made) -> list[str]:
    return ["--owner-key", made.owner.fingerprint, "--examiner-key", made.examiner.fingerprint]


def test_an_intact_bundle_ends_with_0_and_a_table(made):
    done = run(made.folder, *keys(made))
    assert done.exit_code == 0
    assert done.stderr == ""
    assert "expected keys" in done.stdout
    assert done.stdout.splitlines()[-1] == "intact: 9 of 22 steps not checked"


def test_strict_counts_unchecked_steps_as_failures(made):
    done = run(made.folder, *keys(made), "--strict")
    assert done.exit_code == 5
    assert done.stdout.splitlines()[-1].endswith("(--strict)")


def test_a_broken_bundle_ends_with_5(made):
    (made.folder / "results.json").write_bytes(b"{}\n")
    done = run(made.folder)
    assert done.exit_code == 5
    assert done.stdout.splitlines()[-1].startswith("BROKEN")
    assert "results.json differs" in done.stdout


def test_a_wrong_key_ends_with_5(made):
    assert run(made.folder, "--owner-key", "00" * 32).exit_code == 5


def test_what_is_no_bundle_ends_with_5(tmp_path):
    assert run(tmp_path).exit_code == 5


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "00" * 33])
def test_a_fingerprint_that_is_none_is_a_usage_error(made, text):
    done = run(made.folder, "--owner-key", text)
    assert isinstance(done.exception, UsageError)
    assert "--owner-key" in str(done.exception)


def test_json_prints_one_object_and_nothing_else(made):
    done = run(made.folder, *keys(made), "--json")
    told = json.loads(done.stdout)
    assert told["intact"] is True
    assert told["complete"] is False
    assert told["accepted"] is True
    assert [step["number"] for step in told["steps"]] == list(range(1, 23))
    assert {step["outcome"] for step in told["steps"]} == {"PASS", "NOT CHECKED"}
    (made.folder / "env.json").unlink()
    done = run(made.folder, "--json")
    assert done.exit_code == 5
    assert json.loads(done.stdout)["accepted"] is False


def test_render_hands_the_evidence_to_the_report(made, monkeypatch):
    stored = (made.folder / "report.html").read_bytes()
    monkeypatch.setattr("auditor.report.html.render_html", lambda given: stored)
    told = json.loads(run(made.folder, "--render", "--json").stdout)
    assert told["steps"][14] == {
        "number": 15,
        "title": "report.html rendered again",
        "outcome": "PASS",
        "detail": "equal byte for byte",
    }


def test_a_missing_renderer_leaves_the_step_unchecked(made, monkeypatch):
    def missing(given):
        raise MissingPartError("install x")

    monkeypatch.setattr("auditor.report.html.render_html", missing)
    done = run(made.folder, "--render", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["steps"][14]["detail"] == "install x"


BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "requests", "jinja2", "matplotlib", "weasyprint", "pyhanko", "sklearn"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import typer
from auditor.cli.check import check
app = typer.Typer()
app.command("check")(check)
app(sys.argv[1:])
"""


def test_checking_needs_no_torch_no_network_and_no_renderer(made):
    command = [sys.executable, "-c", BLOCKED, str(made.folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["intact"] is True


def test_the_key_set_of_another_seal_fails_the_step(made, tmp_path):
    from cases import seal_keys, small_protocol

    seal_keys(tmp_path / "k.npz", small_protocol())
    done = run(made.folder, "--keyset", tmp_path / "k.npz", "--json")
    assert done.exit_code == 5
    step = json.loads(done.stdout)["steps"][16]
    assert (step["title"], step["outcome"]) == ("generation of the keys", "FAIL")
    assert "not the one inside the key set" in step["detail"]
    assert isinstance(run(made.folder, "--keyset", tmp_path / "none.npz").exception, UsageError)


def test_a_bundle_that_is_not_there_is_usage(tmp_path):
    done = run(tmp_path / "nowhere")
    assert isinstance(done.exception, UsageError)
