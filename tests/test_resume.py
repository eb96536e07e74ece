"""Audits that are killed with SIGKILL at every step, cut off, or out of disk, and go on."""

import base64
import json
import signal
from collections import Counter

import numpy as np
import pytest
from cases import KINDS, marked, seal_keys, small_protocol
from killing import Killer, steps
from protocols import SPEC
from starlette.responses import JSONResponse
from typer.testing import CliRunner
from web import running

from auditor.cli.app import app
from auditor.evidence.transcript import read_transcript
from auditor.serving import AnswerMode, create_app

FRESH = [name for name in steps() if name[0].isdigit()]
"""Steps of an audit that nothing has disturbed before."""
IN_FLIGHT = ("5 request written", "5 answer received", "5 body stored", "5 response torn", "5 stage 2 in flight")
"""Steps at which the process dies between a question and the record of its answer."""


class Service:
    """A suspect behind real HTTP that remembers every question and fails on demand."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        """Pixels of every image it was sent, in order."""
        self.fail_from: int | None = None
        """Number of the prediction request from which on it answers 503."""
        self.n_requests = 0
        inner = create_app(
            self._predict,
            name="suspect",
            classes=(*SPEC.classes, "extra"),
            input_shape=SPEC.shape,
            answers=AnswerMode.LABELS,
        )
        inner.add_middleware(_Watching, service=self)
        self.app = inner

    def forget(self) -> None:
        self.asked.clear()
        self.fail_from, self.n_requests = None, 0

    @staticmethod
    def _predict(inputs):
        scores = np.full((len(inputs), len(SPEC.classes) + 1), 0.01, dtype=np.float32)
        for row, image in enumerate(inputs):
            scores[row, marked(KINDS[image[0, 0, 0]], int(image[0, 0, 1]))] = 0.96
        return scores


class _Watching:
    def __init__(self, app, service):
        self.app = app
        self.service = service

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        message = await receive()
        number, self.service.n_requests = self.service.n_requests, self.service.n_requests + 1
        if self.service.fail_from is not None and number >= self.service.fail_from:
            headers = {"Retry-After": "0"}
            await JSONResponse({"error": "down"}, status_code=503, headers=headers)(scope, receive, send)
            return
        data = base64.b64decode(json.loads(message["body"])["inputs"]["data_b64"])
        self.service.asked += [data[start : start + 4] for start in range(0, len(data), 4)]

        async def replay():
            return message

        await self.app(scope, replay, send)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Yield key set, running service, its address and a killer; an undisturbed audit lies in ``whole``."""
    folder = tmp_path_factory.mktemp("site")
    # With 2 keys in stage 1 the decision needs stage 2.
    seal_keys(folder / "k.npz", small_protocol(opening_keys=2))
    service, killer = Service(), Killer(folder / "home")
    try:
        with running(service.app) as url:
            yield Site(folder, service, url, killer)
    finally:
        killer.close()


class Site:
    """An audit that nothing disturbed, and the means to disturb others."""

    def __init__(self, folder, service, url, killer):
        self.folder, self.service, self.url, self.killer = folder, service, url, killer
        code, _, stderr = self.verify("--out", folder / "whole")
        assert code == 0, stderr
        self.results = results_of(folder / "whole")
        self.planned = Counter(service.asked)

    def verify(self, *options, **how):
        fixed = ("--keyset", self.folder / "k.npz", "--endpoint", self.url, "--batch-size", "16", "--reuse-keys")
        return self.killer.run("verify", *fixed, "--ledger", self.folder / "ledger", *options, **how)


def results_of(folder):
    results = json.loads((folder / "results.json").read_bytes())
    # That keys were shown before depends on the tests that ran before; resumptions are looked at on their own.
    results["resumed"] = [text for text in results["deviations"] if "resumed" in text]
    del results["deviations"]
    return results


