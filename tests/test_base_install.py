"""The base installation re-checks bundles: small, without torch, scipy or any renderer (docs/adr/0009)."""

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from cases import TableSuspect, marked, seal_keys, small_protocol

from auditor import casefile
from auditor.audit import Request
from auditor.errors import DISTRIBUTION, EXTRAS, MissingPartError, missing_part
from auditor.report import plots

ROOT = Path(__file__).parent.parent
LIMIT_MB = 150
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BLOCK = f"""
import sys

for name in {sorted(EXTRAS)!r}:
    sys.modules[name] = None
sys.argv = ["auditor", *sys.argv[1:]]
from auditor.__main__ import main

main()
"""


def run_bare(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program as if no extra were installed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BLOCK, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment, cwd=cwd or ROOT
    )


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    opened = seal_keys(folder / "k.npz", small_protocol())
    casefile.verify(opened=opened, suspect=TableSuspect(marked), folder=folder / "bundle", request=Request())
    return folder


def test_check_recomputes_every_number_and_says_what_it_cannot_see(case):
    done = run_bare("check", str(case / "bundle"), "--render", "--json")
    assert done.returncode == 0, done.stderr
    steps = {step["title"]: step for step in json.loads(done.stdout)["steps"]}
    assert steps["results recomputed"]["outcome"] == "PASS"
    for title, word in (("report.html rendered again", "matplotlib"), ("report.pdf", "pyhanko")):
        assert steps[title]["outcome"] == "NOT CHECKED"
        assert word in steps[title]["detail"]
        assert "[report]" in steps[title]["detail"]


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("keys", "--help"), ("plan", "--scheme", "new-label", "--p", "0.9")],
)
def test_commands_of_the_base(arguments):
    done = run_bare(*arguments)
    assert done.returncode == 0, done.stderr


def test_the_plan_only_lacks_the_exact_optimum():
    arguments = ("plan", "--scheme", "new-label", "--p", "0.9", "--json")
    whole = subprocess.run([sys.executable, "-m", "auditor", *arguments], capture_output=True, check=True, cwd=ROOT)
    bare = json.loads(run_bare(*arguments).stdout)
    assert bare.pop("optimum") is None
    expected = json.loads(whole.stdout)
    assert expected.pop("optimum") is not None
    assert bare == expected


def test_keys_status_needs_no_extra(case):
    done = run_bare("keys", "status", str(case / "k.npz"))
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "extra"), [
    (("train", "none", "--data", "digits", "--out", "x"), "train"),
    (("serve", "nothing"), "serve"),
    (("report", "{bundle}", "--out", "{out}"), "report"),
    (("demo", "--out", "{out}"), "train"),
])  # fmt: skip
def test_a_command_that_needs_an_extra_names_it_and_ends_with_7(case, tmp_path, arguments, extra):
    places = {"bundle": case / "bundle", "out": tmp_path / "out"}
    done = run_bare(*(part.format(**places) for part in arguments), cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert f"[{extra}]" in line
    assert not (tmp_path / "out").exists()


def test_an_audit_without_a_renderer_keeps_its_evidence(tmp_path, monkeypatch, caplog):
    def absent():
        raise MissingPartError("nothing draws here")

    monkeypatch.setattr(plots, "renderer", absent)
    opened = seal_keys(tmp_path / "k.npz", small_protocol())
    made = casefile.verify(opened=opened, suspect=TableSuspect(marked), folder=tmp_path / "bundle", request=Request())
    assert made.report_name == "results.json"
    assert "no report was made: nothing draws here" in caplog.text
    assert not (tmp_path / "bundle" / "report.html").exists()


def test_every_optional_package_has_an_extra_and_no_other_name_has_one():
    extras = PROJECT["optional-dependencies"]
    assert set(EXTRAS.values()) == set(extras) - {"all", "test"}
    assert PROJECT["name"] == DISTRIBUTION
    assert missing_part(ModuleNotFoundError("x", name="torch.nn")).exit_code == 7
    assert missing_part(ModuleNotFoundError("x", name="auditor.nothing")) is None
    base = {line.partition(">")[0].lower() for line in PROJECT["dependencies"]}
    assert not base & {"torch", "scipy", "scikit-learn", "statsmodels", "matplotlib", "weasyprint", "pyhanko"}


@pytest.mark.slow
def test_the_wheel_alone_is_small_and_checks_bundles(case, tmp_path):
    """Build the wheel, install it into a fresh environment and measure what came with it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "fresh"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    command = [*pip, "--python", str(python), "install", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(command, check=True, timeout=600)
    (packages,) = home.glob("lib/python*/site-packages")
    size_mb = sum(path.lstat().st_size for path in packages.rglob("*")) / 1e6
    sys.stdout.write(f"base installation: {size_mb:.0f} MB\n")
    assert size_mb < LIMIT_MB
    assert not any((packages / name).exists() for name in EXTRAS)

    def run(*arguments: str) -> int:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        program = [str(home / "bin" / "auditor"), *arguments]
        return subprocess.run(program, cwd=tmp_path, env=environment, timeout=120, check=False).returncode

    assert run("--help") == 0
    assert run("check", str(case / "bundle")) == 0
    assert run("plan", "--scheme", "new-label", "--p", "0.9") == 0
    assert run("train", "none", "--data", "digits", "--out", "x") == 7
