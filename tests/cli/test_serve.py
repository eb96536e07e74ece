import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from auditor.cli.serve import serve
from auditor.errors import SuspectLoadError, UsageError
from auditor.models import build, describe, labels_of, save_model
from auditor.suspects import open_suspect

SHAPE = (1, 8, 8)
MAIN = "import typer; from auditor.cli.serve import serve; typer.run(serve)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("models") / "victim"
    description = describe("small-cnn", input_shape=SHAPE, classes=tuple("0123456789Δ"))
    save_model(made, build(description, seed=1), description)
    return made


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Run the command as a process and yield its one line."""
    command = [sys.executable, "-W", "error", "-c", MAIN, *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout.readline()
        finally:
            os.kill(process.pid, signal.SIGTERM)
            rest, errors = process.communicate(timeout=30)
        assert (process.returncode, rest, errors) == (0, "", "")


def test_a_served_model_answers_like_its_file(folder):
    inputs = np.random.default_rng(3).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    with serving(str(folder), "--max-batch", "40", "--threads", "2") as line:
        match = re.fullmatch(r"serving victim at (http://127\.0\.0\.1:[0-9]+)\n", line)
        assert match
        with open_suspect(endpoint=match[1]) as suspect, open_suspect(model=folder) as file:
            description = suspect.describe()
            served, local = suspect.query(inputs).reply.answers, file.query(inputs).reply.answers
            assert suspect.batch_size == 40
    assert (description.suspect.declared_name, description.n_labels) == ("victim", 11)
    assert [answer.label for answer in served] == [answer.label for answer in local]
    np.testing.assert_allclose([a.scores for a in served], [a.scores for a in local], rtol=1e-4, atol=1e-6)


def test_labels_only_reveals_nothing_else(folder):
    inputs = np.random.default_rng(4).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    with serving(str(folder / "model.safetensors"), "--labels-only", "--name", "shop") as line:
        assert line.startswith("serving shop at ")
        with open_suspect(endpoint=line.split()[-1]) as suspect:
            assert suspect.describe().extra["answers"] == "labels"
            reply = suspect.query(inputs).reply
    from auditor.models import load_model

    expected = labels_of(load_model(folder).network, inputs).tolist()
    assert [answer.label for answer in reply.answers] == expected
    assert b"score" not in reply.body


def invoke(*arguments: str):
    app = typer.Typer()
    app.command()(serve)
    return CliRunner().invoke(app, list(arguments))


def test_contradicting_options_and_unusable_files_are_named(folder, tmp_path):
    both = invoke(str(folder), "--labels-only", "--top-k", "3")
    assert isinstance(both.exception, UsageError)
    missing = invoke(str(tmp_path / "none.safetensors"))
    assert isinstance(missing.exception, SuspectLoadError)
    assert invoke(str(folder), "--port", "70000").exit_code == 2
    assert invoke(str(folder), "--top-k", "0").exit_code == 2


def test_the_help_names_every_option():
    shown = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    app = typer.Typer()
    app.command()(serve)
    text = shown.invoke(app, ["--help"]).output
    for option in ("--host", "--port", "--labels-only", "--top-k", "--max-batch", "--name", "--threads"):
        assert option in text
