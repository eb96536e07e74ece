import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy.special import softmax

from auditor import models
from auditor.canonical import sha256_hex
from auditor.errors import SuspectLoadError, UsageError

CLASSES = tuple(str(i) for i in range(11))
INPUTS = np.random.default_rng(0).integers(0, 256, size=(7, 1, 8, 8), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path):
    description = models.describe("small-cnn", input_shape=(1, 8, 8), classes=CLASSES)
    network = models.build(description, seed=3)
    models.save_model(tmp_path, network, description)
    return tmp_path, network


def rewrite(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_weights(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    rewrite(folder, weights_sha256=sha256_hex(data))


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_saved_models_answer_the_same_after_loading(tmp_path, architecture):
    options = models.width_options(architecture, 8)
    description = models.describe(architecture, input_shape=(1, 8, 8), classes=CLASSES, options=options)
    network = models.build(description, seed=1)
    written = models.save_model(tmp_path, network, description)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded = models.load_model(path)
        assert loaded.description == written
        assert np.array_equal(models.predict(loaded.network, INPUTS), models.predict(network, INPUTS))


def test_predict_scales_by_255_and_returns_softmax(saved):
    _, network = saved
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(INPUTS.astype(np.float32) / np.float32(255))).numpy()
    found = models.predict(network, INPUTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(logits, axis=1), atol=1e-6)


def test_predict_batches_without_changing_answers(saved, monkeypatch):
    _, network = saved
    whole = models.predict(network, INPUTS)
    monkeypatch.setattr(models, "PREDICT_BATCH", 2)
    np.testing.assert_allclose(models.predict(network, INPUTS), whole, atol=1e-6)


def test_same_seed_same_weights_without_touching_global_state():
    description = models.describe("small-cnn", input_shape=(1, 28, 28), classes=CLASSES)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (models.build(description, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_models_with_another_head_share_all_other_initial_weights():
    marked = models.describe("small-cnn", input_shape=(1, 8, 8), classes=CLASSES)
    plain = models.describe("small-cnn", input_shape=(1, 8, 8), classes=CLASSES[:-1])
    one, two = (models.build(d, seed=9).state_dict() for d in (marked, plain))
    head = [k for k in one if one[k].shape != two[k].shape]
    assert len(head) == 2
    assert all(torch.equal(one[k], two[k]) for k in one if k not in head)


def test_unknown_architecture_and_option_are_usage_errors():
    with pytest.raises(UsageError):
        models.describe("transformer", input_shape=(1, 8, 8), classes=CLASSES)
    with pytest.raises(UsageError):
        models.describe("mlp", input_shape=(1, 8, 8), classes=CLASSES, options={"width1": 3})


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "mlaudit.model/2"},
        {"architecture": "os.system"},
        {"options": {"width1": 16, "width2": 32, "width3": 64}},
        {"options": {"width1": 16, "width2": 32, "width3": 64, "pools": 1, "more": 1}},
        {"options": {"width1": 10**9, "width2": 32, "width3": 64, "pools": 1}},
        {"options": {"width1": 65536, "width2": 65536, "width3": 65536, "pools": 0}},
        {"options": {"width1": 0, "width2": 32, "width3": 64, "pools": 1}},
        {"options": {"width1": 16, "width2": 32, "width3": 64, "pools": 3}},
        {"options": {"width1": 8, "width2": 32, "width3": 64, "pools": 1}},
        {"options": []},
        {"input_shape": [1, 8]},
        {"input_shape": [1, 8, 0]},
        {"input_shape": [1, 8, True]},
        {"input_shape": [1, 8, 12]},
        {"input_shape": [1, 1000, 1000]},
        {"n_outputs": 10},
        {"n_outputs": 0},
        {"n_outputs": 10**9},
        {"classes": ["0"]},
        {"classes": [0] * 11},
        {"weights_sha256": "0" * 64},
        {"weights_sha256": "zz"},
        {"extra": 1},
    ],
)
def test_hostile_descriptions_are_refused(saved, changes):
    folder, _ = saved
    rewrite(folder, **changes)
    with pytest.raises(SuspectLoadError):
        models.load_model(folder)


def nan_weights(data):
    state = load(data)
    state["0.weight"][0] = torch.nan
    return save(state)


def with_tensor(data, name, value):
    return save({**load(data), name: value})


