"""From a trained model to a named client: train, guard, serve, extract, verify, check - the real commands on digits."""

import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
import web
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent / "evidence"))

import tampering

from auditor import datasets, serving
from auditor.cli.app import app
from auditor.errors import UsageError
from auditor.evidence.keyset import open_sealed
from auditor.evidence.schedule import draw_schedule, judge_seed
from auditor.guard_keys import GuardSettings
from auditor.guards import Guard
from auditor.guards.desk import open_desk
from auditor.models import LoadedModel, build, describe, load_model, predict, save_model

BEACON, NONCE = "ab" * 32, bytes(range(32))


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guarded")
    run("train", "none", "--data", "digits", "--epochs", 10, "--out", folder / "model")
    options = ("--data", "digits", "--clients", "alice,bob,carol", "--probes", 180, "--controls", 20)
    run("guard", folder / "model", *options, "--commit-only", "--out", folder / "draft")
    run(
        "guard", folder / "model", *options, "--commitment", folder / "draft", "--beacon", BEACON, "--out", folder / "g"
    )
    return folder


def service(world: Path, log: Path | None = None, **options: object) -> object:
    loaded = load_model(world / "model")
    description = loaded.description
    desk = open_desk(
        world / "g" / "k.npz", model_sha256=description.weights_sha256, classes=description.classes,
        header="X-Client-Id", log=log,
    )  # fmt: skip
    return serving.create_app(
        lambda inputs: predict(loaded.network, inputs),
        name="guarded",
        classes=description.classes,
        input_shape=description.input_shape,
        answers=serving.AnswerMode.SCORES,
        max_batch=2000,
        per_client=serving.PerClient(header=desk.header, knows=desk.knows, answer=desk.answer),
        **options,  # type: ignore[arg-type]
    )


def ask(url: str, inputs: np.ndarray, client: str | None) -> requests.Response:
    data = base64.b64encode(inputs.tobytes()).decode()
    body = {"inputs": {"shape": list(inputs.shape), "dtype": "uint8", "data_b64": data}}
    return requests.post(f"{url}/v1/predict", json=body, headers={"X-Client-Id": client} if client else {}, timeout=30)


