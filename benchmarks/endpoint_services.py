"""The services that `endpoint.py` asks, each in processes of its own, and how a plain client speaks to them.

*table* answers by the first pixels after a set time, in the contract of ``auditor serve``, and costs next to nothing
itself. The others are real servers with a real model of the 8x8 digits, started from their own packages as the slow
tests start them (`tools/install_servers.sh`).
"""

import base64
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Body = dict[str, object]
Inputs = "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"

TABLE = """
import asyncio, base64, json, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

wait_s, n_scores = float(sys.argv[1]) / 1000, int(sys.argv[2])
scores = [round(1 / (j + 2), 9) for j in range(n_scores)]

async def describe(request):
    return JSONResponse({"name": "table", "classes": ["a", "b", "c", "d", "extra"] + ["x"] * max(0, n_scores - 5)})

def answer(first, second):
    label = 4 if not first else second
    if not n_scores:
        return {"label": label}
    told = scores[:]
    told[label] = 0.987654321
    return {"label": label, "scores": told}

async def predict(request):
    inputs = json.loads(await request.body())["inputs"]
    n = inputs["shape"][0]
    pixels = base64.b64decode(inputs["data_b64"])
    if wait_s:
        await asyncio.sleep(wait_s)
    size = len(pixels) // n
    return JSONResponse({"answers": [answer(pixels[i * size], pixels[i * size + 1]) for i in range(n)]})

app = Starlette(routes=[Route("/v1/model", describe), Route("/v1/predict", predict, methods=["POST"])])
config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
server = uvicorn.Server(config)

async def main():
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await task

asyncio.run(main())
"""


@dataclass(frozen=True)
class Service:
    """One running service."""

    url: str
    """What `verify --endpoint` is given."""
    profile: str
    side: int
    """Pixels along each side of an input."""
    predict: str
    """Path that a plain client posts to."""
    body: Callable[[Inputs], Body]
    """What a plain client sends for a batch, as `requests` and `httpx` turn into JSON."""
    n_answers: Callable[[Body], int]
    """How many answers a plain client finds in what comes back."""


@contextlib.contextmanager
def table(*, service_ms: float = 0.0, scores: int = 0) -> Iterator[Service]:
    """Run the service that answers by a table."""
    with _printing_its_address([sys.executable, "-c", TABLE, str(service_ms), str(scores)]) as url:
        yield _own_contract(url, side=28)


@contextlib.contextmanager
def auditor_serve() -> Iterator[Service]:
    """Run `auditor serve` with a small convolutional network and full scores."""
    from auditor import models

    with tempfile.TemporaryDirectory() as name:
        classes = tuple(map(str, range(10)))
        description = models.describe("small-cnn", input_shape=(1, 8, 8), classes=classes)
        models.save_model(Path(name) / "model", models.build(description, seed=0), description)
        command = [sys.executable, "-m", "auditor", "serve", str(Path(name) / "model"), "--port", "0"]
        with _printing_its_address(command) as url:
            yield _own_contract(url, side=8)


@contextlib.contextmanager
def mlserver() -> Iterator[Service]:
    """Run MLServer with a scikit-learn model behind the Open Inference Protocol v2, which answers with scores."""
    import servers

    with tempfile.TemporaryDirectory() as name, servers.mlserver(_scikit_learn(Path(name)), Path(name)) as url:
        yield Service(
            url=url,
            profile="open-inference-v2",
            side=8,
            predict="/infer",
            body=_open_inference,
            n_answers=lambda found: len(found["outputs"][0]["data"]) // 10,
        )


@contextlib.contextmanager
def mlflow() -> Iterator[Service]:
    """Run MLflow's model server with a scikit-learn model, which answers with labels."""
    import servers

    with tempfile.TemporaryDirectory() as name, servers.mlflow(_scikit_learn(Path(name)), Path(name)) as url:
        yield Service(
            url=url,
            profile="mlflow",
            side=8,
            predict="/invocations",
            body=lambda part: {"inputs": part.reshape(len(part), -1).tolist()},
            n_answers=lambda found: len(found["predictions"]),
        )


REAL = {"auditor serve": auditor_serve, "MLServer": mlserver, "MLflow": mlflow}


def _own_contract(url: str, *, side: int) -> Service:
    def body(part: Inputs) -> Body:
        data = base64.b64encode(part.tobytes()).decode()
        return {"inputs": {"shape": list(part.shape), "dtype": "uint8", "data_b64": data}}

    return Service(
        url=url,
        profile="auditor",
        side=side,
        predict="/v1/predict",
        body=body,
        n_answers=lambda found: len(found["answers"]),
    )


def _open_inference(part: Inputs) -> Body:
    data = (part / 255).astype(np.float32).reshape(-1).tolist()
    return {"inputs": [{"name": "pixels", "shape": list(part.shape), "datatype": "FP32", "data": data}]}


def _scikit_learn(folder: Path) -> Path:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    from auditor import datasets

    train = datasets.load("digits").train
    fitted = LogisticRegression(max_iter=200).fit(train.inputs.reshape(len(train), -1)[:300] / 1.0, train.labels[:300])
    skops.io.dump(fitted, folder / "model.skops")
    return folder / "model.skops"


@contextlib.contextmanager
def _printing_its_address(command: list[str]) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield "http" + line.partition("http")[2].split()[0]
    finally:
        process.terminate()
        process.wait(timeout=20)
