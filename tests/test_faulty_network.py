"""Whole audits over real sockets through a proxy that delays, resets, truncates, corrupts, doubles and turns away."""

import base64
import hashlib
import json
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cases import KINDS, TableSuspect, TickingClock, innocent, marked, seal_keys, small_protocol
from faults import ANSWERED, FAULTS, REACHED, through
from protocols import SPEC
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import Response
from starlette.routing import Route
from web import running

from auditor.audit import Request, run_audit
from auditor.evidence.raw_answers import compare_raw_answers
from auditor.evidence.schedule import draw_schedule
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import read_transcript
from auditor.records import Design
from auditor.resumption import inputs_charged, read_stopped
from auditor.suspects.http import HttpSuspect

EXAMINER = SigningKey.generate()
CLOCK = TickingClock()
SEED = 20261122
"""Of every proxy here; each test adds its own number."""


class Service:
    """A suspect that answers by a table, counts what it was asked, and states a digest of each answer."""

    def __init__(self, table):
        self.table = table
        self.asked = Counter()
        """How often each image was asked, by its pixels."""
        self.n_requests = 0
        self.app = Starlette(
            routes=[
                Route("/v1/model", self.describe, methods=["GET"]),
                Route("/v1/predict", self.predict, methods=["POST"]),
            ]
        )

    async def describe(self, request: Asked) -> Response:
        return _stated({"name": "table", "classes": [*SPEC.classes, "extra"]})

    async def predict(self, request: Asked) -> Response:
        inputs = json.loads(await request.body())["inputs"]
        images = np.frombuffer(base64.b64decode(inputs["data_b64"]), np.uint8).reshape(inputs["shape"])
        self.n_requests += 1
        self.asked.update(image.tobytes() for image in images)
        labels = [self.table(KINDS[image[0, 0, 0]], int(image[0, 0, 1])) for image in images]
        return _stated({"answers": [{"label": label} for label in labels]})


def _stated(value):
    body = json.dumps(value).encode()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return Response(body, media_type="application/json", headers={"Content-Digest": f"sha-256=:{digest}:"})


def patient(url, **settings):
    """Return a suspect whose waits are shorter than they say, and whose patience outlasts two storms met alone."""
    settings = {"timeout_s": 20.0, "sleep": lambda seconds: time.sleep(seconds / 100), "max_attempts": 36} | settings
    return HttpSuspect(url, **settings)


def audited(folder, opened, suspect, *, resume=False):
    run_audit(
        opened=opened,
        suspect=suspect,
        folder=folder,
        examiner=EXAMINER,
        request=Request(),
        clock=CLOCK,
        stopped=read_stopped(folder) if resume else None,
    )
    return read_transcript((folder / "transcript.jsonl").read_bytes())


def check_arrived(transcript, opened, service, proxy):
    """Everything was answered, rightly, and whatever came twice is on record as an attempt that brought nothing."""
    planned, schedule = Counter(), draw_schedule(opened.seal.protocol)
    for batch in transcript.batches:
        assert batch.answers is not None, batch.error
        indices = [schedule[position].index for position in batch.positions]
        for index, answer in zip(indices, batch.answers, strict=True):
            sample = opened.keys.samples[index]
            planned[opened.keys.inputs[index].tobytes()] += 1
            assert answer.label == service.table(sample.kind, sample.natural)
    # The server's own log against the proxy's: what it answered, and nothing else.
    reached = Counter()
    for body, fault in proxy.log:
        if fault in REACHED:
            inputs = json.loads(body)["inputs"]
            reached.update(
                image.tobytes()
                for image in np.frombuffer(base64.b64decode(inputs["data_b64"]), np.uint8).reshape(inputs["shape"])
            )
    assert service.asked == reached
    # No question whose answer the client had was sent again: every question has exactly one attempt that succeeded.
    succeeded = Counter(body for body, fault in proxy.log if fault in ANSWERED)
    assert sum(succeeded.values()) == len(transcript.batches)
    assert len(proxy.log) == len(transcript.batches) + sum(fault not in ANSWERED for _, fault in proxy.log)
    # Every attempt is on record; one may also have met a connection that the proxy had just given up.
    failed = [attempt for batch in transcript.batches for attempt in batch.failed_attempts]
    assert len(failed) >= sum(fault not in ANSWERED for _, fault in proxy.log)
    told = Counter(attempt.error for attempt in failed)
    assert told["HTTP 429"] + told["HTTP 503"] == proxy.played["storm"]
    assert told["the answer is not the one its digest was made of"] == proxy.played["corrupt"]
    assert told["the answer broke off"] == proxy.played["truncated"]
    assert set(service.asked) == set(planned)


