"""Model files of other makers: the same answers as a stock tool gives, and nothing that runs unasked."""

import hashlib
import io
import json
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import skops.io
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from auditor.errors import MissingPartError, SuspectAnswerError, SuspectLoadError, UsageError
from auditor.evidence.raw_answers import read_raw_answers
from auditor.evidence.reading import reading_of
from auditor.suspects import open_suspect
from auditor.suspects.program_file import exported_problem

SHAPE = (1, 4, 4)
WEIGHTS = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
INPUTS = np.random.default_rng(1).integers(0, 256, (7, *SHAPE), dtype=np.uint8)
ROWS = INPUTS.reshape(7, 16).astype(np.float32) / np.float32(255)
EXPECTED = ROWS @ WEIGHTS


def ask(path, **settings):
    with open_suspect(model=Path(path), **settings) as suspect:
        return suspect.describe(), suspect.query(INPUTS).reply


def same(reply, scores, labels=None):
    assert [answer.label for answer in reply.answers] == (
        np.argmax(scores, axis=1).tolist() if labels is None else labels
    )
    np.testing.assert_allclose([answer.scores for answer in reply.answers], scores, rtol=1e-4, atol=1e-5)


def onnx_model(*, sides=("n", *SHAPE), type_=TensorProto.FLOAT, output="scores"):
    nodes = [helper.make_node("Flatten", ["x"], ["f"])]
    if type_ == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", ["f"], ["g"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("MatMul", ["g" if len(nodes) == 2 else "f", "w"], ["scores"]))
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 5])]
    if output == "labels":
        nodes.append(helper.make_node("ArgMax", ["scores"], ["labels"], axis=1, keepdims=0))
        outputs = [helper.make_tensor_value_info("labels", TensorProto.INT64, ["n"])]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", type_, list(sides))],
        outputs,
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_onnx_with_scores(tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(onnx_model())
    description, reply = ask(file)
    same(reply, EXPECTED)
    assert description.suspect.artefact_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert description.suspect.uri == "m.onnx"
    assert (description.suspect.kind, description.input_shape) == ("file", SHAPE)
    read = read_raw_answers(reply.body)
    assert [raw.scores for raw in read] == [answer.scores for answer in reply.answers]


def test_onnx_with_labels_bytes_and_rows(tmp_path):
    (tmp_path / "l.onnx").write_bytes(onnx_model(output="labels"))
    reply = ask(tmp_path / "l.onnx")[1]
    assert [answer.label for answer in reply.answers] == EXPECTED.argmax(axis=1).tolist()
    assert reply.answers[0].scores is None
    (tmp_path / "b.onnx").write_bytes(onnx_model(type_=TensorProto.UINT8))
    same(ask(tmp_path / "b.onnx")[1], EXPECTED * 255)
    (tmp_path / "r.onnx").write_bytes(onnx_model(sides=("n", 16)))
    description, reply = ask(tmp_path / "r.onnx")
    same(reply, EXPECTED)
    assert description.input_shape is None


def test_a_profile_says_how_a_local_model_takes_its_inputs(tmp_path):
    (tmp_path / "m.onnx").write_bytes(onnx_model())
    profile = tmp_path / "mine.toml"
    profile.write_text(
        'schema = "auditor.profile/1"\n[input]\nmean = [0.5]\nstd = [0.25]\ndivide = 255\n'
        '[labels.map]\n"0" = 1\n"1" = 0\n"2" = 2\n"3" = 3\n"4" = 4\n'
    )
    description, reply = ask(tmp_path / "m.onnx", profile=str(profile))
    scores = ((ROWS - 0.5) / 0.25) @ WEIGHTS
    same(reply, scores[:, [1, 0, 2, 3, 4]])
    assert description.suspect.profile == "mine"
    assert description.suspect.profile_sha256 == hashlib.sha256(profile.read_bytes()).hexdigest()
    read = read_raw_answers(reply.body, reading_of(description.suspect.reading))
    assert [raw.label for raw in read] == [answer.label for answer in reply.answers]
    with pytest.raises(UsageError, match="this suspect is a model file"):
        ask(tmp_path / "m.onnx", profile="mlflow")
    with pytest.raises(UsageError, match="suits model files only"):
        open_suspect(endpoint="http://h", profile=str(profile))


def external(model):
    loaded = onnx.load_from_string(model)
    tensor = loaded.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return loaded.SerializeToString()


def own_operator(model):
    loaded = onnx.load_from_string(model)
    loaded.graph.node[0].domain = "evil"
    return loaded.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [b"", b"x" * 100, b"\x80\x04N.", onnx_model()[:200], external(onnx_model()), own_operator(onnx_model())],
)
def test_files_that_are_no_onnx_model(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(SuspectLoadError) as caught:
        ask(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_onnx_inputs_of_another_shape(tmp_path):
    (tmp_path / "m.onnx").write_bytes(onnx_model())
    with open_suspect(model=tmp_path / "m.onnx") as suspect, pytest.raises(SuspectAnswerError, match="does not take"):
        suspect.query(np.zeros((1, 1, 5, 5), np.uint8))


def fitted(labels):
    rows = np.random.default_rng(5).random((60, 16))
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)


def test_sklearn_with_numbers_and_with_names(tmp_path):
    model = fitted(np.arange(60) % 5)
    skops.io.dump(model, tmp_path / "m.skops")
    description, reply = ask(tmp_path / "m.skops")
    same(reply, model.predict_proba(ROWS))
    assert description.suspect.artefact_sha256 == hashlib.sha256((tmp_path / "m.skops").read_bytes()).hexdigest()

    names = np.array(["ant", "bee", "cat"])
    model = fitted(names[np.arange(60) % 3])
    skops.io.dump(model, tmp_path / "n.skops")
    description, reply = ask(tmp_path / "n.skops", classes=("cat", "bee", "ant"))
    assert [answer.label for answer in reply.answers] == [("cat", "bee", "ant").index(x) for x in model.predict(ROWS)]
    read = read_raw_answers(reply.body, reading_of(description.suspect.reading))
    assert [raw.label for raw in read] == [answer.label for answer in reply.answers]


def test_sklearn_types_that_are_not_trusted_are_named_and_not_made(tmp_path):
    import os

    skops.io.dump(FunctionTransformer(os.system), tmp_path / "evil.skops")
    with pytest.raises(SuspectLoadError, match=r"evil.skops: holds types that are not trusted.*posix\.system"):
        ask(tmp_path / "evil.skops")


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", b"\x80\x04N.", zipped(a="b"), zipped(schema_dot_json="{"), zipped(schema_dot_json="[]")],
)
def test_files_that_are_no_sklearn_model(tmp_path, data):
    (tmp_path / "m.skops").write_bytes(data)
    with pytest.raises(SuspectLoadError) as caught:
        ask(tmp_path / "m.skops")
    assert "\n" not in str(caught.value)


def test_an_estimator_that_is_no_classifier(tmp_path):
    skops.io.dump(StandardScaler().fit(ROWS), tmp_path / "m.skops")
    with pytest.raises(SuspectLoadError, match="not a classifier"):
        ask(tmp_path / "m.skops")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The same linear network as TorchScript and as an exported program, by PyTorch itself."""
    folder = tmp_path_factory.mktemp("programs")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 5, bias=False)).eval()
    network[1].weight.data = torch.tensor(WEIGHTS.T.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network, torch.zeros(2, *SHAPE)).save(folder / "m.ts")
    size = torch.export.Dim("n", min=1, max=4096)
    exported = torch.export.export(network, (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: size},))
    torch.export.save(exported, folder / "m.pt2")
    (folder / "m.pt").write_bytes((folder / "m.ts").read_bytes())
    return folder


@pytest.mark.parametrize("name", ["m.ts", "m.pt", "m.pt2"])
def test_programs_run_when_they_may(programs, name):
    description, reply = ask(programs / name, allow_python=True)
    same(reply, EXPECTED)
    assert description.suspect.artefact_sha256 == hashlib.sha256((programs / name).read_bytes()).hexdigest()
    with pytest.raises(SuspectLoadError, match="--allow-python"):
        ask(programs / name)


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def changed(data, change):
    """Return an archive with some of its files replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            content = change(item.filename, old.read(item))
            if content is not None:
                new.writestr(item.filename, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["m.ts", "m.pt", "m.pt2"])
def test_pickles_under_another_name_are_never_run(tmp_path, name):
    mark = tmp_path / "was-run"
    buffer = io.BytesIO()
    torch.save(Trap(mark), buffer)
    for data in (pickle.dumps(Trap(mark)), buffer.getvalue(), b"", b"PK\x03\x04"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SuspectLoadError) as caught:
            ask(tmp_path / name, allow_python=True)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_an_exported_program_that_would_unpickle_or_evaluate_is_refused(programs, tmp_path):
    whole = (programs / "m.pt2").read_bytes()
    assert exported_problem(whole) == ""
    mark = tmp_path / "was-run"
    trap = io.BytesIO()
    torch.save(Trap(mark), trap)

    def pickled_weight(name, content):
        if name.endswith("weight_0"):
            return trap.getvalue()
        if name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true').replace(
                b'"use_pickle":false', b'"use_pickle":true'
            )
        return content

    def samples(name, content):
        return trap.getvalue() if "sample_inputs" in name else content

    def expression(name, content):
        if not name.endswith("models/model.json"):
            return content
        head, found, tail = json.dumps(json.loads(content)).partition('"expr_str": "')
        assert found
        return f"{head}{found}().__class__, {tail}".encode()

    def custom(name, content):
        return (
            content.replace(b"{}", b'{"x": {"path_name": "custom_obj_0"}}') if "constants_config" in name else content
        )

    def guarded(name, content):
        return content.replace(b'"guards_code": []', b'"guards_code": ["print(1)"]')

    def old_form(name, content):
        return None if name.endswith("archive_format") else content

    for change in (pickled_weight, samples, expression, custom, guarded, old_form):
        spoiled = changed(whole, change)
        assert exported_problem(spoiled), change.__name__
        (tmp_path / "m.pt2").write_bytes(spoiled)
        with pytest.raises(SuspectLoadError):
            ask(tmp_path / "m.pt2", allow_python=True)
    assert not mark.exists()


