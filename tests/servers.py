"""Starts servers from their own packages, for slow tests; tools/install_servers.sh installs them."""

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import web

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
ROOT = Path(__file__).parent.parent
SERVERS = Path(os.environ.get("AUDITOR_SERVERS", ROOT / ".venv-servers"))
KSERVE = SERVERS.with_name(SERVERS.name + "-kserve") / "bin"
TORCHSERVE = SERVERS.with_name(SERVERS.name + "-torchserve") / "bin"
START_S = 240.0


@contextlib.contextmanager
def started(command, *, programs, folder, ready):
    """Run a program of ``programs`` in ``folder`` until the block ends; it is up once ``ready`` answers 200."""
    assert (programs / command[0]).exists(), "run tools/install_servers.sh, or name its folder in AUDITOR_SERVERS"
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    # Some keep the number of their process among the temporary files, and refuse to start where one is left.
    environment["TMPDIR"] = str(folder)

    def answers():
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(ready, timeout=5) as response:
            return response.status == 200
        return False

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / command[0]), *command[1:]],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            # A group of its own, because most start further processes, which outlive the first one.
            start_new_session=True,
        )
        try:
            web.wait_until(answers, timeout_s=START_S)
            yield
        finally:
            stop(process)


@contextlib.contextmanager
def mlflow(model, folder):
    """Run MLflow's model server with a scikit-learn model of rows of grey levels, and yield its URL."""
    programs = SERVERS / "bin"
    save = [str(programs / "python"), "-c", SAVE, str(model), "saved"]
    subprocess.run(save, cwd=folder, check=True, capture_output=True, timeout=300)
    port = web.free_port()
    command = ["mlflow", "models", "serve", "-m", "saved", "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    with started(command, programs=programs, folder=folder, ready=f"{url}/ping"):
        yield url


@contextlib.contextmanager
def mlserver(model, folder):
    """Run MLServer with such a model behind the Open Inference Protocol v2, and yield the model's URL."""
    ports = [web.free_port() for _ in range(3)]
    (folder / "runtime.py").write_text(RUNTIME)
    settings = {"host": "127.0.0.1", "http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2]}
    (folder / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0}))
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
    parameters = {"extra": {"file": str(model)}}
    about = {"name": "digits", "implementation": "runtime.Digits", "inputs": [pixels], "parameters": parameters}
    (folder / "model-settings.json").write_text(json.dumps(about))
    url = f"http://127.0.0.1:{ports[0]}/v2/models/digits"
    with started(["mlserver", "start", "."], programs=SERVERS / "bin", folder=folder, ready=f"{url}/ready"):
        yield url


def stop(process):
    """End a process with all that it started: at first politely, and then whatever is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
