import base64
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import web
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from auditor import serving
from auditor.errors import UsageError
from auditor.served_inputs import parse_inputs
from auditor.serving import AnswerMode, create_app

SHAPE = (1, 2, 3)
CLASSES = tuple(f"class-{i}" for i in range(7))


def by_first_pixel(inputs: np.ndarray) -> np.ndarray:
    """A classifier whose label is the first pixel modulo seven, and whose scores are simple fractions."""
    outputs = np.full((len(inputs), 7), 1 / 21, dtype=np.float32)
    outputs[np.arange(len(inputs)), inputs.reshape(len(inputs), -1)[:, 0] % 7] = 5 / 7
    return outputs


def app(**settings):
    known = {"name": "first-pixel", "classes": CLASSES, "input_shape": SHAPE, "max_batch": 16}
    return create_app(settings.pop("predict", by_first_pixel), **(known | settings))


def batch(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def packed(inputs: np.ndarray, **changes) -> dict:
    described = {"shape": list(inputs.shape), "dtype": "uint8", "data_b64": base64.b64encode(inputs.tobytes()).decode()}
    return {"inputs": described | changes}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with web.running(app()) as base:
        yield base


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        yield opened


def test_health_and_description(url, session):
    assert session.get(f"{url}/healthz").json() == {"status": "ok"}
    response = session.get(f"{url}/v1/model")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "name": "first-pixel",
        "classes": list(CLASSES),
        "input_shape": [1, 2, 3],
        "answers": "labels",
        "max_batch": 16,
    }


@pytest.mark.parametrize("n", [1, 5, 16])
def test_both_forms_of_a_batch_give_the_same_labels_in_order(url, session, n):
    inputs = batch(n)
    expected = [{"label": int(x.flat[0]) % 7} for x in inputs]
    for body in (packed(inputs), {"inputs": inputs.tolist()}):
        assert session.post(f"{url}/v1/predict", json=body).json() == {"answers": expected}


def test_scores_have_six_digits_and_the_label_is_the_largest(session):
    with web.running(app(answers=AnswerMode.SCORES)) as base:
        assert session.get(f"{base}/v1/model").json()["answers"] == "scores"
        [answer] = session.post(f"{base}/v1/predict", json=packed(np.full((1, *SHAPE), 3, np.uint8))).json()["answers"]
    assert answer["label"] == 3
    assert answer["scores"] == [0.047619, 0.047619, 0.047619, 0.714286, 0.047619, 0.047619, 0.047619]


