"""`auditor verify --concurrency` against a service whose profile permits fewer requests at a time."""

import asyncio
import base64
import json

import pytest
from cases import KINDS, TickingClock, marked, seal_keys, small_protocol
from protocols import SPEC
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner
from web import running

from auditor.audit import Request, run_audit
from auditor.cli.app import app
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import read_transcript
from auditor.evidence.transport import transport_of
from auditor.suspects import open_suspect


class Counting:
    """A service that counts how many requests are with it at the same time, and keeps each for a while."""

    def __init__(self):
        self.n_here = self.most = self.n_requests = 0
        routes = [
            Route("/v1/model", self.describe, methods=["GET"]),
            Route("/v1/predict", self.predict, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def describe(self, request):
        return JSONResponse({"name": "table", "classes": [*SPEC.classes, "extra"]})

    async def predict(self, request):
        self.n_here, self.n_requests = self.n_here + 1, self.n_requests + 1
        self.most = max(self.most, self.n_here)
        try:
            inputs = json.loads(await request.body())["inputs"]
            # Long enough for every lane that may send to have sent.
            for _ in range(20):
                await asyncio.sleep(0.002)
            pixels, n = base64.b64decode(inputs["data_b64"]), inputs["shape"][0]
            rows = [pixels[start : start + len(pixels) // n] for start in range(0, len(pixels), len(pixels) // n)]
            return JSONResponse({"answers": [{"label": marked(KINDS[row[0]], row[1])} for row in rows]})
        finally:
            self.n_here -= 1


@pytest.fixture
def opened(tmp_path):
    return seal_keys(tmp_path / "k.npz", small_protocol())


def profile_of(folder, *, permitted):
    source = CliRunner().invoke(app, ["profiles", "auditor"]).stdout
    assert "[limits]" not in source
    path = folder / "mine.toml"
    path.write_text(f"{source}\n[limits]\nbatch_size = 4\nconcurrency = {permitted}\n")
    return path


@pytest.mark.parametrize(("permitted", "most"), [(2, 2), (1, 1), (0, 8)])
def test_no_more_requests_are_with_the_service_than_its_profile_permits(tmp_path, opened, caplog, permitted, most):
    profile = str(profile_of(tmp_path, permitted=permitted))
    service = Counting()
    with running(service.app) as url, open_suspect(endpoint=url, profile=profile, concurrency=8) as suspect:
        run_audit(
            opened=opened,
            suspect=suspect,
            folder=tmp_path / "a",
            examiner=SigningKey.generate(),
            request=Request(),
            clock=TickingClock(),
        )
    assert service.n_requests > 8
    assert service.most == most
    assert (f"the profile permits {permitted} requests at a time, not 8" in caplog.text) == (permitted > 0)
    transcript = read_transcript((tmp_path / "a" / "transcript.jsonl").read_bytes())
    assert transcript.most_in_flight == most
    # Reports say it in these words.
    told = transport_of(transcript).as_text()
    assert (f"up to {most} requests at a time" in told) == (most > 1)
    assert ("at a time" in told) == (most > 1)


def test_the_command_says_that_it_asks_fewer_at_a_time_than_it_was_told(tmp_path, opened):
    service = Counting()
    profile = profile_of(tmp_path, permitted=2)
    with running(service.app) as url:
        command = ["verify", "--keyset", tmp_path / "k.npz", "--endpoint", url, "--profile", profile]
        done = CliRunner().invoke(app, [*map(str, command), "--concurrency", "8", "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    assert service.most == 2
    assert f"{url}: the profile permits 2 requests at a time, not 8" in done.output