def test_a_function(tmp_path, monkeypatch):
    module = tmp_path / "suspect_function_of_a_test.py"
    module.write_text(
        "import numpy as np\n"
        "def labels(x): return (x[:, 0, 0, 0] % 5).astype(int)\n"
        "def broken(x): raise RuntimeError('no')\n"
        "def half(x): return np.zeros((len(x), 2))[:1]\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    where = "python:suspect_function_of_a_test"
    description, reply = ask(f"{where}:labels", allow_python=True)
    assert [answer.label for answer in reply.answers] == (INPUTS[:, 0, 0, 0] % 5).tolist()
    assert description.suspect.artefact_sha256 == hashlib.sha256(module.read_bytes()).hexdigest()
    with pytest.raises(SuspectAnswerError, match="RuntimeError"):
        ask(f"{where}:broken", allow_python=True)
    with pytest.raises(SuspectAnswerError, match="1 answers to 7"):
        ask(f"{where}:half", allow_python=True)
    for name in ("number", "absent"):
        with pytest.raises(SuspectLoadError):
            ask(f"{where}:{name}", allow_python=True)
    with pytest.raises(SuspectLoadError, match="--allow-python"):
        ask(f"{where}:labels")
    with pytest.raises(UsageError, match="python:module:function"):
        ask("python:os.system('x')", allow_python=True)


@pytest.mark.parametrize(
    ("module", "name", "extra"), [("onnxruntime", "m.onnx", "onnx"), ("skops", "m.skops", "sklearn")]
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, name, extra):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "skops.io", raising=False)
    with pytest.raises(MissingPartError, match=rf"\[{extra}\]"):
        ask(tmp_path / name)
