"""Serving protocols played from their public specifications, for tests of endpoint profiles.

Each application reads requests with standard tools only, and answers by the first pixel of every input: class
``first % 5`` with 0.6, the others 0.1 each. None shares code with the adapters that are tested against it.
"""

import base64
import io
import json
from email.parser import BytesParser

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

PROVENANCE = {
    "auditor": "this package's own service, started itself",
    "open-inference-v2": "the Open Inference Protocol's page; MLServer and KServe are started too (slow tests)",
    "tensorflow-serving": "TensorFlow Serving's REST page; KServe's first protocol is started too (slow tests)",
    "mlflow": "MLflow's page on its scoring server; MLflow is started too (slow tests)",
    "torchserve": "TorchServe's page on its inference interface; TorchServe is started too (slow tests)",
    "huggingface-image": "Hugging Face's page on the task's input and output; no server of it is started",
    "image-upload": "no specification: the usual form of such services; LitServe is started too (slow tests)",
}
"""Where the played form of each built-in profile comes from, and what was tried for real."""

CLASSES = ("ant", "bee", "cat", "dog", "elk")
SIDE = 4


def expected(inputs):
    """Return the classes that every application here answers."""
    return [int(first) % 5 for first in np.asarray(inputs).reshape(len(inputs), -1)[:, 0]]


def scores_of(firsts):
    return [[0.6 if j == int(first) % 5 else 0.1 for j in range(5)] for first in firsts]


def _route(path, answer, *, describe=None, describe_path=None):
    async def post(request):
        return await answer(request)

    routes = [Route(path, post, methods=["POST"])]
    if describe is not None:

        async def get(request):
            return JSONResponse(describe)

        routes.append(Route(describe_path or path, get, methods=["GET"]))
    return Starlette(routes=routes)


def _bad(text):
    return JSONResponse({"error": text}, status_code=400)


def open_inference(*, labels=False):
    """Return the service of KServe's "Open Inference Protocol" v2: model metadata, and infer with flat data."""

    async def infer(request):
        (tensor,) = (await request.json())["inputs"]
        if tensor["name"] != "pixels" or tensor["datatype"] != "FP32" or tensor["shape"][1:] != [1, SIDE, SIDE]:
            return _bad("unexpected input")
        values = np.array(tensor["data"]).reshape(tensor["shape"])
        rows = scores_of(np.rint(values[:, 0, 0, 0] * 255))
        output = {
            "name": "scores",
            "datatype": "FP32",
            "shape": [len(rows), 5],
            "data": [s for row in rows for s in row],
        }
        if labels:
            numbers = [int(np.argmax(row)) for row in rows]
            output = {"name": "predict", "datatype": "INT64", "shape": [len(rows), 1], "data": numbers}
        return JSONResponse({"model_name": "animals", "id": "1", "outputs": [output]})

    inputs = [{"name": "pixels", "datatype": "FP32", "shape": [-1, 1, SIDE, SIDE]}]
    metadata = {"name": "animals", "platform": "onnx", "inputs": inputs, "outputs": []}
    return _route("/v2/models/animals/infer", infer, describe=metadata, describe_path="/v2/models/animals")


def tensorflow_serving():
    """Return the REST service of TensorFlow Serving: row format, channels last."""

    async def predict(request):
        values = np.array((await request.json())["instances"])
        if values.shape[1:] != (SIDE, SIDE, 1):
            return _bad("unexpected shape")
        return JSONResponse({"predictions": scores_of(np.rint(values[:, 0, 0, 0] * 255))})

    metadata = {"model_spec": {"name": "animals", "version": "1"}, "metadata": {}}
    path = "/v1/models/animals"
    return _route(f"{path}:predict", predict, describe=metadata, describe_path=f"{path}/metadata")


def mlflow():
    """Return MLflow's scoring server: ``inputs`` in, ``predictions`` out, class numbers as a scikit-learn model has."""

    async def invocations(request):
        values = np.array((await request.json())["inputs"])
        if values.ndim != 2:
            return _bad("unexpected shape")
        return JSONResponse({"predictions": [int(first) % 5 for first in values[:, 0]]})

    return _route("/invocations", invocations)


def first_pixel_of(data):
    return int(np.asarray(Image.open(io.BytesIO(data))).reshape(-1)[0])


def torchserve():
    """Return TorchServe with its image classifier: a file in, the best probabilities by class name out."""

    async def predictions(request):
        (row,) = scores_of([first_pixel_of(await request.body())])
        best = sorted(zip(CLASSES, row, strict=True), key=lambda pair: -pair[1])
        return JSONResponse(dict(best))

    return _route("/predictions/animals", predictions)


def huggingface(*, top=5):
    """Return Hugging Face's image classification task: a file in, a list of labels with scores out."""

    async def classify(request):
        (row,) = scores_of([first_pixel_of(await request.body())])
        best = sorted(zip(CLASSES, row, strict=True), key=lambda pair: -pair[1])
        return JSONResponse([{"label": name, "score": score} for name, score in best[:top]])

    return _route("/models/animals", classify)


def upload():
    """Return a plain service that takes an upload in a form and names the class."""

    async def classify(request):
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        (part,) = BytesParser().parsebytes(head + await request.body()).get_payload()
        if part.get_param("name", header="content-disposition") != "file":
            return _bad("no file")
        first = first_pixel_of(part.get_payload(decode=True))
        return JSONResponse({"prediction": CLASSES[first % 5], "took_ms": 3})

    return _route("/predict", classify)


def base64_images():
    """Return a service of nobody's standard: images as base64, tags nested deep, a key in a header."""

    async def tag(request):
        if request.headers.get("x-api-key") != "k3y-0123456789":
            return JSONResponse({"error": "who are you"}, status_code=401)
        firsts = [first_pixel_of(base64.b64decode(item["content"])) for item in (await request.json())["pictures"]]
        found = [{"tags": [{"tag": CLASSES[first % 5], "p": 0.6}, {"tag": "none", "p": 0.1}]} for first in firsts]
        return JSONResponse({"result": {"pictures": found}}, headers={"X-Request-Id": "7", "Set-Cookie": "id=secret"})

    return _route("/tag", tag)


def echo():
    """Return a service that repeats the request's headers in its answer."""

    async def repeat(request):
        return JSONResponse({"answers": [{"label": 1}], "debug": json.dumps(dict(request.headers))})

    return _route("/v1/predict", repeat)
