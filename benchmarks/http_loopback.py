"""Throughput of the service and of the HTTP suspect on loopback, with a model that costs nothing.

Run: ``OMP_NUM_THREADS=1 python benchmarks/http_loopback.py``. Prints one JSON object; rates are medians of seven
rounds, and the ratio compares the suspect with a bare ``requests`` loop that sends the same bodies (1 = no overhead).
"""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import requests

from auditor.suspects.http import HttpSuspect

SERVER = """
import sys
import numpy as np
from auditor.serving import AnswerMode, create_app, serve
shape, mode = tuple(map(int, sys.argv[1].split("x"))), AnswerMode(sys.argv[2])
outputs = np.tile(np.eye(11, dtype=np.float32)[:1], (256, 1))
classes = [str(i) for i in range(11)]
app = create_app(lambda x: outputs[: len(x)], name="t", classes=classes, input_shape=shape, answers=mode)
serve(app, host="127.0.0.1", port=0, ready=lambda url: print(url, flush=True))
"""
ROUNDS = 7


def seconds(work: Callable[[], object], n: int) -> float:
    started_s = time.perf_counter()
    for _ in range(n):
        work()
    return time.perf_counter() - started_s


def measure(shape: str, mode: str, batch: int) -> dict[str, object]:
    inputs = np.random.default_rng(0).integers(0, 256, (batch, *map(int, shape.split("x"))), dtype=np.uint8)
    command = [sys.executable, "-c", SERVER, shape, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, requests.Session() as session:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        session.trust_env = False

        def bare() -> None:
            data = base64.b64encode(inputs.tobytes()).decode()
            body = {"inputs": {"shape": list(inputs.shape), "dtype": "uint8", "data_b64": data}}
            answers = session.post(f"{url}/v1/predict", json=body, timeout=30).json()["answers"]
            assert len(answers) == batch

        n = 100
        with HttpSuspect(url) as suspect:
            suspect.query(inputs)
            rounds = [(seconds(bare, n), seconds(lambda: suspect.query(inputs), n)) for _ in range(ROUNDS)]
        server.terminate()
    rate = median(batch * n / own for _, own in rounds)
    ratio = median(own / other for other, own in rounds)
    return {"shape": shape, "answers": mode, "batch": batch, "images_per_s": round(rate), "ratio": round(ratio, 2)}


if __name__ == "__main__":
    cases = [(s, m, b) for s in ("1x8x8", "1x28x28") for m in ("labels", "scores") for b in (1, 64)]
    print(json.dumps([measure(*case) for case in cases], indent=1))
