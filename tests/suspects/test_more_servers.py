"""KServe, TorchServe and LitServe from their own packages: profiles against what these servers really answer.

Each serves the table of tests/contracts.py: class ``first pixel % 5`` with 0.6, the others 0.1 each.
"""

import json
import os
import subprocess
import sys

import contracts
import numpy as np
import pytest
import web
from servers import KSERVE, TORCHSERVE, started

from auditor.evidence.raw_answers import read_raw_answers
from auditor.evidence.reading import reading_of
from auditor.suspects import open_suspect

pytestmark = pytest.mark.slow

CLASSES = json.dumps(contracts.CLASSES)
KSERVE_PROGRAM = """
import sys
import numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer


class Animals(Model):
    def __init__(self):
        super().__init__("animals")
        self.ready = True

    async def get_input_types(self):
        return [{"name": "pixels", "datatype": "FP32", "shape": [-1, 1, 4, 4]}]

    async def get_output_types(self):
        return [{"name": "scores", "datatype": "FP32", "shape": [-1, 5]}]

    def predict(self, payload, headers=None, response_headers=None):
        first_protocol = isinstance(payload, dict)
        pixels = np.asarray(payload["instances"]) if first_protocol else payload.inputs[0].as_numpy()
        first = np.rint(pixels.reshape(len(pixels), -1)[:, 0] * 255).astype(int) % 5
        rows = np.where(np.arange(5) == first[:, None], 0.6, 0.1)
        if first_protocol:
            return {"predictions": rows.tolist()}
        scores = InferOutput(name="scores", datatype="FP32", shape=list(rows.shape), data=rows.ravel().tolist())
        return InferResponse(response_id="1", model_name=self.name, infer_outputs=[scores])


ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([Animals()])
"""
LITSERVE_PROGRAM = f"""
import io
import sys
import litserve
import numpy as np
from PIL import Image

CLASSES = {CLASSES}


class Animals(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return np.asarray(Image.open(io.BytesIO(request["file"].file.read())))

    def predict(self, pixels):
        return int(pixels.ravel()[0]) % 5

    def encode_response(self, best):
        return {{"label": CLASSES[best], "scores": {{n: 0.6 if j == best else 0.1 for j, n in enumerate(CLASSES)}}}}


if __name__ == "__main__":
    server = litserve.LitServer(Animals(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""
TORCHSERVE_HANDLER = f"""
import io
import numpy as np
from PIL import Image

CLASSES = {CLASSES}


def handle(data, context):
    if data is None:
        return None
    found = []
    for row in data:
        best = int(np.asarray(Image.open(io.BytesIO(row.get("data") or row.get("body")))).ravel()[0]) % 5
        found.append({{name: 0.6 if j == best else 0.1 for j, name in enumerate(CLASSES)}})
    return found
"""


@pytest.fixture(scope="module")
def inputs():
    side = contracts.SIDE
    return np.random.default_rng(11).integers(0, 256, (12, 1, side, side), dtype=np.uint8)


def ask(url, profile, inputs):
    with open_suspect(endpoint=url, profile=profile, classes=contracts.CLASSES) as suspect:
        described = suspect.describe()
        size = suspect.batch_size
        replies = [suspect.query(inputs[start : start + size]).reply for start in range(0, len(inputs), size)]
    answers = [answer for reply in replies for answer in reply.answers]
    reading = reading_of(described.suspect.reading)
    assert [raw.label for reply in replies for raw in read_raw_answers(reply.body, reading)] == [
        answer.label for answer in answers
    ]
    assert [answer.label for answer in answers] == contracts.expected(inputs)
    return described, answers


def test_kserve_speaks_both_protocols(inputs, tmp_path):
    port = web.free_port()
    (tmp_path / "program.py").write_text(KSERVE_PROGRAM)
    base = f"http://127.0.0.1:{port}"
    with started(
        ["python", "program.py", str(port)],
        programs=KSERVE,
        folder=tmp_path,
        ready=f"{base}/v2/models/animals/ready",
    ):
        described, answers = ask(f"{base}/v2/models/animals", "open-inference-v2", inputs)
        # The first protocol is TensorFlow Serving's REST interface, which this package does not start itself.
        _, first = ask(f"{base}/v1/models/animals", "tensorflow-serving", inputs)
    assert described.suspect.declared_name == "animals"
    np.testing.assert_allclose([answer.scores for answer in answers], contracts.scores_of(inputs[:, 0, 0, 0]))
    np.testing.assert_allclose([answer.scores for answer in first], contracts.scores_of(inputs[:, 0, 0, 0]))


def test_litserve_takes_uploads(inputs, tmp_path):
    port = web.free_port()
    (tmp_path / "program.py").write_text(LITSERVE_PROGRAM)
    url = f"http://127.0.0.1:{port}"
    command = ["python", "program.py", str(port)]
    with started(command, programs=KSERVE, folder=tmp_path, ready=f"{url}/health"):
        ask(f"{url}/predict", "image-upload", inputs)


def test_torchserve_predicts_from_files(inputs, tmp_path):
    ports = [web.free_port() for _ in range(3)]
    (tmp_path / "handler.py").write_text(TORCHSERVE_HANDLER)
    archiver = [str(TORCHSERVE / "python"), "-m", "model_archiver.model_packaging"]
    archive = [
        *archiver,
        "--model-name",
        "animals",
        "--version",
        "1.0",
        "--handler",
        "handler.py",
        "--export-path",
        ".",
    ]
    subprocess.run(archive, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    names = ("inference", "management", "metrics")
    lines = [f"{name}_address=http://127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)]
    lines += ["disable_token_authorization=true", "default_workers_per_model=1", "number_of_netty_threads=2"]
    (tmp_path / "config.properties").write_text("\n".join(lines))
    start = ["torchserve", "--foreground", "--start", "--ncs", "--model-store", ".", "--models", "animals=animals.mar"]
    url = f"http://127.0.0.1:{ports[0]}"
    command = [*start, "--ts-config", "config.properties"]
    with started(command, programs=TORCHSERVE, folder=tmp_path, ready=f"{url}/ping"):
        _, answers = ask(f"{url}/predictions/animals", "torchserve", inputs)
        probe = [sys.executable, "-m", "auditor", "probe", "--endpoint", f"{url}/predictions/animals", "--json"]
        found = subprocess.run(probe, capture_output=True, text=True, timeout=120, check=True, env=os.environ)
    assert answers[0].scores is not None
    assert json.loads(found.stdout)["profile"] == "torchserve"
