import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from auditor.errors import SuspectAnswerError, SuspectLoadError
from auditor.models import build, describe, save_model
from auditor.suspects import open_suspect
from auditor.suspects.torch_file import TorchFileSuspect

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("private-place") / "suspect"
    description = describe("mlp", input_shape=SHAPE, classes=tuple("0123456789Δ"))
    save_model(made, build(description, seed=1), description)
    return made


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (9, *SHAPE), dtype=np.uint8)


def test_a_model_file_answers_like_its_network(folder, inputs):
    for path in (folder, folder / "model.safetensors"):
        with open_suspect(model=path, timeout_s=30.0) as suspect:
            description = suspect.describe()
            exchange = suspect.query(inputs)
    weights = (folder / "model.safetensors").read_bytes()
    assert description.suspect.artefact_sha256 == hashlib.sha256(weights).hexdigest()
    assert (description.suspect.uri, description.suspect.kind) == ("model.safetensors", "file")
    assert "private-place" not in repr(description)
    assert (description.input_shape, description.n_labels) == (SHAPE, 11)

    # The same network, written down by hand from the tensors in the file.
    from safetensors.numpy import load

    t = load(weights)
    hidden = np.maximum(inputs.reshape(9, 64) / 255 @ t["1.weight"].T + t["1.bias"], 0)
    logits = hidden @ t["3.weight"].T + t["3.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert [a.label for a in exchange.reply.answers] == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose([a.scores for a in exchange.reply.answers], expected, rtol=1e-4)
    body = json.loads(exchange.reply.body)
    assert [tuple(map(float, a["scores"])) for a in body["answers"]] == [a.scores for a in exchange.reply.answers]
    assert exchange.failed_attempts == ()


def test_inputs_of_another_shape_are_named(folder):
    with TorchFileSuspect(folder) as suspect, pytest.raises(SuspectAnswerError, match="another shape"):
        suspect.query(np.zeros((1, 1, 28, 28), np.uint8))


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.pkl", "m.bin", "m.ckpt", "m.onnx", "m", "m.safetensors"])
def test_a_pickle_is_refused_and_never_run(folder, tmp_path, name):
    mark = tmp_path / "was-run"
    (tmp_path / name).write_bytes(pickle.dumps(Trap(mark)))
    description = json.loads((folder / "model.json").read_bytes())
    description["weights_sha256"] = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    (tmp_path / "m.json").write_text(json.dumps(description))
    with pytest.raises(SuspectLoadError) as caught:
        TorchFileSuspect(tmp_path / name)
    assert not mark.exists()
    assert "safetensors" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_torch_archive_under_a_trusted_name_is_refused(folder, tmp_path):
    torch.save({"x": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_bytes((folder / "model.json").read_bytes())
    with pytest.raises(SuspectLoadError):
        TorchFileSuspect(tmp_path)


def test_missing_files_are_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "none.safetensors", tmp_path / "none"):
        with pytest.raises(SuspectLoadError) as caught:
            open_suspect(model=path)
        assert "\n" not in str(caught.value)


BLOCKED = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from auditor.errors import MissingPartError
from auditor.suspects import open_suspect
import auditor.serving
open_suspect(endpoint="http://127.0.0.1:1").close()
try:
    open_suspect(model=Path(sys.argv[1]))
except MissingPartError as error:
    print(error)
"""


def test_without_torch_endpoints_work_and_files_name_what_to_install(folder):
    command = [sys.executable, "-W", "error", "-c", BLOCKED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "opening a model file needs PyTorch: pip install 'model-ownership-auditor[train]'\n"