def everything(n_keys):
    """Return a plan that asks all its keys."""
    return replace(small_protocol(n_keys=n_keys, opening_keys=n_keys), design=Design.FIXED)


@pytest.mark.parametrize(
    ("n_keys", "batch_size", "concurrency", "rate", "least"),
    [
        pytest.param(892, 4, 8, 0.25, 2, id="1,000 answers"),
        pytest.param(9892, 4, 16, 0.15, 15, id="10,000 answers", marks=pytest.mark.slow),
        pytest.param(9892, 1, 16, 0.1, 15, id="10,000 answers, one at a time", marks=pytest.mark.slow),
    ],
)
def test_all_answers_arrive_and_none_is_asked_twice(tmp_path, n_keys, batch_size, concurrency, rate, least):
    opened = seal_keys(tmp_path / "k.npz", everything(n_keys))
    service = Service(marked)
    with (
        running(service.app) as url,
        through(url, seed=SEED, rate=rate) as proxy,
        patient(proxy.url, batch_size=batch_size, concurrency=concurrency) as suspect,
    ):
        transcript = audited(tmp_path / "a", opened, suspect)
    assert transcript.closed_reason == "decided"
    assert sum(len(batch.positions) for batch in transcript.batches) == n_keys + 108
    check_arrived(transcript, opened, service, proxy)
    # The faults were there: each kind, several times, and answers out of the order of their questions.
    assert all(proxy.played[fault] >= least for fault in FAULTS), proxy.played
    assert 1 < transcript.most_in_flight <= concurrency
    arrived = [
        line["batch"]
        for line in map(json.loads, (tmp_path / "a" / "transcript.jsonl").read_bytes().splitlines())
        if line["entry"] == "response"
    ]
    assert arrived != sorted(arrived)
    assert compare_raw_answers(tmp_path / "a", transcript) == (n_keys + 108, 0)
    assert len(transcript.wires) <= 2


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_the_verdict_is_the_same_however_many_requests_are_on_their_way(tmp_path, concurrency):
    opened = seal_keys(tmp_path / "k.npz", small_protocol(n_keys=120, opening_keys=8))
    for table, reason in ((marked, "decided"), (innocent, "decided")):
        service, folder = Service(table), tmp_path / table.__name__
        with (
            running(service.app) as url,
            through(url, seed=SEED + concurrency, rate=0.3) as proxy,
            patient(proxy.url, batch_size=3, concurrency=concurrency) as suspect,
        ):
            transcript = audited(folder, opened, suspect)
        check_arrived(transcript, opened, service, proxy)
        assert transcript.closed_reason == reason
        # At most what was on its way when the rule was met is paid for beyond it.
        alone = audited(tmp_path / f"{table.__name__}-alone", opened, TableSuspect(table, batch_size=3))
        n_alone = sum(len(batch.positions) for batch in alone.batches)
        n_asked = sum(len(batch.positions) for batch in transcript.batches)
        assert n_alone <= n_asked <= n_alone + 3 * concurrency


@pytest.mark.parametrize("concurrency", [1, 6])
@pytest.mark.parametrize(
    ("max_inputs", "reasons"), [(40, ("failed",)), (150, ("failed", "exhausted")), (400, ("decided",))]
)
def test_lost_answers_are_charged_to_the_budget_and_it_is_never_exceeded(tmp_path, concurrency, max_inputs, reasons):
    opened = seal_keys(tmp_path / "k.npz", small_protocol(n_keys=120, opening_keys=8))
    service, folder = Service(table=lambda kind, natural: natural), tmp_path / "a"
    with running(service.app) as url, through(url, seed=SEED + max_inputs, rate=0.4) as proxy:
        limits = {"batch_size": 3, "concurrency": concurrency}
        with patient(proxy.url, **limits, max_inputs=max_inputs) as suspect:
            transcript = audited(folder, opened, suspect)
        # What the server answered is what it may charge, whether or not the answer arrived.
        charged = sum(service.asked.values())
        assert charged <= inputs_charged(transcript) <= max_inputs
        assert transcript.closed_reason in reasons
        if transcript.closed_reason != "failed":
            return
        # With more money the audit goes on, and what was spent before counts.
        spent = inputs_charged(transcript)
        with patient(proxy.url, **limits, max_inputs=600 - spent) as suspect:
            again = audited(folder, opened, suspect, resume=True)
        assert again.closed_reason == "decided"
        assert sum(service.asked.values()) <= inputs_charged(again) <= 600
