import json

import contracts
import numpy as np
import pytest
import web
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from auditor.cli.app import app
from auditor.serving import AnswerMode, create_app
from auditor.suspects.http import profile
from auditor.suspects.http.probing import N_INPUTS
from auditor.suspects.http.profile_file import parse_profile

SHAPE = (1, contracts.SIDE, contracts.SIDE)


@pytest.fixture
def data(tmp_path):
    inputs = np.random.default_rng(0).integers(0, 256, (N_INPUTS, *SHAPE), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", inputs=inputs, labels=np.array(contracts.expected(inputs)))
    return f"npz:{tmp_path / 'some.npz'}"


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def probe(url, data, *more):
    done = run("probe", "--endpoint", url, "--data", data, "--json", *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


SERVICES = {
    "open-inference-v2": (contracts.open_inference(), "/v2/models/animals"),
    "tensorflow-serving": (contracts.tensorflow_serving(), "/v1/models/animals"),
    "mlflow": (contracts.mlflow(), ""),
    "torchserve": (contracts.torchserve(), "/predictions/animals"),
    "huggingface-image": (contracts.huggingface(), "/models/animals"),
    "image-upload": (contracts.upload(), "/predict"),
}


@pytest.mark.parametrize("name", SERVICES)
def test_the_profile_is_found_by_trying(data, name):
    application, path = SERVICES[name]
    sent = []

    async def counting(scope, receive, send):
        if scope["type"] == "http":
            sent.append(scope["method"])
        await application(scope, receive, send)

    with web.running(counting) as url:
        found = probe(url + path, data)
    assert found["profile"] == name
    assert [each["profile"] for each in found["refused"]] == list(profile.names()[: profile.names().index(name)])
    # What it says it spent is what the service saw.
    assert found["requests"] == len(sent)
    if name in ("torchserve", "huggingface-image", "image-upload"):
        assert set(found["names"]) <= set(contracts.CLASSES)
        assert len(found["names"]) >= 4
        assert found["batch"] == 1
    else:
        assert found["numbers"] == [0, 1, 2, 3, 4]
        assert found["agreement"] == [23, 23]
        assert found["batch"] == 16
    assert found["same_labels"]
    assert found["same_scores"]
    expected = {"mlflow": 0, "image-upload": 0}.get(name, 5)
    assert found["scores"] == expected
    assert (found["score_sum"] is None) == (expected == 0)
    assert found["decimals"] == (1 if expected else None)


@pytest.mark.parametrize(("mode", "scores"), [(AnswerMode.LABELS, 0), (AnswerMode.TOP_K, 2), (AnswerMode.SCORES, 5)])
def test_the_own_contract_and_how_much_it_reveals(data, mode, scores):
    def predict(inputs):
        return np.array(contracts.scores_of(inputs[:, 0, 0, 0]), dtype=np.float32)

    application = create_app(
        predict, name="mine", classes=contracts.CLASSES, input_shape=SHAPE, answers=mode, top_k=2, max_batch=8
    )
    with web.running(application) as url:
        found = probe(url, data)
    assert (found["profile"], found["name"], found["declared_labels"]) == ("auditor", "mine", 5)
    assert (found["scores"], found["batch"], found["refused"]) == (scores, 8, [])
    # One description, five single questions, two repeats and one batch; 5 + 2 + 8 inputs.
    assert (found["requests"], found["queries"]) == (9, 15)


def test_lines_for_people(data):
    with web.running(contracts.huggingface(top=3)) as url:
        done = run("probe", "--endpoint", f"{url}/models/animals", "--data", data, "--profile", "huggingface-image")
    assert done.exit_code == 0
    assert "reveals      3 scores per answer, sum 0.8, at most 1 decimals" in done.stdout
    assert done.stdout.splitlines()[-1] == "spent        7 requests, 7 inputs asked; no key among them"


def predicts(handler, *, n=1, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    web.sends(body=json.dumps({"predictions": [3] * n}).encode(), headers=named)(handler)


def test_limits_that_a_service_states_are_shown(data):
    def step(handler):
        predicts(handler, X_RateLimit_Limit="600", RateLimit_Policy='"burst";q=100;w=60')

    with web.faulty(step) as server:
        done = run("probe", "--endpoint", server.url, "--data", data, "--profile", "mlflow")
        found = probe(server.url, data, "--profile", "mlflow")
    limits = {"ratelimit-policy": '"burst";q=100;w=60', "x-ratelimit-limit": "600"}
    assert found["limits"] == limits
    assert "limits       " + ", ".join(f"{name}: {value}" for name, value in limits.items()) + "\n" in done.stdout


def test_a_service_that_asks_for_patience_is_waited_for_once_its_profile_is_known(data):
    first, patience = predicts, web.sends(429, headers={"Retry-After": "0"})
    with web.faulty(first, first, patience, first) as server:
        found = probe(server.url, data, "--profile", "mlflow")
        assert found["requests"] == len(server.requests)
    assert found["retry_after"] == "0"
    assert found["numbers"] == [3]


def test_a_service_that_asks_for_patience_is_not_tried_with_every_profile(data):
    with web.faulty(web.sends(429, headers={"Retry-After": "30"})) as server:
        done = run("probe", "--endpoint", server.url, "--data", data)
    assert done.exit_code == 6
    assert "no answer (1 × HTTP 429), Retry-After: 30 (1 request)" in done.stderr
    assert len(server.requests) == 1


def test_requests_that_were_sent_on_elsewhere_are_counted(data):
    def step(handler):
        if handler.path.startswith("/moved"):
            return predicts(handler)
        return web.sends(308, headers={"Location": f"/moved{handler.path}"})(handler)

    with web.faulty(step) as server:
        found = probe(server.url, data, "--profile", "mlflow")
    assert found["requests"] == len(server.requests)


def test_every_profile_that_was_tried_is_told_with_its_reason(data):
    with web.faulty(web.sends(200, b'{"out": [1]}')) as server:
        done = run("probe", "--endpoint", server.url, "--data", data)
    assert done.exit_code == 6
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(name in done.stderr for name in profile.names())
    assert "tensorflow-serving, mlflow: the suspect's answer holds no list where the profile looks" in done.stderr
    with web.faulty(web.sends(404)) as server:
        done = run("probe", "--endpoint", server.url, "--data", data)
    assert "(10 requests); each of them: HTTP 404, no prediction service answers here" in done.stderr


def test_a_failure_in_the_middle_says_what_it_has_cost(data):
    steps = [predicts, predicts, web.sends(402)]
    with web.faulty(*steps) as server:
        done = run("probe", "--endpoint", server.url, "--data", data, "--profile", "mlflow")
    assert done.exit_code == 6
    assert "HTTP 402, no prediction service answers here (3 requests)" in done.stderr


def test_many_names_are_counted_and_only_some_printed(data):
    names = {f"name {i}": 1 / (i + 2) for i in range(1000)}
    with web.faulty(web.sends(body=json.dumps(names).encode())) as server:
        done = run("probe", "--endpoint", server.url, "--data", data, "--profile", "torchserve")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("labels")]
    assert "name 0, name 1, " in line
    assert line.endswith(" and 980 more")


def test_a_service_that_changes_its_mind_is_seen(data):
    turn = iter(range(1000))

    def step(handler):
        answers = json.dumps({"predictions": [next(turn) % 3]}).encode()
        web.sends(body=answers)(handler)

    with web.faulty(step) as server:
        done = run("probe", "--endpoint", server.url, "--data", data, "--profile", "mlflow")
    assert done.exit_code == 0, done.output
    assert "ANOTHER LABEL for one input" in done.stdout
    # The batch of sixteen was answered by one label only.
    assert "1 answered together; more: the suspect gave 1 answers to 16 questions" in done.stdout


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (web.sends(401), "HTTP 401, the service refuses"),
        (web.sends(200, b"<html>log in</html>"), "none of the built-in profiles suits"),
        (web.sends(404), "none of the built-in profiles suits"),
    ],
)
def test_services_that_cannot_be_probed_are_exit_6(data, step, words):
    with web.faulty(step) as server:
        done = run("probe", "--endpoint", server.url, "--data", data)
    assert done.exit_code == 6
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_closed_port_is_not_tried_with_every_profile(data):
    done = run("probe", "--endpoint", f"http://127.0.0.1:{web.free_port()}", "--data", data)
    assert done.exit_code == 6
    assert "1 × connection refused" in done.stderr


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "needs an array 'inputs'"),
        ({"inputs": np.zeros((30, 4, 4), np.uint8)}, "needs an array 'inputs'"),
        ({"inputs": np.zeros((30, 1, 4, 4), np.uint8), "labels": np.zeros(3, int)}, "'labels'"),
        ({"inputs": np.zeros((3, 1, 4, 4), np.uint8)}, "needs 21 ordinary inputs"),
        ({"inputs": np.array([object()])}, "cannot be read"),
    ],
)
def test_bad_files_of_inputs_are_exit_2(tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    done = run("probe", "--endpoint", "http://127.0.0.1:9", "--data", f"npz:{tmp_path / 'bad.npz'}")
    assert done.exit_code == 2
    assert words in done.stderr


def test_profiles_are_listed_and_printed_to_be_copied():
    listed = run("profiles").stdout
    assert all(name in listed for name in profile.names())
    for name in profile.names():
        printed = run("profiles", name).stdout
        assert parse_profile(printed.encode(), name=name) == profile.load(name)
    assert run("profiles", "nothing").exit_code == 2


@pytest.fixture
def many(tmp_path):
    inputs = np.random.default_rng(1).integers(0, 256, (200, *SHAPE), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", inputs=inputs, labels=np.array(contracts.expected(inputs)))
    return f"npz:{tmp_path / 'many.npz'}"


def shuffled():
    """A service whose numbers stand for other classes, and that answers 4 for two of them."""
    numbers = [3, 0, 4, 4, 1]

    async def invocations(request):
        rows = np.array((await request.json())["inputs"])
        return JSONResponse({"predictions": [numbers[int(row[0]) % 5] for row in rows]})

    return Starlette(routes=[Route("/invocations", invocations, methods=["POST"])])


def test_a_label_map_is_fitted_on_ordinary_inputs_and_fixed_in_a_profile(many, tmp_path):
    file = tmp_path / "mine.toml"
    with web.running(shuffled()) as url:
        done = run("probe", "--endpoint", url, "--data", many, "--profile", "mlflow", "--calibrate", file)
        assert done.exit_code == 0, done.output
        again = run("probe", "--endpoint", url, "--data", many, "--profile", file, "--calibrate", tmp_path / "b.toml")
    fixed = profile.load(str(file)).reading
    assert fixed.label_map == {"0": 1, "1": 4, "3": 0, "4": 999_999}
    assert "3 labels mapped, 1 left out, 2 classes without a label; " in done.stderr
    assert again.exit_code == 2
    assert "has [labels] already" in again.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--calibrate", "x.toml", "--calibration-size", "4"), "do not show what any label means"),
    ],
)
def test_calibrations_that_cannot_be(many, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    with web.running(shuffled()) as url:
        done = run("probe", "--endpoint", url, "--data", many, "--profile", "mlflow", *options)
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--calibrate", "x.txt"), "ends in .toml"),
        (("--calibrate", "there.toml"), "writes a new file"),
        (("--calibrate", "absent/x.toml"), "writes a new file"),
        (("--calibrate", "x.toml", "--calibration-size", "201"), "needs as many"),
        (("--calibrate", "x.toml", "--profile", "mapped.toml"), "has [labels] already"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused_before_anything_is_asked(many, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.toml").write_text("")
    (tmp_path / "mapped.toml").write_text(profile.source("mlflow").decode() + '[labels]\nnames = ["a"]\n')
    with web.faulty(predicts) as server:
        done = run("probe", "--endpoint", server.url, "--data", many, "--profile", "mlflow", *options)
    assert done.exit_code == 2
    assert words in done.stderr
    assert server.requests == []
