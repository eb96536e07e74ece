"""MLServer and MLflow from their own packages, audited as anybody runs them.

`tools/install_servers.sh` puts them into `.venv-servers`, or into the folder that AUDITOR_SERVERS names.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import servers
import skops.io
from sklearn.linear_model import LogisticRegression

from auditor import datasets
from auditor.evidence.raw_answers import read_raw_answers
from auditor.evidence.reading import reading_of
from auditor.suspects import open_suspect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A scikit-learn model of grey levels 0-255, in a file."""
    train = datasets.load("digits").train
    fitted = LogisticRegression(max_iter=200).fit(train.inputs.reshape(len(train), -1)[:300] / 1.0, train.labels[:300])
    path = tmp_path_factory.mktemp("model") / "model.skops"
    skops.io.dump(fitted, path)
    return path


@pytest.fixture(scope="module")
def inputs():
    return datasets.load("digits").test.inputs[:40]


def ask(url, profile, inputs):
    with open_suspect(endpoint=url, profile=profile) as suspect:
        described = suspect.describe()
        replies = [suspect.query(inputs[start : start + 16]).reply for start in range(0, len(inputs), 16)]
    reading = reading_of(described.suspect.reading)
    read = [raw.label for reply in replies for raw in read_raw_answers(reply.body, reading)]
    answers = [answer for reply in replies for answer in reply.answers]
    assert read == [answer.label for answer in answers]
    return described, answers


def probed(url):
    command = [sys.executable, "-m", "auditor", "probe", "--endpoint", url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_mlflow_models_serve(model, inputs, tmp_path):
    with servers.mlflow(model, tmp_path) as url:
        _, answers = ask(url, "mlflow", inputs)
        found = probed(url)
    expected = skops.io.load(model, trusted=[]).predict(inputs.reshape(len(inputs), -1).astype(float))
    assert [answer.label for answer in answers] == expected.tolist()
    assert (found["profile"], found["scores"], found["batch"]) == ("mlflow", 0, 16)


def test_mlserver_open_inference_protocol(model, inputs, tmp_path):
    with servers.mlserver(model, tmp_path) as url:
        described, answers = ask(url, "open-inference-v2", inputs)
        found = probed(url)
    expected = skops.io.load(model, trusted=[]).predict_proba(inputs.reshape(len(inputs), -1).astype(float))
    assert described.suspect.declared_name == "digits"
    np.testing.assert_allclose([answer.scores for answer in answers], expected, rtol=1e-3, atol=1e-6)
    assert (found["profile"], found["scores"], found["names"]) == ("open-inference-v2", 10, [])