@pytest.fixture(scope="module")
def stolen(world: Path) -> Path:
    """A surrogate trained on what client bob got over HTTP."""
    import torch

    data = datasets.load("digits")
    with web.running(service(world, log=world / "queries.jsonl")) as url:  # type: ignore[arg-type]
        reply = ask(url, data.train.inputs, "bob")
    answers = torch.tensor([answer["scores"] for answer in reply.json()["answers"]])
    description = describe("small-cnn", input_shape=data.spec.shape, classes=data.classes)
    network = build(description, seed=5)
    x = torch.from_numpy(data.train.inputs.astype(np.float32)) / 255.0
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    generator = torch.Generator().manual_seed(1)
    network.train()
    for _ in range(30):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            loss = -(answers[rows] * torch.log_softmax(network(x[rows]), dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    (world / "stolen").mkdir()
    save_model(world / "stolen", network, description)
    return world / "stolen"


def test_the_record_says_what_the_guard_costs(world: Path) -> None:
    record = json.loads((world / "g" / "guard.record.json").read_text())
    measured = record["measured"]
    assert measured["changed_first_class"] == 0
    assert measured["accuracy_clean"] == measured["accuracy_guarded"]
    # Each strength is drawn around μ with a standard deviation of at most σ, so that 2 μ bounds the expected change and
    # four standard errors more bound the mean over this many images.
    settings = GuardSettings()
    assert float(measured["mean_l1"]) <= 2 * settings.mu + 8 * settings.sigma / measured["n_queries"] ** 0.5
    assert float(measured["ranked_first"]) > 0.9
    seal = open_sealed(world / "g" / "k.npz").seal
    assert seal.protocol.randomness == BEACON
    assert seal.protocol.grinding_log2 == 0
    # Digits hold out 250 pictures, so that the pool is not quite twice what is asked.
    assert (record["n_probes"], record["n_pool"]) == (seal.protocol.n_asked, seal.protocol.n_keys) == (180, 230)


@pytest.fixture(scope="module")
def audited(world: Path, stolen: Path) -> Path:
    """The bundle of an audit of the surrogate."""
    out = world / "audit"
    # Whichever test comes first in this process has shown the keys.
    run("verify", "--model", stolen, "--keyset", world / "g" / "k.npz", "--out", out, "--reuse-keys")
    return out


def test_the_client_whose_queries_trained_the_surrogate_is_named(world: Path, audited: Path) -> None:
    out = audited
    results = json.loads((out / "results.json").read_text())
    assert results["verdict"]["reason"] == "null-rejected"
    assert results["table"]["named"] == ["bob"]
    assert results["table"]["channel"] == "scores"
    assert float(results["test"]["log10_p"]) <= -6
    assert sum(results["table"]["redraws"]["counts"]) == 9999
    assert results["queries"]["keys"] == 180
    assert results["keyset"]["n_keys"] == 230
    told = run("check", out, "--keyset", world / "g" / "k.npz")
    assert "every number follows from the answers: supported" in " ".join(told.replace("│", " ").split())
    assert "bob" in (out / "report.html").read_text()


def test_an_independent_model_is_not_claimed_on_the_probes_that_a_judge_picks(world: Path) -> None:
    run("train", "none", "--data", "digits", "--epochs", 10, "--seed", 9, "--out", world / "innocent")
    run(
        "verify", "--model", world / "innocent", "--keyset", world / "g" / "k.npz", "--out", world / "audit-innocent",
        "--reuse-keys", "--judge-nonce", NONCE.hex(), code=3,
    )  # fmt: skip
    results = json.loads((world / "audit-innocent" / "results.json").read_text())
    assert results["verdict"]["reason"] == "null-not-rejected"
    assert results["table"]["named"] == []
    seal = open_sealed(world / "g" / "k.npz").seal
    schedule = draw_schedule(seal.protocol, judge=judge_seed(NONCE, seal.merkle_root))
    openings = json.loads((world / "audit-innocent" / "openings.json").read_bytes())["samples"]
    assert {each["index"] for each in openings} == {probe.index for probe in schedule}
    assert sum(each["kind"] == "key" for each in openings) == 180
    run("check", world / "audit-innocent", "--keyset", world / "g" / "k.npz", "--judge-nonce", NONCE.hex())
    run("check", world / "audit-innocent", "--judge-nonce", "5a" * 32, code=5)


@pytest.mark.parametrize("file", ["guard.json", "results.json"])
def test_a_changed_bundle_does_not_check(audited: Path, file: str, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "audit"
    shutil.copytree(audited, copy)
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(bytes(data))
    run("check", copy, code=5)


@pytest.mark.parametrize("how", ["changed", "removed", "emptied", "swapped"])
def test_an_examiner_who_signs_another_guard_again_is_caught_by_the_seal(
    audited: Path, how: str, tmp_path: Path
) -> None:
    import shutil
    from dataclasses import replace

    from auditor.casefile import examiner_key, utc_now
    from auditor.evidence.times import utc_text
    from auditor.guard_keys import pack, unpack

    copy = tmp_path / "audit"
    shutil.copytree(audited, copy)
    sealed = (copy / "guard.json").read_bytes()
    if how == "removed":
        (copy / "guard.json").unlink()
    else:
        keys = unpack(sealed)
        other = pack(replace(keys, client_keys={client: bytes(32) for client in keys.clients}))
        changed = sealed.replace(b"0", b"1", 1)
        (copy / "guard.json").write_bytes({"changed": changed, "emptied": b"", "swapped": other}[how])
    made = SimpleNamespace(folder=copy, examiner=examiner_key(), owner=SimpleNamespace(fingerprint=owner_of(copy)))
    tampering.sign_again(made, signed_at=utc_text(utc_now()))  # type: ignore[arg-type]
    steps = json.loads(run("check", copy, "--json", code=5))["steps"]
    assert next(step["title"] for step in steps if step["outcome"] == "FAIL") == "results recomputed"


def test_a_bundle_whose_probes_the_judge_did_not_pick_does_not_check(audited: Path, tmp_path: Path) -> None:
    """The examiner names a nonce afterwards that would have picked other probes, and signs everything again."""
    import shutil

    from auditor.casefile import examiner_key

    copy = tmp_path / "audit"
    shutil.copytree(audited, copy)
    made = SimpleNamespace(folder=copy, examiner=examiner_key(), owner=SimpleNamespace(fingerprint=owner_of(copy)))

    def name_a_nonce(lines: list[dict]) -> None:
        lines[0]["preamble"]["judge_nonce"] = "5a" * 32

    tampering.change_transcript(made, name_a_nonce)  # type: ignore[arg-type]
    steps = json.loads(run("check", copy, "--json", code=5))["steps"]
    failed = [step["detail"] for step in steps if step["outcome"] == "FAIL"]
    assert any("the opened samples are not exactly those that were asked" in detail for detail in failed), failed


def owner_of(folder: Path) -> str:
    payload = json.loads((folder / "manifest.dsse.json").read_bytes())["payload"]
    return str(json.loads(base64.b64decode(payload))["predicate"]["owner_fingerprint"])


def test_a_guard_of_another_draw_is_not_the_sealed_one(world: Path, stolen: Path) -> None:
    from dataclasses import replace

    from auditor.errors import SealError
    from auditor.evidence.opened_table import open_table
    from auditor.guard_keys import pack, unpack

    opened = open_sealed(world / "g" / "k.npz")
    keys = unpack(opened.keys.guard)
    other = pack(replace(keys, client_keys={client: bytes(32) for client in keys.clients}))
    with pytest.raises(SealError, match="not the sealed one"):
        open_table(other, seal=opened.seal, data={})


def test_the_key_set_is_derived_again_and_a_forged_one_is_found(world: Path) -> None:
    from dataclasses import replace

    from auditor.errors import SealError
    from auditor.evidence.generation import rederive
    from auditor.guard_keys import pack, unpack

    opened = open_sealed(world / "g" / "k.npz")
    assert "all samples follow" in rederive(opened.keys, opened.seal).summary
    keys = unpack(opened.keys.guard)
    for forged, words in (
        (replace(keys, client_keys={client: bytes(32) for client in keys.clients}), "client keys"),
        (replace(keys, thresholds=keys.thresholds + 1), "thresholds"),
        (replace(keys, reference=keys.reference[::-1].copy()), "thresholds"),
    ):
        with pytest.raises(SealError, match=words):
            rederive(replace(opened.keys, guard=pack(forged)), opened.seal)


def test_three_lines_suffice_in_any_handler(world: Path) -> None:
    guard = Guard.open(world / "g" / "k.npz", client_id="alice")
    loaded, inputs = load_model(world / "model"), datasets.load("digits").test.inputs[:20]
    answers = guard(predict(loaded.network, inputs), inputs)
    assert answers.shape == (20, 10)


def test_a_guard_for_another_model_or_label_order_is_refused(world: Path, tmp_path: Path) -> None:
    path, description = world / "g" / "k.npz", load_model(world / "model").description
    with pytest.raises(UsageError, match="another model"):
        Guard.open(path, client_id="alice", model_sha256="00" * 32)
    with pytest.raises(UsageError, match="order"):
        Guard.open(path, client_id="alice", classes=description.classes[::-1])
    with pytest.raises(UsageError, match="no key was drawn"):
        Guard.open(path, client_id="mallory")
    run("train", "none", "--data", "digits", "--epochs", 1, "--seed", 3, "--out", tmp_path / "other")
    told = run("serve", tmp_path / "other", "--guard", path, "--port", 0, code=2)
    assert "another model" in told


def test_only_registered_clients_are_answered_and_queries_are_logged_as_hashes(world: Path, tmp_path: Path) -> None:
    inputs = datasets.load("digits").test.inputs[:3]
    log = tmp_path / "queries.jsonl"
    with web.running(service(world, log=log)) as url:  # type: ignore[arg-type]
        assert ask(url, inputs, None).status_code == 403
        assert ask(url, inputs, "mallory").status_code == 403
        alice, again, bob = (ask(url, inputs, client).json() for client in ("alice", "alice", "bob"))
    assert alice == again
    assert alice != bob
    assert [a["label"] for a in alice["answers"]] == [b["label"] for b in bob["answers"]]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["client"] for line in lines] == ["alice"] * 6 + ["bob"] * 3
    assert lines[0]["query_sha256"] == lines[3]["query_sha256"] == lines[6]["query_sha256"]
    assert set(lines[0]) == {"at", "client", "query_sha256"}


def test_contradictory_requests_are_refused(world: Path, tmp_path: Path) -> None:
    model = world / "model"
    run("guard", model, "--data", "digits", "--clients", "a,a", "--out", tmp_path / "x", code=2)
    run("guard", model, "--data", "digits", "--clients", "a", "--probes", 100000, "--out", tmp_path / "y", code=2)
    run(
        "guard", model, "--data", "digits", "--clients", "a", "--commit-only", "--beacon", BEACON, "--out",
        tmp_path / "z", code=2,
    )  # fmt: skip
    run(
        "guard", model, "--data", "digits", "--clients", "alice,bob,mallory", "--commitment", world / "draft",
        "--beacon", BEACON, "--out", tmp_path / "v", code=2,
    )  # fmt: skip
    run("serve", model, "--query-log", tmp_path / "log", "--port", 0, code=2)


def test_a_key_set_without_guard_is_no_guard(world: Path) -> None:
    from dataclasses import replace

    from auditor.guards.sealed import guard_keys

    opened = open_sealed(world / "g" / "k.npz")
    bare = replace(opened, keys=replace(opened.keys, guard=b""))
    with pytest.raises(UsageError, match="no guard"):
        guard_keys(bare)


def test_labels_alone_are_read_by_the_weaker_channel(world: Path, stolen: Path, tmp_path: Path) -> None:
    loaded = load_model(stolen)
    description = loaded.description
    labels_only = serving.create_app(
        lambda inputs: predict(loaded.network, inputs), name="labels", classes=description.classes,
        input_shape=description.input_shape, answers=serving.AnswerMode.LABELS,
    )  # fmt: skip
    with web.running(labels_only) as url:
        result = CliRunner().invoke(
            app,
            ["verify", "--endpoint", url, "--keyset", str(world / "g" / "k.npz"), "--out", str(tmp_path / "a"),
             "--reuse-keys"],
        )  # fmt: skip
    assert result.exit_code in (0, 4), result.output
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results["verdict"]["reason"] in ("null-rejected", "answers-uninformative")
    assert results["table"]["channel"] == "labels"
    assert "supporting evidence at most" in results["table"]["channel_note"]


def test_loaded_models_are_left_as_they_were(world: Path) -> None:
    found = load_model(world / "model")
    assert isinstance(found, LoadedModel)
    assert (
        found.description.weights_sha256 == json.loads((world / "g" / "guard.record.json").read_text())["model_sha256"]
    )


def test_the_middleware_example_guards_a_service_it_knows_nothing_about(world: Path) -> None:
    import importlib.util

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    file = Path(__file__).parent.parent / "examples" / "guarded_asgi.py"
    spec = importlib.util.spec_from_file_location("guarded_asgi", file)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    network = load_model(world / "model").network

    async def answer(request: Request) -> JSONResponse:
        inputs = np.array((await request.json())["inputs"], dtype=np.uint8)
        return JSONResponse({"probabilities": predict(network, inputs).astype(float).tolist()})

    plain = Starlette(routes=[Route("/predict", answer, methods=["POST"])])
    inputs = datasets.load("digits").test.inputs[:10]
    with web.running(example.GuardMiddleware(plain, keyset=world / "g" / "k.npz")) as url:
        body = {"inputs": inputs.tolist()}
        told = requests.post(f"{url}/predict", json=body, headers={"X-Client-Id": "carol"}, timeout=30)
        refused = requests.post(f"{url}/predict", json=body, headers={"X-Client-Id": "mallory"}, timeout=30)
    clean = predict(network, inputs).astype(float)
    expected = Guard.open(world / "g" / "k.npz", client_id="carol")(clean, inputs)
    assert np.allclose(told.json()["probabilities"], expected)
    assert not np.allclose(told.json()["probabilities"], clean)
    assert refused.status_code == 403
