"""The whole dry run on digits: two workers, kill and resume, and the same trials on a Ray cluster of this machine."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from auditor.cli.app import app

CONFIG = """
[study]
name = "two trials"
data = "digits"
seeds = [1]
epochs = 1

[[scheme]]
name = "new-label"

[[attack]]
name = "prune"
strength = 0.5
settings = { rate = 0.5 }

[innocents]
seeds = [100]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["dry-run", *map(str, arguments)])


def outcomes(folder):
    """Everything in the records except what differs between two runs of the same computation."""
    records = [json.loads(path.read_bytes()) for path in (folder / "trials").glob("*.json")]
    for record in records:
        record.pop("seconds")
    return {record["key"]: record for record in records}


def test_a_dry_run_writes_records_tables_and_page_and_does_nothing_twice(config, tmp_path):
    result = run(config, "--workers", 2)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "run.study"
    assert len(outcomes(folder)) == 3
    assert "0 of 1 independent models were claimed" in result.stdout.replace("\n", " ")
    assert result.stdout.rstrip().endswith("study.html")
    page = (folder / "study.html").read_text()
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json") if path.name != "study.json"}
    (lost,) = (path for path, record in _records(folder) if record["role"] == "innocent")
    lost.unlink()
    again = run(config, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["schemes"][0]["false_claims"]["models"] == 1
    assert [path for path in written if path.stat().st_mtime_ns != written[path]] == [lost]


def test_a_killed_dry_run_goes_on_where_it_was(config, tmp_path):
    folder = tmp_path / "run.study"
    command = [sys.executable, "-m", "auditor", "dry-run", str(config), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline_s = time.monotonic() + 240
    while not list(folder.glob("models/*/complete")):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("models/*/complete")}
    assert run(config).exit_code == 0
    assert len(outcomes(folder)) == 3
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


@pytest.mark.slow
def test_a_ray_cluster_of_one_machine_finds_the_same(config, tmp_path):
    config.write_text(CONFIG.replace("[innocents]\nseeds = [100]", ""))
    local, cluster = tmp_path / "local", tmp_path / "cluster"
    assert run(config, "--out", local).exit_code == 0
    command = [sys.executable, "-m", "auditor", "dry-run", str(config), "--out", str(cluster), "--ray", "local"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert outcomes(cluster) == outcomes(local)


def test_a_failing_attack_costs_only_its_own_trial(config, tmp_path):
    # More questions than the attacker has images: known only where the attack runs.
    asked = 'name = "extract"\nsettings = { epochs = 1, budget = 100000 }'
    config.write_text(CONFIG.replace('name = "prune"\nstrength = 0.5\nsettings = { rate = 0.5 }', asked))
    result = run(config)
    assert result.exit_code == 0, result.output
    assert "new-label, extract, seed 1:" in result.stderr
    summary = json.loads((tmp_path / "run.study" / "study.json").read_bytes())
    assert [suspect["failed"] for suspect in summary["schemes"][0]["suspects"]] == [0, 1]
    path, _ = _records(tmp_path / "run.study")[0]
    path.write_text("{}")
    damaged = run(config)
    assert damaged.exit_code == 5
    assert path.name in damaged.stderr


@pytest.mark.parametrize(
    ("old", "new", "code", "told"),
    [
        ('data = "digits"', 'data = "letters"', 2, "unknown data set"),
        ('name = "new-label"', 'name = "old-label"', 2, "unknown scheme"),
        ('name = "new-label"', 'name = "new-label"\nsettings = { gamma = 1 }', 2, "no setting 'gamma'"),
        ("rate = 0.5 }", "rate = 2.0 }", 2, "pruning rate"),
        ('name = "prune"', 'name = "paint"', 2, "unknown attack"),
        ('name = "prune"', 'name = "prune"\ndata = "rest"', 2, "owner_share is missing"),
        ("epochs = 1", "epochs = 0", 2, "study.epochs"),
        ("epochs = 1", 'architecture = "tower"', 2, "tower"),
    ],
)
def test_what_cannot_be_run_is_said_on_one_line(config, old, new, code, told):
    config.write_text(CONFIG.replace(old, new))
    result = run(config)
    assert result.exit_code == code
    assert told in result.stderr.splitlines()[-1]


def test_a_folder_with_other_things_in_it_is_refused(config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    result = run(config, "--out", tmp_path / "mine")
    assert result.exit_code == 2
    assert "something else" in result.stderr


def test_no_cluster_at_an_address_is_one_line(config):
    command = [sys.executable, "-m", "auditor", "dry-run", str(config), "--ray", "127.0.0.1:1"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 6
    assert "no Ray cluster" in finished.stderr.splitlines()[-1]


def _records(folder):
    return [(path, json.loads(path.read_bytes())) for path in (folder / "trials").glob("*.json")]
