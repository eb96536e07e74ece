"""MLServer and MLflow from their own packages, audited as anybody runs them.

`tools/install_servers.sh` puts them into `.venv-servers`, or into the folder that AUDITOR_SERVERS names.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import skops.io
import web
from servers import SERVERS, started
from sklearn.linear_model import LogisticRegression

from auditor import datasets
from auditor.evidence.raw_answers import read_raw_answers
from auditor.evidence.reading import reading_of
from auditor.suspects import open_suspect

pytestmark = pytest.mark.slow
PROGRAMS = SERVERS / "bin"

SAVE = """
import sys, mlflow.sklearn, skops.io
mlflow.sklearn.save_model(skops.io.load(sys.argv[1], trusted=[]), sys.argv[2], serialization_format="skops")
"""
RUNTIME = '''
"""A runtime for MLServer that answers with probabilities."""

import numpy as np
import skops.io
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Digits(MLModel):
    async def load(self):
        self._model = skops.io.load(self.settings.parameters.extra["file"], trusted=[])
        return True

    async def predict(self, payload):
        (pixels,) = (NumpyCodec.decode_input(each) for each in payload.inputs)
        scores = self._model.predict_proba(np.rint(pixels * 255).reshape(len(pixels), -1))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
'''


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
    save = [str(PROGRAMS / "python"), "-c", SAVE, str(model), "saved"]
    subprocess.run(save, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    port = web.free_port()
    command = ["mlflow", "models", "serve", "-m", "saved", "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    with started(command, programs=PROGRAMS, folder=tmp_path, ready=f"{url}/ping"):
        _, answers = ask(url, "mlflow", inputs)
        found = probed(url)
    expected = skops.io.load(model, trusted=[]).predict(inputs.reshape(len(inputs), -1).astype(float))
    assert [answer.label for answer in answers] == expected.tolist()
    assert (found["profile"], found["scores"], found["batch"]) == ("mlflow", 0, 16)


def test_mlserver_open_inference_protocol(model, inputs, tmp_path):
    ports = [web.free_port() for _ in range(3)]
    (tmp_path / "runtime.py").write_text(RUNTIME)
    settings = {"host": "127.0.0.1", "http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2]}
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0}))
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
    parameters = {"extra": {"file": str(model)}}
    about = {"name": "digits", "implementation": "runtime.Digits", "inputs": [pixels], "parameters": parameters}
    (tmp_path / "model-settings.json").write_text(json.dumps(about))
    url = f"http://127.0.0.1:{ports[0]}/v2/models/digits"
    with started(["mlserver", "start", "."], programs=PROGRAMS, folder=tmp_path, ready=f"{url}/ready"):
        described, answers = ask(url, "open-inference-v2", inputs)
        found = probed(url)
    expected = skops.io.load(model, trusted=[]).predict_proba(inputs.reshape(len(inputs), -1).astype(float))
    assert described.suspect.declared_name == "digits"
    np.testing.assert_allclose([answer.scores for answer in answers], expected, rtol=1e-3, atol=1e-6)
    assert (found["profile"], found["scores"], found["names"]) == ("open-inference-v2", 10, [])