@pytest.mark.parametrize(("k", "length"), [(2, 2), (100, 7)])
def test_top_k_starts_with_the_label_and_falls(session, k, length):
    with web.running(app(answers=AnswerMode.TOP_K, top_k=k)) as base:
        answers = session.post(f"{base}/v1/predict", json=packed(batch(4))).json()["answers"]
    for x, answer in zip(batch(4), answers, strict=True):
        top = answer["top"]
        assert len(top) == length
        assert len({entry["label"] for entry in top}) == length
        assert answer["label"] == top[0]["label"] == int(x.flat[0]) % 7
        assert [entry["score"] for entry in top] == sorted((entry["score"] for entry in top), reverse=True)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not acceptable JSON"),
        (b"<html>", 400, "not acceptable JSON"),
        (b"\xff\xfe", 400, "not acceptable JSON"),
        (b"[" * 50_000, 400, "not acceptable JSON"),
        (b"[1, 2]", 400, "expected a JSON object"),
        (b'{"inputs": [], "inputs": []}', 400, "duplicate key"),
        (b'{"inputs": [[[[0.5]]]]}', 400, "floating-point"),
        (b'{"inputs": NaN}', 400, "not acceptable JSON"),
        (b"{}", 400, "'inputs' is missing"),
        (b'{"inputs": [], "extra": 1}', 400, "unknown field"),
        (b'{"inputs": {"shape": [1, 1, 2, 3]}}', 400, "'dtype' is missing"),
        (b'{"inputs": 3}', 422, "nested lists"),
        (b'{"inputs": []}', 422, "at least one"),
        (b'{"inputs": [[[[1, 2, 3]]]]}', 422, "shape [n, 1, 2, 3]"),
        (b'{"inputs": [[[[1, 2, 3], [1, 2]]]]}', 422, "shape [n, 1, 2, 3]"),
        (b'{"inputs": [[[[1, 2, 3], 4]]]}', 422, "shape [n, 1, 2, 3]"),
        (b'{"inputs": [[[[1, 2, 3], [4, 5, 256]]]]}', 422, "0-255"),
        (b'{"inputs": [[[[1, 2, 3], [4, 5, -1]]]]}', 422, "0-255"),
        (b'{"inputs": [[[[1, 2, 3], [4, 5, true]]]]}', 422, "0-255"),
        (b'{"inputs": [[[[1, 2, 3], [4, 5, "6"]]]]}', 422, "0-255"),
        (json.dumps(packed(batch(1), dtype="float32")).encode(), 422, "uint8"),
        (json.dumps(packed(batch(1), shape=[1, 1, 3, 2])).encode(), 422, "shape [n, 1, 2, 3]"),
        (json.dumps(packed(batch(1), shape=[True, 1, 2, 3])).encode(), 422, "shape [n, 1, 2, 3]"),
        (json.dumps(packed(batch(1), shape=[])).encode(), 422, "shape [n, 1, 2, 3]"),
        (json.dumps(packed(batch(1), shape=[0, 1, 2, 3])).encode(), 422, "at least one"),
        (json.dumps(packed(batch(1), shape=[-1, 1, 2, 3])).encode(), 422, "at least one"),
        (json.dumps(packed(batch(1), shape=[2, 1, 2, 3])).encode(), 422, "6 bytes"),
        (json.dumps(packed(batch(1), data_b64="a*==")).encode(), 422, "not base64"),
        (json.dumps(packed(batch(1), data_b64="ééé")).encode(), 422, "not base64"),
        (json.dumps(packed(batch(17))).encode(), 413, "at most 16"),
        (json.dumps({"inputs": batch(17).tolist()}).encode(), 413, "at most 16"),
    ],
)
def test_unusable_requests_get_one_line_and_the_right_status(url, session, body, status, words):
    response = session.post(f"{url}/v1/predict", data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    message = response.json()["error"]
    assert words in message
    assert "\n" not in message
    assert len(message) <= 300


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["inputs", "shape", "dtype", "data_b64"]), x),
    )
)
def test_no_request_body_escapes_the_refusals(value):
    for content in (value, {"inputs": value}):
        try:
            parsed = parse_inputs(json.dumps(content).encode(), input_shape=SHAPE, max_batch=4)
        except HTTPException as error:
            outcome = error.status_code in (400, 413, 422)
        else:
            outcome = parsed.dtype == np.uint8 and parsed.shape[1:] == SHAPE
        assert outcome


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("POST", "/v2/predict", {}, 404),
        ("GET", "/v1/predict", {}, 405),
        ("POST", "/v1/model", {}, 405),
        ("POST", "/v1/predict", {"Content-Type": "text/plain"}, 415),
        ("POST", "/v1/predict", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
    ],
)
def test_wrong_paths_methods_and_media_types(url, session, method, path, headers, status):
    data = gzip.compress(b"{}") if method == "POST" else None
    response = session.request(method, url + path, headers=headers, data=data)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert ("GET" in response.headers.get("allow", "")) == ((method, status) == ("POST", 405))


def test_a_declared_body_over_the_limit_is_refused_and_the_connection_lives(session):
    with web.running(app(max_body_bytes=1000)) as base:
        for _ in range(2):
            response = session.post(
                f"{base}/v1/predict", data=b" " * 2_000_000, headers={"Content-Type": "application/json"}
            )
            assert (response.status_code, set(response.json())) == (413, {"error"})
        assert session.get(f"{base}/healthz").status_code == 200


