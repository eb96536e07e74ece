"""`auditor verify` over real HTTP: outcomes, exit codes, bad input, interruption."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import authorities
import numpy as np
import pytest
from cases import KINDS, innocent, marked, seal_keys, small_protocol
from protocols import SPEC
from starlette.responses import JSONResponse
from typer.testing import CliRunner
from web import faulty, free_port, running, sends, wait_until

from auditor.cli.app import app
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import read_transcript
from auditor.records import SampleKind
from auditor.serving import AnswerMode, create_app

N_OUTPUTS = len(SPEC.classes) + 1


def predictor(table, *, slow=None):
    def predict(inputs):
        if slow is not None:
            slow()
        scores = np.full((len(inputs), N_OUTPUTS), 0.01, dtype=np.float32)
        for row, image in enumerate(inputs):
            scores[row, table(KINDS[image[0, 0, 0]], int(image[0, 0, 1]))] = 0.96
        return scores

    return predict


def service(table, *, mode=AnswerMode.LABELS, shape=SPEC.shape, classes=None, slow=None):
    return create_app(
        predictor(table, slow=slow),
        name="suspect",
        classes=classes or (*SPEC.classes, "extra"),
        input_shape=shape,
        answers=mode,
    )


@pytest.fixture
def keyset(tmp_path):
    opened = seal_keys(tmp_path / "k.npz", small_protocol())
    (tmp_path / "k.seal.json").write_bytes(opened.envelope)
    return tmp_path / "k.npz"


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


@pytest.mark.parametrize("mode", list(AnswerMode))
def test_supported_is_exit_0_whatever_the_service_reveals(keyset, tmp_path, mode):
    with running(service(marked, mode=mode)) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--out", tmp_path / "a", "--seal", tmp_path / "k.seal.json")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("supported (null-rejected): ")
    assert (tmp_path / "a" / "report.pdf").read_bytes().startswith(b"%PDF")
    assert CliRunner().invoke(app, ["check", str(tmp_path / "a")]).exit_code == 0


def test_not_supported_is_exit_3(keyset, tmp_path):
    with running(service(innocent)) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--out", tmp_path / "a")
    assert done.exit_code == 3
    assert done.stdout.startswith("not supported")


def test_inconclusive_is_exit_4_and_json_is_alone_on_stdout(keyset, tmp_path):
    with running(service(lambda kind, natural: SPEC.classes.index("a"))) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--out", tmp_path / "a", "--json")
    assert done.exit_code == 4
    results = json.loads(done.stdout)
    assert results["verdict"] == json.loads((tmp_path / "a" / "results.json").read_bytes())["verdict"]
    assert results["verdict"]["reason"] == "controls-failed"


def only_line(done):
    """Return the one line of the error, whatever progress came before it."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("auditor: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.output
    return lines[0]


def test_an_endpoint_that_is_down(keyset, tmp_path):
    done = run("--keyset", keyset, "--endpoint", f"http://127.0.0.1:{free_port()}", "--out", tmp_path / "a")
    assert done.exit_code == 6
    assert "127.0.0.1" in only_line(done)


HTML = sends(200, b"<html>please log in</html>", headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (HTML, 6),
        (sends(401, b"no"), 6),
        (sends(500, b"oops"), 6),
        (sends(200, b'{"answers":[{"label":NaN}]}'), 6),
        (sends(200, b'{"answers":[{"label":1}]}'), 6),
        (sends(200, b'{"answers":[{"label":-1}]}'), 6),
        (sends(200, b"{"), 6),
    ],
)
def test_unusable_answers_are_exit_6(keyset, tmp_path, step, code):
    with faulty(sends(404), step) as server:
        done = run("--keyset", keyset, "--endpoint", server.url, "--out", tmp_path / "a")
    assert done.exit_code == code
    only_line(done)
    # What was asked stays on record, even though nothing came of it.
    kept = read_transcript((tmp_path / "a" / "transcript.jsonl").read_bytes())
    assert kept.closed_reason == "failed"


def test_a_slow_endpoint_times_out(keyset, tmp_path):
    release = threading.Event()
    with running(service(marked, slow=lambda: release.wait(20))) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--out", tmp_path / "a", "--timeout", "0.3")
        release.set()
    assert done.exit_code == 6
    only_line(done)


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:900] + bytes([data[900] ^ 1]) + data[901:]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"\x80\x04N.", lambda data: data * 2])
def test_a_damaged_key_set_is_exit_5(keyset, tmp_path, damage):
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(damage(keyset.read_bytes()))
    done = run("--keyset", damaged, "--endpoint", "http://127.0.0.1:9", "--out", tmp_path / "a")
    assert done.exit_code == 5
    only_line(done)
    assert not (tmp_path / "a").exists()


def test_a_seal_of_another_key_set_is_exit_5(keyset, tmp_path):
    other = seal_keys(tmp_path / "other.npz", small_protocol())
    (tmp_path / "other.json").write_bytes(other.envelope)
    done = run("--keyset", keyset, "--seal", tmp_path / "other.json", "--endpoint", "http://127.0.0.1:9")
    assert done.exit_code == 5


def test_another_owner_than_expected_is_exit_5(keyset):
    done = run("--keyset", keyset, "--owner-key", "00" * 32, "--endpoint", "http://127.0.0.1:9")
    assert done.exit_code == 5
    assert "expected owner" in only_line(done)


@pytest.mark.parametrize(
    ("shape", "classes"), [((3, 32, 32), None), (SPEC.shape, ("only", "two"))], ids=["shape", "class count"]
)
def test_a_key_set_for_another_task_is_exit_2(keyset, tmp_path, shape, classes):
    with running(service(innocent, shape=shape, classes=classes)) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--out", tmp_path / "a")
    assert done.exit_code == 2
    only_line(done)