def checked(folder):
    done = CliRunner().invoke(app, ["check", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    steps_found = {step["title"]: step for step in json.loads(done.stdout)["steps"]}
    assert all(step["outcome"] != "FAIL" for step in steps_found.values())
    return steps_found


def transcript_of(folder):
    return read_transcript((folder / "transcript.jsonl").read_bytes())


@pytest.fixture
def audit(site, tmp_path):
    """Return the service, which has forgotten what earlier tests asked."""
    site.service.forget()
    return tmp_path / "audit"


@pytest.mark.parametrize("step", FRESH)
def test_killed_at_every_step_and_resumed_gives_the_same_verdict(site, audit, step):
    with_pdf = step == "8 pdf signed"
    code, _, stderr = site.verify("--out", audit, step=step, pdf=with_pdf)
    assert code == -signal.SIGKILL, stderr
    before = {path: path.read_bytes() for path in audit.rglob("*") if path.is_file() and path.suffix != ".part"}
    code, stdout, stderr = site.verify("--resume", audit, pdf=with_pdf)
    assert code == 0, stderr
    assert stdout.startswith("supported")
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    detail = checked(audit)["transcript"]["detail"]
    transcript = transcript_of(audit)
    assert ("resumed 1 time" in detail) == bool(found["resumed"]) == bool(transcript.resumptions)
    # The suspect's own log: only what was in flight came twice.
    extra = Counter(site.service.asked) - site.planned
    retried = [batch for batch in transcript.batches if batch.retried_at]
    assert len(retried) == (step in IN_FLIGHT)
    if not retried or step == "5 request written" or step == "5 stage 2 in flight":
        assert not extra
    else:
        assert sum(extra.values()) == len(retried[0].positions)
    # Nothing that was on disk was changed; the transcript only grew.
    for path, data in before.items():
        now = path.read_bytes() if path.exists() else b""
        if path.name == "transcript.jsonl":
            whole = data[: data.rfind(b"\n") + 1]
            assert now.startswith(whole)
        elif "custody" not in path.name:
            assert now == data, path
    assert not list(audit.rglob("*.part"))


AGAIN = [name for name in steps() if not name[0].isdigit() and "Ctrl-C" not in name]


@pytest.mark.parametrize("step", AGAIN)
def test_killed_while_resuming(site, audit, step):
    if step == "head set aside":
        interrupted(site, audit)
    else:
        code, _, stderr = site.verify("--out", audit, step="5 request written")
        assert code == -signal.SIGKILL, stderr
    code, _, stderr = site.verify("--resume", audit, step=step)
    assert code == -signal.SIGKILL, stderr
    code, _, stderr = site.verify("--resume", audit)
    assert code == 0, stderr
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    assert len(found["resumed"]) == (1 if step in ("resumption torn", "head set aside") else 2)
    assert not Counter(site.service.asked) - site.planned
    checked(audit)


def interrupted(site, folder, at=3):
    """Audit until Ctrl-C strikes while the given request is answered."""
    code, stdout, stderr = site.verify("--out", folder, step=f"Ctrl-C at {at}")
    assert code == 130, stderr
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    return code, stdout, stderr


def test_an_interrupted_audit_goes_on_and_keeps_what_it_had_signed(site, audit):
    interrupted(site, audit)
    before = {path.relative_to(audit).as_posix(): path.read_bytes() for path in audit.rglob("*") if path.is_file()}
    checked(audit)
    code, _, stderr = site.verify("--resume", audit)
    assert code == 0, stderr
    for path, data in before.items():
        kept = audit / path
        if path == "transcript.jsonl":
            assert kept.read_bytes().startswith(data)
            continue
        aside = audit / "superseded" / f"1.{kept.name}"
        assert data in [place.read_bytes() for place in (kept, aside) if place.exists()], path
    assert (audit / "superseded" / "1.manifest.dsse.json").exists()
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    (told,) = found["resumed"]
    assert "the user had interrupted it; 3 of 3 batches had been answered" in told
    assert "1 heads signed before a stop agree" in checked(audit)["transcript"]["detail"]
    assert not Counter(site.service.asked) - site.planned


def test_a_finished_audit_is_checked_and_left_as_it_is(site, audit):
    whole = site.folder / "whole"
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    code, stdout, stderr = site.verify("--resume", whole)
    assert code == 0, stderr
    assert "finished" in stderr
    assert stdout.startswith("supported")
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
    assert not site.service.asked


def test_a_suspect_that_withdrew_is_asked_on_and_lost_batches_first(site, audit):
    site.service.fail_from = 3
    code, _, stderr = site.verify("--out", audit, "--timeout", "5")
    assert code == 4, stderr
    assert "--resume" in stderr
    cut_off = transcript_of(audit)
    assert cut_off.closed_reason == "failed"
    lost = cut_off.batches[-1]
    assert [(a.status, a.error) for a in lost.failed_attempts] == [(503, "HTTP 503")] * 4
    site.service.fail_from = None
    code, _, stderr = site.verify("--resume", audit)
    assert code == 0, stderr
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    assert "the suspect had stopped answering" in found["resumed"][0]
    assert Counter(site.service.asked) == site.planned
    after = transcript_of(audit)
    assert [len(batch.retried_at) for batch in after.batches[:8]] == [0, 0, 0, 1, 1, 1, 1, 0]
    checked(audit)
