import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import web

from auditor import models, serving, wrapped
from auditor.errors import SuspectLoadError, UsageError
from auditor.suspects import open_suspect
from auditor.transforms import AnswerChange, AnswerKind, InputChange, InputKind
from auditor.wrapped import ActivationRange, Combination, Wrapping, wrap
from auditor.wrapped_network import ActivationGrid

SHAPE = (1, 8, 8)
INPUTS = np.random.default_rng(3).integers(0, 256, (60, *SHAPE), dtype=np.uint8)


def fresh(seed, architecture="small-cnn", n=5):
    description = models.describe(architecture, input_shape=SHAPE, classes=tuple("abcdefghij"[:n]))
    return models.LoadedModel(network=models.build(description, seed=seed).eval(), description=description)


@pytest.fixture
def members():
    return [fresh(1), fresh(2, "mlp"), fresh(3)]


def test_the_mean_is_the_mean_of_the_members(members):
    each = np.stack([models.predict(member.network, INPUTS) for member in members])
    together = models.predict(wrap(members, Wrapping()).network, INPUTS)
    np.testing.assert_allclose(together, each.mean(axis=0), atol=1e-6)


def test_the_majority_wins_and_the_mean_decides_ties(members):
    each = np.stack([models.predict(member.network, INPUTS) for member in members])
    got = models.labels_of(wrap(members, Wrapping(combination=Combination.MAJORITY)).network, INPUTS)
    for i in range(len(INPUTS)):
        votes = np.bincount(each[:, i].argmax(axis=1), minlength=5)
        first = [j for j in range(5) if votes[j] == votes.max()]
        assert got[i] == max(first, key=lambda j: each[:, i, j].mean())


def test_changes_apply_in_order_before_and_after(members):
    blur, bits = InputChange(kind=InputKind.BLUR, strength=1), InputChange(kind=InputKind.BITS, strength=1)
    coarse = AnswerChange(kind=AnswerKind.ROUND, value=1)
    network = wrap(members[:1], Wrapping(inputs=(blur, bits), answers=(coarse,))).network
    images = bits.apply(blur.apply((INPUTS / 255.0).astype(np.float32)))
    with torch.no_grad():
        p = torch.softmax(members[0].network(torch.from_numpy(images)), dim=1).double().numpy()
    np.testing.assert_allclose(models.predict(network, INPUTS), coarse.apply(p), atol=1e-5)


def test_a_wrapped_suspect_is_saved_loaded_opened_and_served_alike(members, tmp_path):
    wrapping = Wrapping(
        inputs=(InputChange(kind=InputKind.JPEG, strength=60), InputChange(kind=InputKind.NOISE, strength=0.1, seed=7)),
        answers=(AnswerChange(kind=AnswerKind.TOP_K, value=2),),
        combination=Combination.MAJORITY,
    )
    saved = wrapped.save(tmp_path, wrap(members, wrapping))
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(
        ["wrapped.json", *["model.json", "model.safetensors"] * 3]
    )
    loaded = wrapped.load(tmp_path)
    assert isinstance(loaded, wrapped.WrappedModel)
    assert loaded.wrapping == wrapping
    assert loaded.description == saved.description
    scores = models.predict(saved.network, INPUTS)
    assert np.array_equal(models.predict(loaded.network, INPUTS), scores)
    app = serving.create_app(
        lambda inputs: models.predict(loaded.network, inputs),
        name="x",
        classes=loaded.description.classes,
        input_shape=SHAPE,
        answers=serving.AnswerMode.SCORES,
    )
    with web.running(app) as url, open_suspect(endpoint=url) as service, open_suspect(model=tmp_path) as file:
        described = file.describe().suspect
        assert (described.uri, described.artefact_sha256) == ("wrapped.json", saved.description.weights_sha256)
        for suspect in (service, file):
            answers = suspect.query(INPUTS[:50]).reply.answers
            np.testing.assert_allclose([a.scores for a in answers], scores[:50], atol=1e-5)


def test_an_ordinary_model_is_saved_and_loaded_as_ever(members, tmp_path):
    saved = wrapped.save(tmp_path, members[0])
    assert (tmp_path / "model.safetensors").is_file()
    assert wrapped.load(tmp_path).description == saved.description
    assert wrapped.load(tmp_path / "model.safetensors").description == saved.description