def test_an_existing_folder_is_never_written_into(keyset, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "mine.txt").write_text("precious")
    done = run("--keyset", keyset, "--endpoint", "http://127.0.0.1:9", "--out", folder)
    assert done.exit_code == 2
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--endpoint", "http://127.0.0.1:9", "--model", "m.safetensors"),
        ("--endpoint", "http://127.0.0.1:9", "--alpha", "0.5"),
        ("--endpoint", "http://127.0.0.1:9", "--max-queries", "3"),
        ("--endpoint", "ftp://127.0.0.1:9"),
        ("--endpoint", "http://127.0.0.1:9", "--batch-size", "0"),
    ],
)
def test_contradicting_options_are_exit_2(keyset, tmp_path, arguments):
    done = run("--keyset", keyset, "--out", tmp_path / "a", *arguments)
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "a").exists()


def test_missing_files_are_exit_2(tmp_path):
    assert run("--keyset", tmp_path / "no.npz", "--endpoint", "http://127.0.0.1:9").exit_code == 2


def test_a_pickled_model_is_refused(keyset, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"\x80\x04N.")
    done = run("--keyset", keyset, "--model", tmp_path / "model.pt", "--out", tmp_path / "a")
    assert done.exit_code == 6
    only_line(done)


def test_secrets_never_show(keyset, tmp_path):
    with running(service(marked)) as url:
        secret_url = url.replace("http://", "http://user:hunter2@")
        done = run("--keyset", keyset, "--endpoint", secret_url, "--out", tmp_path / "a")
    assert done.exit_code == 0
    written = b"".join(path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file())
    seed = b"\x06" * 32
    for trace in (b"hunter2", seed, seed.hex().encode()):
        assert trace not in written
        assert trace not in done.output.encode()


def test_ctrl_c_keeps_a_closed_transcript_and_a_signed_bundle(keyset, tmp_path):
    started = threading.Event()
    go_on = threading.Event()
    batches = []

    def slow():
        batches.append(1)
        if len(batches) == 3:
            started.set()
            go_on.wait(30)

    folder = tmp_path / "a"
    with running(service(marked, slow=slow)) as url:
        command = [sys.executable, "-m", "auditor", "verify", "--keyset", str(keyset), "--endpoint", url]
        command += ["--out", str(folder), "--batch-size", "16"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
        try:
            wait_until(started.is_set)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        finally:
            go_on.set()
            process.kill()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    kept = read_transcript((folder / "transcript.jsonl").read_bytes())
    assert kept.closed_reason == "interrupted"
    assert sum(batch.answers is not None for batch in kept.batches) == 2
    assert json.loads((folder / "results.json").read_bytes())["verdict"]["reason"] == "interrupted"
    assert CliRunner().invoke(app, ["check", str(folder)]).exit_code == 0


def test_refusing_keys_only_is_obstructed(keyset, tmp_path):
    class RefuseKeys:
        """A detector in front of the model that turns every request with a key away."""

        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http" and scope["method"] == "POST":
                message = await receive()
                inputs = json.loads(message["body"])["inputs"]
                pixels = np.frombuffer(base64.b64decode(inputs["data_b64"]), dtype=np.uint8).reshape(inputs["shape"])
                if (pixels[:, 0, 0, 0] == KINDS.index(SampleKind.KEY)).any():
                    await JSONResponse({"error": "policy"}, status_code=403)(scope, receive, send)
                    return

                async def replay():
                    return message

                await self.app(scope, replay, send)
                return
            await self.app(scope, receive, send)

    inner = service(marked)
    inner.add_middleware(RefuseKeys)
    with running(inner) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--out", tmp_path / "a", "--batch-size", "1")
    assert done.exit_code == 4, done.output
    assert done.stdout.startswith("inconclusive (obstructed)")


def test_time_stamps_and_an_examiners_own_key(keyset, tmp_path):
    authority = authorities.Authority(tmp_path / "tsa")
    key = SigningKey.generate()
    key.write_pem(tmp_path / "examiner.pem")
    options = ["--out", tmp_path / "a", "--examiner-key", tmp_path / "examiner.pem"]
    with running(service(marked)) as url, authorities.serving(authority.reply) as tsa:
        done = run("--keyset", keyset, "--endpoint", url, *options, "--tsa", tsa)
    assert done.exit_code == 0, done.output
    # The seal was not stamped, and the step that needs it says so instead of passing.
    options = ["--tsa-root", str(authority.root_path), "--examiner-key", key.fingerprint, "--json"]
    steps = json.loads(CliRunner().invoke(app, ["check", str(tmp_path / "a"), *options]).stdout)["steps"]
    assert steps[4]["outcome"] == "NOT CHECKED"
    assert steps[4]["detail"].startswith("seal not independently time-stamped; transcript head 20")
    assert all(step["outcome"] != "FAIL" for step in steps)


def test_a_seal_stamped_in_the_future_is_refused_before_anything_is_asked(keyset, tmp_path):
    authority = authorities.Authority(tmp_path / "tsa")
    token = authority.stamp((tmp_path / "k.seal.json").read_bytes(), datetime.now(UTC) + timedelta(hours=1))
    (tmp_path / "k.seal.1.tsr").write_bytes(token)
    with running(service(marked)) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--out", tmp_path / "a")
    assert done.exit_code == 2
    assert "clocks" in only_line(done)
    assert not (tmp_path / "a").exists()
