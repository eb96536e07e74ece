import base64
import email.utils
import gzip
import json
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import web

from auditor.canonical import canonical_bytes, sha256_hex
from auditor.errors import (
    SuspectAnswerError,
    SuspectRefusedError,
    SuspectThrottledError,
    SuspectUnavailableError,
    UsageError,
)
from auditor.records import Answer
from auditor.serving import AnswerMode, create_app
from auditor.suspects import open_suspect
from auditor.suspects.http import HttpSuspect
from auditor.suspects.http.dialects import question

SHAPE = (1, 4, 4)
TWO = np.zeros((2, *SHAPE), dtype=np.uint8)
GOOD = json.dumps({"answers": [{"label": 1}, {"label": 2}]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def first_pixel(inputs: np.ndarray) -> np.ndarray:
    outputs = np.full((len(inputs), 5), 0.125, dtype=np.float32)
    outputs[np.arange(len(inputs)), inputs.reshape(len(inputs), -1)[:, 0] % 5] = 0.5
    return outputs


class Waits:
    """Records what a suspect wanted to wait for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def opened(waits: Waits) -> Iterator[Callable[..., HttpSuspect]]:
    suspects = []

    def start(url: str, **settings: object) -> HttpSuspect:
        known = {"timeout_s": 10.0, "sleep": waits, "jitter": lambda: 1.0}
        suspects.append(HttpSuspect(url, **(known | settings)))
        return suspects[-1]

    yield start
    for suspect in suspects:
        suspect.close()


@pytest.mark.parametrize("mode", AnswerMode)
def test_the_real_service_end_to_end(opened, mode):
    app = create_app(
        first_pixel, name="m", classes=tuple("abcde"), input_shape=SHAPE, answers=mode, top_k=2, max_batch=16
    )
    inputs = np.random.default_rng(0).integers(0, 256, (16, *SHAPE), dtype=np.uint8)
    with web.running(app) as url:
        suspect = opened(url + "/")
        assert suspect.batch_size == 64
        description = suspect.describe()
        assert suspect.batch_size == 16
        exchanges = [suspect.query(inputs) for _ in range(3)]
    told = {"name": "m", "classes": list("abcde"), "input_shape": [1, 4, 4], "answers": mode.value, "max_batch": 16}
    assert description.suspect.uri == url
    assert description.suspect.kind == "http"
    assert description.suspect.address == "127.0.0.1"
    assert description.suspect.declared_name == "m"
    assert description.suspect.artefact_sha256 == sha256_hex(canonical_bytes(told))
    assert (description.input_shape, description.n_labels) == (SHAPE, 5)
    assert description.extra == {"answers": mode.value}
    for exchange in exchanges:
        labels = [answer.label for answer in exchange.reply.answers]
        assert labels == [int(x.flat[0]) % 5 for x in inputs]
        assert exchange.failed_attempts == ()
        assert exchange.reply.status == 200
        assert email.utils.parsedate_to_datetime(exchange.reply.server_date)
        assert json.loads(exchange.reply.body)["answers"][0]["label"] == labels[0]
        scores = exchange.reply.answers[0].scores
        assert scores == (None if mode is not AnswerMode.SCORES else tuple(first_pixel(inputs[:1])[0].tolist()))


def test_the_question_is_canonical_and_carries_the_batch():
    inputs = np.random.default_rng(5).integers(0, 256, (3, 2, 4, 5), dtype=np.uint8)
    body = question(inputs)
    told = json.loads(body)
    assert canonical_bytes(told) == body
    assert told["inputs"]["shape"] == [3, 2, 4, 5]
    assert base64.b64decode(told["inputs"]["data_b64"]) == inputs.tobytes()


def test_connections_are_reused(opened):
    sources = []

    def step(handler):
        sources.append(handler.client_address)
        web.sends(body=GOOD)(handler)

    with web.faulty(step) as server:
        suspect = opened(server.url)
        for _ in range(5):
            suspect.query(TWO)
        suspect.close()
    assert len(sources) == 5
    assert len(set(sources)) == 1


def test_each_question_carries_its_own_body_and_length_and_every_one_the_same_headers(opened):
    def step(handler):
        # One question is sent on; the next one starts at the first address again.
        if len(server.requests) == 3:
            web.sends(307, headers={"Location": "/moved"})(handler)
            return
        body = server.requests[-1][3]
        n = json.loads(body)["inputs"]["shape"][0] if body else 0
        web.sends(body=json.dumps({"answers": [{"label": 1}] * n}).encode())(handler)

    inputs = np.random.default_rng(2).integers(0, 256, (9, *SHAPE), dtype=np.uint8)
    with web.faulty(step) as server:
        suspect = opened(server.url.replace("//", "//me:s3cret-s3cret@") + "?key=1234567890")
        suspect.query(inputs[:2])
        suspect.query(inputs)
        suspect.query(inputs[3:6])
        suspect.describe()
        suspect.query(inputs[:1])
        suspect.close()
    sizes = {path: [] for path in ("/v1/predict?key=1234567890", "/moved", "/v1/model?key=1234567890")}
    for method, path, headers, body in server.requests:
        asked = body and json.loads(body)["inputs"]["shape"][0]
        sizes[path].append(asked or method)
        assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:s3cret-s3cret").decode()
        assert (headers.get("Content-Length"), headers.get("Content-Type")) == (
            (str(len(body)), "application/json") if body else (None, None)
        )
    assert list(sizes.values()) == [[2, 9, 3, 1], [3], ["GET"]]
    bodies = [body for _, path, _, body in server.requests if path.startswith("/v1/predict")]
    assert bodies == [question(part) for part in (inputs[:2], inputs, inputs[3:6], inputs[:1])]


def test_a_top_list_that_names_every_label_becomes_scores(opened):
    def listed(order):
        return {"answers": [{"top": [{"label": j, "score": s} for j, s in order]}] * 2}

    told = json.dumps({"classes": ["a", "b", "c"]}).encode()
    full, part = listed([(2, 0.5), (0, 0.375), (1, 0.125)]), listed([(1, 0.25), (2, 0.5)])
    with web.faulty(
        *(web.sends(body=b) for b in (told, json.dumps(full).encode(), json.dumps(part).encode()))
    ) as server:
        suspect = opened(server.url)
        suspect.describe()
        assert suspect.query(TWO).reply.answers == (Answer(label=2, scores=(0.375, 0.125, 0.5)),) * 2
        assert suspect.query(TWO).reply.answers == (Answer(label=2, top=((1, 0.25), (2, 0.5))),) * 2
        suspect.close()


def test_a_closed_port_is_tried_and_told(opened, waits):
    suspect = opened(f"http://127.0.0.1:{web.free_port()}")
    with pytest.raises(SuspectUnavailableError, match=r"no answer \(4 × connection refused\)$"):
        suspect.query(TWO)
    assert waits.seconds == [0.5, 1.0, 2.0]
    with pytest.raises(SuspectUnavailableError, match="connection refused"):
        suspect.describe()


def test_backoff_is_spread_and_bounded(waits, opened):
    suspect = opened(f"http://127.0.0.1:{web.free_port()}", max_attempts=8, jitter=lambda: 0.0)
    with pytest.raises(SuspectUnavailableError):
        suspect.query(TWO)
    assert waits.seconds == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_fault_is_retried_and_recorded(opened, waits, status):
    with web.faulty(web.sends(status, headers={"Retry-After": "7"}), web.sends(body=GOOD)) as server:
        suspect = opened(server.url)
        exchange = suspect.query(TWO)
        suspect.close()
    assert [answer.label for answer in exchange.reply.answers] == [1, 2]
    assert [(a.error, a.waited_ms) for a in exchange.failed_attempts] == [(f"HTTP {status}", 7000)]
    assert waits.seconds == [7.0]
    assert server.requests[0][3] == server.requests[1][3]


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [
        ("0", 0.0),
        ("100000000", 60.0),
        ("9" * 5000, 0.5),
        ("soon", 0.5),
        ("-5", 0.5),
        ("Sun, 06 Nov 1994 08:49:40 GMT", 3.0),
        ("Sun, 06 Nov 1994 08:49:30 GMT", 0.0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", 60.0),
        ("Sun, 06 Nov 99999 08:49:37 GMT", 0.5),
    ],
)
def test_retry_after_is_honoured_within_reason(opened, waits, header, expected_s):
    # 784111777 is the time of the example date in RFC 9110, 08:49:37.
    with web.faulty(web.sends(503, headers={"Retry-After": header}), web.sends(body=GOOD)) as server:
        suspect = opened(server.url, now_s=lambda: 784111777.0)
        suspect.query(TWO)
        suspect.close()
    assert waits.seconds == [expected_s]


def test_a_lasting_rate_limit_is_a_refusal(opened):
    with web.faulty(web.sends(503), web.sends(429)) as server:
        suspect = opened(server.url)
        with pytest.raises(SuspectRefusedError, match=r"1 × HTTP 503, 3 × HTTP 429"):
            suspect.query(TWO)
        suspect.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, SuspectAnswerError),
        (401, SuspectRefusedError),
        (403, SuspectRefusedError),
        (404, SuspectUnavailableError),
        (405, SuspectUnavailableError),
        (413, SuspectAnswerError),
        (418, SuspectUnavailableError),
        (422, SuspectAnswerError),
        (500, SuspectUnavailableError),
        (304, SuspectUnavailableError),
    ],
)
def test_other_statuses_end_at_once(opened, waits, status, kind):
    with web.faulty(web.sends(status, b"" if status == 304 else b"<h1>no</h1>")) as server:
        suspect = opened(server.url)
        with pytest.raises(kind, match=rf"/v1/predict: HTTP {status}, "):
            suspect.query(TWO)
        suspect.close()
    assert waits.seconds == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"<!DOCTYPE html><html>login</html>", "a page instead of JSON"),
        (b"\n\n  <error/>", "a page instead of JSON"),
        (GOOD[:-3], "not JSON"),
        (GOOD + b"x", "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "list of answers"),
        (b"{}", "list of answers"),
        (b'{"answers": {"label": 1}}', "list of answers"),
        (b'{"answers": null, "error": "x"}', "list of answers"),
        (b'{"answers": []}', "0 answers to 2 questions"),
        (b'{"answers": [{"label": 1}]}', "1 answers to 2 questions"),
        (b'{"answers": [{"label": 1}, {"label": 1}, {"label": 1}]}', "3 answers to 2 questions"),
        (b'{"answers": [1, 2]}', "not an object"),
        (b'{"answers": [{}, {}]}', "without a label"),
        (b'{"answers": [{"scores": [0.5, 0.5]}, {"label": 1}]}', "without a label"),
        (b'{"answers": [{"label": -1}, {"label": 1}]}', "without a label"),
        (b'{"answers": [{"label": true}, {"label": 1}]}', "without a label"),
        (b'{"answers": [{"label": 1.0}, {"label": 1}]}', "without a label"),
        (b'{"answers": [{"label": "1"}, {"label": 1}]}', "without a label"),
        (b'{"answers": [{"label": 1000000}, {"label": 1}]}', "accepted range"),
        (b'{"answers": [{"label": ' + b"9" * 5000 + b'}, {"label": 1}]}', "too large"),
        (b'{"answers": [{"label": 1, "label": 2}, {"label": 1}]}', "duplicate key"),
        (b'{"answers": [{"label": 1, "scores": [0.5, NaN]}, {"label": 1}]}', "not finite"),
        (b'{"answers": [{"label": 1, "scores": [0.5, -Infinity]}, {"label": 1}]}', "not finite"),
        (b'{"answers": [{"label": 1, "scores": [0.5, 1e999]}, {"label": 1}]}', "not finite"),
        (b'{"answers": [{"label": 1, "scores": [0.5, "0.5"]}, {"label": 1}]}', "finite numbers"),
        (b'{"answers": [{"label": 1, "scores": [0.5, true]}, {"label": 1}]}', "finite numbers"),
        (b'{"answers": [{"label": 1, "scores": 0.5}, {"label": 1}]}', "list of numbers"),
        (b'{"answers": [{"label": 1, "scores": []}, {"label": 1}]}', "list of numbers"),
        (b'{"answers": [{"label": 2, "scores": [0.5, 0.5]}, {"label": 1}]}', "no score"),
        (b'{"answers": [{"label": 0, "scores": [1, 0]}, {"label": 1, "scores": [1, 0, 0]}]}', "different numbers"),
        (b'{"answers": [{"top": []}, {"label": 1}]}', "top list"),
        (b'{"answers": [{"top": [{"label": 1, "score": 1}, {"label": 1, "score": 0}]}, {"label": 1}]}', "distinct"),
        (b'{"answers": [{"top": [{"label": -1, "score": 1}]}, {"label": 1}]}', "distinct"),
        (b'{"answers": [{"top": [{"label": 1}]}, {"label": 1}]}', "finite numbers"),
        (b'{"answers": [{"top": [3]}, {"label": 1}]}', "distinct"),
    ],
)
def test_complete_but_unusable_answers_are_not_asked_for_again(opened, waits, body, words):
    with web.faulty(web.sends(body=body)) as server:
        suspect = opened(server.url)
        with pytest.raises(SuspectAnswerError) as caught:
            suspect.query(TWO)
        suspect.close()
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 200
    assert waits.seconds == []
    assert len(server.requests) == 1


def test_labels_beyond_the_declared_classes_are_evidence_not_an_error(opened):
    told = json.dumps({"classes": ["a", "b"]}).encode()
    with web.faulty(web.sends(body=told), web.sends(body=GOOD)) as server:
        suspect = opened(server.url)
        assert suspect.describe().n_labels == 2
        assert [answer.label for answer in suspect.query(TWO).reply.answers] == [1, 2]
        suspect.close()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (web.sends_raw(b""), "connection closed without an answer"),
        (web.sends_raw(HEAD + b"Content-Length: 100\r\n\r\n" + GOOD), "the answer broke off"),
        (web.sends_raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n20\r\n" + GOOD[:10]), "the answer broke off"),
        (web.sends_raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "not an HTTP answer"),
        (web.sends_raw(HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n"), "not an HTTP answer"),
        (web.sends_raw(HEAD + b"X: y\r\n" * 200 + b"\r\n"), "not an HTTP answer"),
    ],
)
def test_broken_transports_are_retried_and_named(opened, step, words):
    with web.faulty(step, web.sends(body=GOOD)) as server:
        suspect = opened(server.url)
        exchange = suspect.query(TWO)
        suspect.close()
    assert [attempt.error for attempt in exchange.failed_attempts] == [words]
    assert [attempt.waited_ms for attempt in exchange.failed_attempts] == [500]


@pytest.mark.parametrize(
    "step",
    [
        web.sends_raw(hold=True),
        web.sends_raw(HEAD, hold=True),
        web.sends_raw(HEAD + b"Content-Length: 52\r\n\r\n" + GOOD[:5], hold=True),
        web.sends_raw(*[bytes([b]) for b in HEAD * 50], pause_s=0.05),
        web.sends_raw(HEAD + b"\r\n", *[b" "] * 500, pause_s=0.05),
        web.sends_raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 500, pause_s=0.05),
        web.sends_raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"0"] * 500, pause_s=0.05),
    ],
    ids=["silent", "in headers", "in body", "drips headers", "drips body", "drips chunks", "drips chunk size"],
)
def test_the_time_limit_covers_the_whole_attempt(opened, step):
    with web.faulty(step, web.sends(body=GOOD)) as server:
        suspect = opened(server.url, timeout_s=0.4)
        started_s = time.monotonic()
        exchange = suspect.query(TWO)
        # Twenty seconds is what the drips would take; nothing finer is asserted about time.
        assert time.monotonic() - started_s < 15
        suspect.close()
    assert [attempt.error for attempt in exchange.failed_attempts] in (
        ["no complete answer within 0.4 s"],
        ["no answer in time"],
    )


def test_each_attempt_has_the_whole_time(opened):
    # Slow answers in a row: together longer than the limit, each one within it.
    def step(handler) -> None:
        time.sleep(0.6)
        web.sends(body=GOOD)(handler)

    with web.faulty(step) as server:
        suspect = opened(server.url, timeout_s=2.0)
        assert all(suspect.query(TWO).failed_attempts == () for _ in range(4))
        suspect.close()


def test_a_slow_service_is_given_up(opened):
    with web.faulty(web.sends_raw(hold=True)) as server:
        suspect = opened(server.url, timeout_s=0.2, max_attempts=2)
        with pytest.raises(SuspectUnavailableError, match=r"no answer \("):
            suspect.query(TWO)
        suspect.close()
    assert len(server.requests) == 2


def endless(handler, head: bytes = HEAD) -> None:
    handler.wfile.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def bomb(handler) -> None:
    layer = gzip.compress(b" " * (256 << 20), compresslevel=1)
    web.sends(body=layer, headers={"Content-Encoding": "gzip"})(handler)


@pytest.mark.parametrize("step", [endless, bomb, web.sends(body=b" " * 1_000_001)])
def test_no_answer_grows_beyond_the_limit(opened, waits, step):
    with web.faulty(step) as server:
        suspect = opened(server.url, max_body_bytes=1_000_000, timeout_s=60)
        with pytest.raises(SuspectAnswerError, match="larger than 1000000 bytes"):
            suspect.query(TWO)
        suspect.close()
    assert waits.seconds == []


@pytest.mark.parametrize("status", [b"307 Moved\r\nLocation: /x", b"404 Gone", b"503 Busy"])
def test_bodies_of_other_statuses_are_not_read(opened, status):
    def step(handler) -> None:
        endless(handler, b"HTTP/1.1 " + status + b"\r\n")

    with web.faulty(step, web.sends(404)) as server:
        suspect = opened(server.url, timeout_s=60)
        with pytest.raises(SuspectUnavailableError, match="HTTP 404"):
            suspect.query(TWO)
        suspect.close()


def test_a_compressed_bomb_is_not_unpacked_in_memory(opened):
    layer = gzip.compress(b" " * (256 << 20), compresslevel=1)
    with web.faulty(web.sends(body=layer, headers={"Content-Encoding": "gzip"})) as server:
        suspect = opened(server.url, max_body_bytes=1_000_000)
        tracemalloc.start()
        try:
            with pytest.raises(SuspectAnswerError, match="larger than"):
                suspect.query(TWO)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        suspect.close()
    assert peak < 32 << 20


def test_honest_compression_is_undone_and_broken_compression_named(opened):
    gzipped = {"Content-Encoding": "gzip"}
    with web.faulty(
        web.sends(body=gzip.compress(GOOD), headers=gzipped), web.sends(body=GOOD, headers=gzipped)
    ) as server:
        suspect = opened(server.url)
        assert suspect.query(TWO).reply.body == GOOD
        with pytest.raises(SuspectAnswerError, match="compression is broken"):
            suspect.query(TWO)
        suspect.close()
    assert server.requests[0][2]["Accept-Encoding"] == "identity"


def test_redirects_stay_with_the_service(opened):
    with web.faulty(web.sends(308, headers={"Location": "/moved/v1/predict"}), web.sends(body=GOOD)) as server:
        suspect = opened(server.url)
        assert suspect.query(TWO).failed_attempts == ()
        suspect.close()
    assert [(method, path) for method, path, _, _ in server.requests] == [
        ("POST", "/v1/predict"),
        ("POST", "/moved/v1/predict"),
    ]
    assert server.requests[0][3] == server.requests[1][3]


@pytest.mark.parametrize("location", ["//elsewhere.test/x", "https://127.0.0.1/", "ftp://127.0.0.1/", "http://[/"])
def test_a_redirect_to_another_service_is_refused(opened, waits, location):
    with web.faulty(web.sends(body=GOOD)) as other:
        for target in (location, f"{other.url}/v1/predict"):
            with web.faulty(web.sends(307, headers={"Location": target})) as server:
                suspect = opened(server.url)
                with pytest.raises(SuspectAnswerError, match="redirects to"):
                    suspect.query(TWO)
                suspect.close()
    assert other.requests == []
    assert waits.seconds == []


def test_a_redirect_loop_ends(opened):
    with web.faulty(web.sends(307, headers={"Location": "/v1/predict"})) as server:
        suspect = opened(server.url)
        with pytest.raises(SuspectAnswerError, match="more than 3 redirects"):
            suspect.query(TWO)
        suspect.close()
    assert len(server.requests) == 4


def test_credentials_and_query_are_sent_but_never_shown(opened, caplog):
    caplog.set_level("DEBUG", logger="auditor")
    with web.faulty(web.sends(404), web.sends_raw(HEAD + b"broken header\r\n\r\n"), web.sends(500)) as server:
        host = server.url.removeprefix("http://")
        suspect = opened(f"http://us%40r:p4ss@{host}/api/?token=s3cret#fragment")
        description = suspect.describe()
        assert description.suspect.uri == f"http://{host}/api"
        assert description.suspect.artefact_sha256 == ""
        assert description.input_shape is None
        texts = [repr(description), repr(suspect)]
        for _ in range(2):
            with pytest.raises((SuspectUnavailableError, SuspectAnswerError)) as caught:
                suspect.query(TWO)
            texts.append(str(caught.value))
        suspect.close()
    texts.append(caplog.text)
    assert not any(secret in text for secret in ("p4ss", "s3cret", "us@r", "us%40r", "fragment") for text in texts)
    assert server.requests[0][1] == "/api/v1/model?token=s3cret"
    # base64 of us@r:p4ss, from the coreutils tool.
    assert server.requests[0][2]["Authorization"] == "Basic dXNAcjpwNHNz"


def test_nothing_of_the_environment_reaches_the_suspect(opened, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{web.free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.free_port()}")
    with web.faulty(web.sends(body=GOOD, headers={"Set-Cookie": "session=1; Path=/"})) as server:
        suspect = opened(server.url)
        suspect.query(TWO)
        suspect.query(TWO)
        suspect.close()
    for _, _, headers, _ in server.requests:
        assert not {"Authorization", "Cookie"} & set(headers)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html></html>", "not acceptable JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"name": "\\ud800"}', "not acceptable"),
        (b'{"classes": ["only"]}', "classes"),
        (b'{"classes": 10}', "classes"),
        (b'{"input_shape": [1, 28]}', "input_shape"),
        (b'{"input_shape": [1, 28, -28]}', "input_shape"),
        (b'{"input_shape": [1, 28, true]}', "input_shape"),
        (b'{"max_batch": 0}', "max_batch"),
        (b'{"max_batch": "8"}', "max_batch"),
        (b'{"temperature": 0.5}', "floating-point"),
    ],
)
def test_a_malformed_description_is_one_clear_line(opened, body, words):
    with web.faulty(web.sends(body=body)) as server:
        suspect = opened(server.url)
        with pytest.raises(SuspectAnswerError, match=words) as caught:
            suspect.describe()
        suspect.close()
    assert "\n" not in str(caught.value)


def test_the_declared_name_is_short_and_printable(opened):
    name = "a\u0000\n\u202e\x1b[31m" + "b" * 10_000
    with web.faulty(web.sends(body=json.dumps({"name": name}).encode())) as server:
        suspect = opened(server.url)
        declared = suspect.describe().suspect.declared_name
        suspect.close()
    assert declared == "a[31m" + "b" * 75


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:80",
        "ftp://x/",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://h:99999",
        "http://[1",
        "http://a b/",
        "http://us3r:s3cret@h\n/",
    ],
)
def test_addresses_that_are_none_are_usage_errors(address):
    with pytest.raises(UsageError) as caught:
        HttpSuspect(address)
    assert "s3cret" not in str(caught.value)


def test_an_unknown_host_is_named_as_such(opened):
    suspect = opened("http://no-such-host.invalid:1/", max_attempts=1)
    with pytest.raises(SuspectUnavailableError, match="the host name is not known"):
        suspect.describe()


def test_plain_http_behind_an_https_address_is_no_tls(opened):
    with web.faulty(web.sends(body=GOOD)) as server:
        suspect = opened(server.url.replace("http:", "https:"), max_attempts=1)
        with pytest.raises(SuspectUnavailableError, match="TLS"):
            suspect.query(TWO)
        suspect.close()


def test_ctrl_c_is_not_swallowed(opened):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    suspect = opened(f"http://127.0.0.1:{web.free_port()}", sleep=interrupt)
    with pytest.raises(KeyboardInterrupt):
        suspect.query(TWO)


def test_no_thread_outlives_the_suspect(opened):
    with web.faulty(web.sends(body=GOOD)) as server:
        suspect = opened(server.url, timeout_s=3600)
        for _ in range(2):
            suspect.query(TWO)
            assert "deadline" in {thread.name for thread in threading.enumerate()}
            suspect.close()
            assert not any(thread.name == "deadline" for thread in threading.enumerate())


def test_open_suspect_takes_exactly_one(tmp_path):
    for chosen in ({}, {"endpoint": "http://h", "model": tmp_path}):
        with pytest.raises(UsageError, match="exactly one"):
            open_suspect(**chosen)
    with pytest.raises(UsageError):
        open_suspect(endpoint="http://h", batch_size=0)
    with open_suspect(endpoint="http://h:1", batch_size=7, timeout_s=1.5) as suspect:
        assert suspect.batch_size == 7


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory) -> Path:
    """A certificate for 127.0.0.1 that nobody signed but itself, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    parts = [path.with_suffix(".key"), path.with_suffix(".crt")]
    subprocess.run([*command.split(), "-keyout", parts[0], "-out", parts[1]], check=True, capture_output=True)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_an_untrusted_certificate_is_final_and_a_trusted_one_works(opened, waits, tls_files, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files)
    with web.faulty(web.sends(body=GOOD), web.sends_raw(HEAD, hold=True), tls=context) as server:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        suspect = opened(server.url)
        with pytest.raises(SuspectUnavailableError, match="TLS certificate is not trusted"):
            suspect.query(TWO)
        assert waits.seconds == []
        assert server.requests == []

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls_files))
        suspect = opened(server.url, timeout_s=0.5, max_attempts=1)
        assert [answer.label for answer in suspect.query(TWO).reply.answers] == [1, 2]
        with pytest.raises(SuspectUnavailableError, match=r"no (complete )?answer"):
            suspect.query(TWO)
        suspect.close()

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls_files.with_name("none")))
        with pytest.raises(UsageError, match="REQUESTS_CA_BUNDLE"):
            opened(server.url)


