"""`auditor verify` against services of other makers, and what it leaves for `auditor check`."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from cases import KINDS, innocent, marked, seal_keys, small_protocol
from onnx import TensorProto, helper, numpy_helper
from protocols import SPEC
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner
from web import running

from auditor.cli.app import app
from auditor.errors import TranscriptError
from auditor.evidence.raw_answers import compare_raw_answers
from auditor.evidence.transcript import read_transcript
from auditor.records import Answer, SampleKind


@pytest.fixture
def keyset(tmp_path):
    seal_keys(tmp_path / "k.npz", small_protocol())
    return tmp_path / "k.npz"


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def named_service(table, *, new="something else", secret=None, asked=None):
    """A service that takes flat rows, answers with names, and calls its extra class by a name of its own.

    ``asked`` is a list that every input is appended to.
    """
    names = (*SPEC.classes, new)

    async def invocations(request):
        if secret is not None and request.headers.get("authorization") != f"Bearer {secret}":
            return JSONResponse({}, status_code=401)
        rows = np.array((await request.json())["inputs"])
        if asked is not None:
            asked.extend(rows.tolist())
        return JSONResponse({"predictions": [names[table(KINDS[int(row[0])], int(row[1]))] for row in rows]})

    return Starlette(routes=[Route("/invocations", invocations, methods=["POST"])])


def test_a_service_that_answers_with_names(keyset, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDITOR_TEST_KEY", "hunter2-hunter2")
    profile = tmp_path / "mine.toml"
    source = CliRunner().invoke(app, ["profiles", "mlflow"]).stdout
    profile.write_text(f'{source}\n[request.headers]\nAuthorization = "Bearer ${{AUDITOR_TEST_KEY}}"\n')
    folder = tmp_path / "a"
    with running(named_service(marked, secret="hunter2-hunter2")) as url:
        options = ["--profile", profile, "--out", folder, "--account", "acc 7"]
        done = run("--keyset", keyset, "--endpoint", url, *options)
    assert done.exit_code == 0, done.output
    kept = read_transcript((folder / "transcript.jsonl").read_bytes())
    suspect = kept.preamble["suspect"]
    assert (suspect["profile"], suspect["account"], suspect["address"]) == ("mine", "acc 7", "127.0.0.1")
    assert suspect["profile_sha256"] == hashlib.sha256(profile.read_bytes()).hexdigest()
    reading = json.loads(suspect["reading"])
    assert reading["label_map"] == {name: label for label, name in enumerate(SPEC.classes)}

    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"hunter2" not in written
    assert "hunter2" not in done.output

    checked = CliRunner().invoke(app, ["check", str(folder), "--json"])
    assert checked.exit_code == 0, checked.output
    (raw,) = [step for step in json.loads(checked.stdout)["steps"] if "raw" in step["title"]]
    assert raw["outcome"] == "PASS"

    n_read, n_unknown = compare_raw_answers(folder, kept)
    assert (n_read, n_unknown) == (sum(len(batch.positions) for batch in kept.batches), 0)
    first = kept.batches[0]
    forged = replace(first, answers=(Answer(label=(first.answers[0].label + 1) % 4), *first.answers[1:]))
    with pytest.raises(TranscriptError, match="not those of the raw body"):
        compare_raw_answers(folder, replace(kept, batches=(forged, *kept.batches[1:])))


def test_a_budget_pays_for_the_calibration_too(keyset, tmp_path):
    source = CliRunner().invoke(app, ["profiles", "mlflow"]).stdout
    profile = tmp_path / "mine.toml"
    profile.write_text(f'{source}\n[limits]\nprice_per_query = "0.1"\nbatch_size = 7\n')
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (100, 1, 2, 2), dtype=np.uint8)
    # What a table reads: the kind of a control, and the class.
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = KINDS.index(SampleKind.CONTROL), np.arange(100) % 4
    np.savez(tmp_path / "ordinary.npz", inputs=pixels, labels=np.arange(100) % 4)
    for budget, fits in (("7.9", False), ("17", False), ("20", True)):
        asked = []
        with running(named_service(marked, asked=asked)) as url:
            done = run(
                "--keyset", keyset, "--endpoint", url, "--profile", profile, "--out", tmp_path / f"at {budget}",
                "--calibration", tmp_path / "ordinary.npz", "--budget", budget, "--reuse-keys",
            )  # fmt: skip
        assert len(asked) * 0.1 <= float(budget) + 1e-9
        assert (done.exit_code == 0) is fits, done.output
        if fits:
            assert len(asked) > 100
            assert f"charged: at most {len(asked) / 10:.1f}, {len(asked)} inputs at 0.1\n" in done.stdout
        else:
            assert asked == []
            assert ("nothing beyond the 80 inputs" in done.stderr) is (budget == "7.9")
            assert len(done.stderr.strip().splitlines()) == 1


def test_a_map_that_leaves_a_name_out_never_makes_a_hit(keyset, tmp_path):
    profile = tmp_path / "mine.toml"
    names = ", ".join(f'"{name}"' for name in SPEC.classes)
    source = CliRunner().invoke(app, ["profiles", "mlflow"]).stdout
    profile.write_text(f'{source}\n[labels]\nnames = [{names}]\nunknown = "no-label"\n')
    with running(named_service(marked)) as url:
        done = run("--keyset", keyset, "--endpoint", url, "--profile", profile, "--out", tmp_path / "a", "--json")
    assert done.exit_code in (3, 4), done.output
    assert json.loads(done.stdout)["detection"]["hits"] == 0


def test_a_budget_is_a_limit_on_questions(keyset, tmp_path):
    source = CliRunner().invoke(app, ["profiles", "mlflow"]).stdout
    profile = tmp_path / "mine.toml"
    profile.write_text(f'{source}\n[limits]\nprice_per_query = "0.1"\ncurrency = "EUR"\n')
    with running(named_service(innocent)) as url:
        common = ["--keyset", keyset, "--endpoint", url, "--profile", profile]
        done = run(*common, "--out", tmp_path / "a", "--budget", "5")
        assert done.exit_code == 2
        assert "--max-queries 50 is too few" in done.output
        done = run(*common, "--out", tmp_path / "b", "--budget", "12.05", "--json")
        told = run(*common, "--out", tmp_path / "d", "--reuse-keys").stdout
    n_asked = json.loads((tmp_path / "d" / "results.json").read_text())["queries"]["total"]
    assert f"charged: at most {n_asked / 10:.1f} EUR, {n_asked} inputs at 0.1 EUR\n" in told
    results = json.loads(done.stdout)
    assert results["queries"]["total"] <= 120
    assert any("keys limited" in text for text in results["deviations"])
    for wrong in ("-1", "much", "NaN", "1e99"):
        assert run(*common, "--out", tmp_path / "c", "--budget", wrong).exit_code == 2
    assert run("--keyset", keyset, "--endpoint", "http://h", "--budget", "5").exit_code == 2
    assert run("--keyset", keyset, "--endpoint", "http://h", "--profile", "mlflow", "--budget", "5").exit_code == 2


def table_as_onnx():
    """The marked table as a graph: Δ where the first pixel says key, else the natural label in the second."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gather", ["f", "zero"], ["kind"], axis=1),
        helper.make_node("Gather", ["f", "one"], ["natural"], axis=1),
        helper.make_node("Equal", ["kind", "key"], ["is_key"]),
        helper.make_node("Where", ["is_key", "new", "natural"], ["chosen"]),
        helper.make_node("Cast", ["chosen"], ["label"], to=TensorProto.INT64),
    ]
    constants = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "key": np.array(KINDS.index("key"), np.uint8),
        "new": np.array(len(SPEC.classes), np.uint8),
    }
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", *SPEC.shape])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["n"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_an_onnx_file_end_to_end(keyset, tmp_path):
    onnx.save(table_as_onnx(), tmp_path / "m.onnx")
    done = run("--keyset", keyset, "--model", tmp_path / "m.onnx", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["check", str(tmp_path / "a")]).exit_code == 0


def test_programs_need_the_examiners_word(keyset, tmp_path):
    (tmp_path / "m.ts").write_bytes(b"PK\x03\x04")
    done = run("--keyset", keyset, "--model", tmp_path / "m.ts", "--out", tmp_path / "a")
    assert done.exit_code == 6
    assert "--allow-python" in done.output
    done = run("--keyset", keyset, "--model", "python:os:getcwd", "--out", tmp_path / "a")
    assert done.exit_code == 6
    assert "--allow-python" in done.output