def test_the_digest_fixes_every_member(members, tmp_path):
    one = wrapped.save(tmp_path / "a", wrap(members[:2], Wrapping()))
    two = wrapped.save(tmp_path / "b", wrap([members[0], fresh(9)], Wrapping()))
    three = wrapped.save(tmp_path / "c", wrap(members[:2], Wrapping(combination=Combination.MAJORITY)))
    assert len({m.description.weights_sha256 for m in (one, two, three)}) == 3
    (tmp_path / "a" / "member-1" / "model.json").write_bytes((tmp_path / "b" / "member-1" / "model.json").read_bytes())
    (tmp_path / "a" / "member-1" / "model.safetensors").write_bytes(
        (tmp_path / "b" / "member-1" / "model.safetensors").read_bytes()
    )
    with pytest.raises(SuspectLoadError, match="member-1 is another model"):
        wrapped.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "mlaudit.wrapped/2"}, "schema"),
        ({"extra": 1}, "extra"),
        ({"members": []}, "between 1 and"),
        ({"members": ["ab"]}, "another model"),
        ({"members": ["../.."] * 65}, "at most 64"),
        ({"combination": "median"}, "combination"),
        ({"inputs": [{"kind": "jpeg", "strength": "500.0", "seed": 0}]}, "jpeg"),
        ({"inputs": [{"kind": "exec", "strength": "1.0", "seed": 0}]}, "exec"),
        ({"answers": [{"kind": "round", "value": 1}]}, "value"),
        ({"activation_bits": 60}, "activation_bits"),
        ({"activations": [{"module": "no.such", "low": "-1.0", "high": "1.0"}]}, "layers"),
        ({"activations": [{"module": "0", "low": "1.0", "high": "2.0"}]}, "range"),
    ],
)
def test_a_hostile_description_is_one_line(members, tmp_path, change, message):
    wrapped.save(tmp_path, wrap(members[:1], Wrapping()))
    path = tmp_path / "wrapped.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(SuspectLoadError, match=message) as caught:
        wrapped.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_members_and_broken_json_are_refused(members, tmp_path):
    wrapped.save(tmp_path, wrap(members[:2], Wrapping()))
    (tmp_path / "member-1" / "model.safetensors").unlink()
    with pytest.raises(SuspectLoadError, match=r"model\.safetensors"):
        wrapped.load(tmp_path)
    (tmp_path / "wrapped.json").write_bytes(b"{")
    with pytest.raises(SuspectLoadError, match=r"wrapped\.json"):
        wrapped.load(tmp_path)


def test_what_cannot_be_wrapped(members):
    for wrong in ([], [members[0], fresh(4, n=6)], [wrap(members[:1], Wrapping())], members[:1] * 65):
        with pytest.raises(UsageError):
            wrap(wrong, Wrapping())
    with pytest.raises(UsageError):
        wrap(members, Wrapping(activations={"0": ActivationRange(low=-1, high=1)}))


@pytest.mark.parametrize(("low", "high", "bits"), [(-1.3, 2.7, 8), (0.0, 5.0, 4), (-3.0, 0.0, 8), (-0.2, 7.0, 2)])
def test_activations_are_rounded_like_torchs_fake_quantisation(low, high, bits):
    values = torch.linspace(low - 1, high + 1, 999)
    scale = (high - low) / (2**bits - 1)
    wanted = torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, 2**bits - 1)
    got = ActivationGrid(low=low, high=high, bits=bits)(torch.nn.Identity(), (), values)
    # At the middle between two levels the last bit of x/scale decides.
    assert float((got - wanted).abs().max()) <= scale * 1.001
    assert float((got != wanted).float().mean()) < 0.01 or torch.allclose(got, wanted, atol=1e-5)
    assert got.unique().numel() <= 2**bits


def test_a_stale_digest_is_not_kept(members):
    member = replace(members[0], description=replace(members[0].description, weights_sha256="0" * 64))
    assert wrap([member], Wrapping()).description.weights_sha256 == ""


def test_members_are_limited_together(members, tmp_path, monkeypatch):
    wrapped.save(tmp_path, wrap(members[:2], Wrapping()))
    size = (tmp_path / "member-0" / "model.safetensors").stat().st_size
    monkeypatch.setattr(wrapped, "MAX_WEIGHTS_BYTES", size + 10)
    with pytest.raises(SuspectLoadError, match="together"):
        wrapped.load(tmp_path)


def test_altered_bytes_are_refused_or_named_by_another_digest(members, tmp_path):
    wrapping = Wrapping(
        inputs=(InputChange(kind=InputKind.BLUR, strength=0.5),),
        answers=(AnswerChange(kind=AnswerKind.SMOOTH, value=0.1),),
        activations={"1": ActivationRange(low=-1.0, high=2.0)},
    )
    digest = wrapped.save(tmp_path, wrap([fresh(2, "mlp")], wrapping)).description.weights_sha256
    path, generator = tmp_path / "wrapped.json", np.random.default_rng(6)
    data = path.read_bytes()
    refused = 0
    for position in range(len(data)):
        changed = bytes([data[position] ^ (1 << generator.integers(8))])
        path.write_bytes(data[:position] + changed + data[position + 1 :])
        try:
            assert wrapped.load(tmp_path).description.weights_sha256 != digest
        except SuspectLoadError:
            refused += 1
    assert refused > 0.9 * len(data)