def test_a_lost_question_names_every_attempt_with_status_and_wait():
    with web.faulty(web.sends(503), web.sends(429, headers={"Retry-After": "7"}), web.sends(503)) as server:
        waited = []
        suspect = HttpSuspect(server.url, max_attempts=3, sleep=waited.append, jitter=lambda: 0.0)
        with suspect, pytest.raises(SuspectUnavailableError) as caught:
            suspect.query(TWO)
    told = [(attempt.error, attempt.status, attempt.waited_ms) for attempt in caught.value.attempts]
    assert told == [("HTTP 503", 503, 250), ("HTTP 429", 429, 7000), ("HTTP 503", 503, 0)]
    assert waited == [0.25, 7.0]
    assert caught.value.body is None


def test_a_refusal_or_a_page_of_text_names_the_attempts_before_it_and_keeps_its_body():
    busy = web.sends(503, headers={"Retry-After": "0"})
    for last, error, body in (
        (web.sends(403), SuspectRefusedError, None),
        (web.sends(200, b"<html>"), SuspectAnswerError, b"<html>"),
        (web.sends(200, b'{"answers":[{"label":1}]}'), SuspectAnswerError, b'{"answers":[{"label":1}]}'),
    ):
        with web.faulty(busy, last) as server, HttpSuspect(server.url) as suspect, pytest.raises(error) as caught:
            suspect.query(TWO)
        assert [attempt.status for attempt in caught.value.attempts] == [503]
        assert caught.value.body == body


def test_a_limit_on_the_rate_is_not_a_refusal_for_good():
    with web.faulty(web.sends(429, headers={"Retry-After": "0"})) as server:
        suspect = HttpSuspect(server.url, max_attempts=2)
        with suspect, pytest.raises(SuspectThrottledError) as caught:
            suspect.query(TWO)
    assert [attempt.status for attempt in caught.value.attempts] == [429, 429]