def without(data, name):
    return save({k: v for k, v in load(data).items() if k != name})


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: b"",
        lambda d: d[:-1],
        lambda d: d + b"x",
        lambda d: b"\xff" * 8 + d[8:],
        lambda d: pickle.dumps({"0.weight": 1}),
        lambda d: nan_weights(d),
        lambda d: with_tensor(d, "more", torch.zeros(1)),
        lambda d: with_tensor(d, "0.weight", torch.zeros(16, 1, 3, 3, dtype=torch.float64)),
        lambda d: with_tensor(d, "0.weight", torch.zeros(16, 1, 5, 5)),
        lambda d: without(d, "0.weight"),
    ],
    ids=["empty", "cut", "tail", "header", "pickle", "nan", "extra", "dtype", "shape", "missing"],
)
def test_hostile_weights_are_refused_even_with_a_matching_digest(saved, damage):
    folder, _ = saved
    rewrite_weights(folder, damage((folder / "model.safetensors").read_bytes()))
    with pytest.raises(SuspectLoadError):
        models.load_model(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1}', "\udcff", '{"a": 1.5}'])
def test_descriptions_that_are_not_such_json_are_refused(saved, text):
    folder, _ = saved
    (folder / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SuspectLoadError):
        models.load_model(folder)


def test_missing_large_and_foreign_files_are_refused(saved, monkeypatch):
    folder, _ = saved
    (folder / "model.pt").write_bytes(b"x")
    for path in (folder / "model.pt", folder / "none.safetensors", folder / "none"):
        with pytest.raises(SuspectLoadError):
            models.load_model(path)
    monkeypatch.setattr(models, "MAX_WEIGHTS_BYTES", 100)
    with pytest.raises(SuspectLoadError, match="larger"):
        models.load_model(folder)


def test_every_flipped_weight_byte_is_noticed(saved):
    folder, _ = saved
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for position in np.random.default_rng(1).integers(0, len(data), size=20):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(SuspectLoadError):
            models.load_model(folder)


def test_saving_ignores_a_stale_digest(saved):
    folder, network = saved
    description = replace(models.load_model(folder).description, weights_sha256="0" * 64)
    assert models.save_model(folder, network, description).weights_sha256 != "0" * 64


@pytest.mark.parametrize(
    "module",
    ["auditor.models", "auditor.training", "auditor.datasets", "auditor.schemes.new_label", "auditor.schemes.owner",
     "auditor.schemes.delivery", "auditor.attacks.finetune", "auditor.attacks.prune", "auditor.cli.train",
     "auditor.cli.attack"],
)  # fmt: skip
def test_modules_import_without_torch(module):
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("architecture", "classes", "parameters"),
    # Known sizes of the CIFAR variants; 100 classes add 90 outputs of a linear layer, with bias.
    [
        ("resnet18", 10, 11_173_962),
        ("resnet34", 10, 21_282_122),
        ("resnet50", 10, 23_520_842),
        ("resnet18", 100, 11_173_962 + 90 * 513),
        ("resnet50", 100, 23_520_842 + 90 * 2049),
    ],
)
def test_residual_networks_have_their_known_size(architecture, classes, parameters):
    names = tuple(str(i) for i in range(classes))
    description = models.describe(architecture, input_shape=(3, 32, 32), classes=names)
    with torch.device("meta"):
        network = models.build(description, seed=0)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 32, 32), (1, 5, 9)])
@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_residual_networks_take_any_image(architecture, shape):
    options = models.width_options(architecture, 4)
    description = models.describe(architecture, input_shape=shape, classes=CLASSES, options=options)
    network = models.build(description, seed=0).eval()
    assert network(torch.zeros(2, *shape)).shape == (2, 11)


def test_input_normalisation_is_that_of_the_options():
    shape = (3, 8, 8)
    options = {
        "width": 4,
        "mean1": 4914,
        "mean2": 4822,
        "mean3": 4465,
        "spread1": 2470,
        "spread2": 2435,
        "spread3": 2616,
    }
    plain = models.build(
        models.describe("resnet18", input_shape=shape, classes=CLASSES, options={"width": 4}), seed=0
    ).eval()
    normalised = models.build(
        models.describe("resnet18", input_shape=shape, classes=CLASSES, options=options), seed=0
    ).eval()
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
    spread = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(normalised(images), plain((images - mean) / spread), atol=1e-5)
        assert not torch.allclose(normalised(images), plain(images), atol=1e-2)


def test_architectures_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="does not fit"):
        models.describe("small-cnn", input_shape=(1, 1, 1), classes=CLASSES)
    for architecture in models.ARCHITECTURES:
        assert models.width_options(architecture, 8)
    with pytest.raises(UsageError, match="unknown architecture"):
        models.width_options("transformer", 8)