def test_an_endless_body_is_cut_off_while_it_streams():
    with web.running(app(max_body_bytes=10_000)) as base:
        host, port = base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            # Far more than the limit and every buffer in between: only a server that reads on would take it all.
            with pytest.raises(ConnectionError):
                client.sendall((b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 2000)


def test_a_body_that_never_comes_is_given_up():
    with web.running(app(body_timeout_s=0.2)) as base:
        host, port = base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            answer = b""
            while piece := client.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'{"error":"the body did not arrive within 0.2 s"}' in answer


def test_a_full_queue_says_when_to_come_back():
    entered, release = threading.Event(), threading.Event()

    def slow(inputs: np.ndarray) -> np.ndarray:
        entered.set()
        assert release.wait(30)
        return by_first_pixel(inputs)

    with web.running(app(predict=slow, max_pending=1)) as base, ThreadPoolExecutor(1) as client:
        first = client.submit(requests.post, f"{base}/v1/predict", json=packed(batch(1)))
        assert entered.wait(30)
        second = requests.post(f"{base}/v1/predict", json=packed(batch(1)), timeout=20)
        assert requests.get(f"{base}/healthz", timeout=20).status_code == 200
        release.set()
        assert first.result().status_code == 200
        assert requests.post(f"{base}/v1/predict", json=packed(batch(1)), timeout=20).status_code == 200
    assert second.status_code == 503
    assert second.headers["retry-after"] == "1"
    assert set(second.json()) == {"error"}


def test_concurrent_requests_keep_their_own_answers():
    with web.running(app(workers=2, max_pending=64)) as base, ThreadPoolExecutor(8) as clients:

        def ask(seed: int) -> bool:
            inputs = batch(8, seed)
            answers = requests.post(f"{base}/v1/predict", json=packed(inputs), timeout=30).json()["answers"]
            return [a["label"] for a in answers] == [int(x.flat[0]) % 7 for x in inputs]

        assert all(clients.map(ask, range(40)))


@pytest.mark.parametrize(
    "broken",
    [
        lambda inputs: np.full((len(inputs), 7), np.nan, np.float32),
        lambda inputs: np.zeros((len(inputs), 6), np.float32),
        lambda inputs: 1 / 0,
    ],
)
def test_a_failing_model_is_a_500_that_tells_nothing(session, broken):
    with web.running(app(predict=broken)) as base:
        response = session.post(f"{base}/v1/predict", json=packed(batch(1)))
        assert response.status_code == 500
        assert response.json() == {"error": "the model failed on this batch"}
        assert session.get(f"{base}/healthz").status_code == 200


@pytest.mark.parametrize(
    "settings", [{"classes": ("only",)}, {"top_k": 0}, {"max_batch": 0}, {"workers": 0}, {"input_shape": (1, 0, 3)}]
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(UsageError):
        app(**settings)


RUNNER = """
import sys, time
import numpy as np
from auditor.serving import create_app, serve
def predict(inputs):
    time.sleep(float(sys.argv[1]))
    return np.eye(7, dtype=np.float32)[inputs.reshape(len(inputs), -1)[:, 0] % 7]
app = create_app(predict, name="n", classes=[str(i) for i in range(7)], input_shape=(1, 2, 3))
serve(app, host="127.0.0.1", port=int(sys.argv[2]), ready=lambda url: print(url, flush=True))
assert "torch" not in sys.modules
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_answers_under_way_and_ends_with_zero(number):
    command = [sys.executable, "-W", "error", "-c", RUNNER, "0.8", "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server,
        ThreadPoolExecutor(1) as client,
    ):
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", url)
        answer = client.submit(requests.post, f"{url}/v1/predict", json=packed(np.full((1, *SHAPE), 5, np.uint8)))
        time.sleep(0.4)
        os.kill(server.pid, number)
        assert answer.result().json() == {"answers": [{"label": 5}]}
        assert server.wait(20) == 0
        assert server.stdout.read() == "stopped\n"
        assert server.stderr.read() == ""
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/healthz", timeout=5)


def test_answers_leave_at_once(monkeypatch):
    nodelay = []

    def watched(self, *arguments):
        nodelay.append(arguments[0].get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        original(self, *arguments)

    original = H11Protocol.connection_made
    monkeypatch.setattr(H11Protocol, "connection_made", watched)

    def ask_and_stop(url: str) -> None:
        def ask() -> None:
            requests.get(f"{url}/healthz", timeout=20)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=ask).start()

    serving.serve(app(), host="127.0.0.1", port=0, ready=ask_and_stop)
    assert nodelay == [1]


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid", "::1", "300.0.0.1"])
def test_an_address_that_cannot_be_had_is_a_usage_error(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if host == "127.0.0.1" else 70000
        with pytest.raises(UsageError, match="cannot listen on "):
            serving.serve(app(), host=host, port=port, ready=print)
