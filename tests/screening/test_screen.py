"""Screens of key sets whose properties are known because the test made them so."""

import json
from dataclasses import replace
from math import comb, log2

import numpy as np
import pytest
from cases import seal_keys, small_protocol
from protocols import SPEC, a_protocol
from typer.testing import CliRunner

from auditor import datasets
from auditor.analysis.capacity import capacity
from auditor.cli.app import app
from auditor.errors import UsageError
from auditor.evidence.imported import Foreign, import_keys
from auditor.records import Answer, Design, Generator, NullBasis, SampleKind
from auditor.report.screening import render_page, tables
from auditor.screening.answers import resized
from auditor.screening.detectors import Detector, roughness
from auditor.screening.ordinary import from_controls, from_parts
from auditor.screening.screen import Limits, Material, screen
from auditor.stats.drawn_labels import drawn_rate


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def material(digits, change, *, n=60, expected=None):
    """A foreign key set of carriers after ``change``; the sealed class is the next one unless stated."""
    part = digits.carriers.take(np.arange(n))
    natural = tuple(part.labels.tolist())
    sealed = tuple((each + 1) % 10 for each in natural) if expected is None else expected(natural)
    foreign = Foreign(inputs=change(part.inputs), natural=natural, expected=sealed)
    keys, protocol = import_keys(keys=foreign, shams=None, controls=None, classes=digits.classes, seed=bytes(32))
    return Material(keys=keys, protocol=protocol, seal=None)


def screened(digits, change=lambda x: x, *, leaked=20, **options):
    found = material(digits, change, expected=options.pop("expected", None))
    ordinary = from_parts(known=digits.train, fresh=digits.test, keys=found.keys, seed=1, source="digits")
    return screen(found, ordinary=ordinary, leaked=leaked, seed=1, **options)


def with_pattern(inputs, strength=60):
    pattern = np.random.default_rng(4).normal(size=inputs.shape[1:]) * strength
    return np.clip(np.rint(inputs + pattern), 0, 255).astype(np.uint8)


def areas(found):
    return {each.detector: each.area.area for each in found.detections}


def test_unchanged_carriers_cannot_be_told_from_ordinary_images(digits):
    found = screened(digits)
    for each in found.detections:
        assert each.area.exact.low <= 0.5 <= each.area.exact.high, each.detector
        assert each.budget.hits <= 6
    assert found.nearness.nearest_is_natural.hits >= 55
    assert found.largest_area < 0.65


def test_a_strong_pattern_is_found_by_every_detector(digits):
    found = screened(digits, lambda x: with_pattern(x, strength=100))
    told = areas(found)
    assert min(told.values()) > 0.75
    assert told[Detector.RECONSTRUCTION] > 0.99
    assert told[Detector.LEAKED] == 1.0
    assert found.detections[1].budget.share > 0.9
    assert found.nearness.far.hits > 50


def test_a_weak_pattern_is_found_once_keys_have_leaked(digits):
    found = areas(screened(digits, lambda x: with_pattern(x, strength=20), leaked=30))
    assert found[Detector.LEAKED] > 0.9
    assert found[Detector.LEAKED] > found[Detector.NEIGHBOURS]


def test_smoothed_carriers_are_found_on_the_low_side(digits):
    found = screened(digits, lambda x: resized(x, side=0.5), leaked=0)
    row = next(each for each in found.detections if each.detector is Detector.ROUGHNESS)
    assert row.low_side
    assert row.area.area > 0.8


def test_keys_that_fit_every_model_show(digits):
    """Ordinary images of another class under that class: triggers that any innocent model of the task hits."""
    other = digits.carriers.take(np.arange(60, 120))
    found = screened(
        digits,
        lambda x: other.inputs,
        expected=lambda natural: tuple(
            (n + 1) % 10 if n == o else int(o) for n, o in zip(natural, other.labels, strict=True)
        ),
        innocents=[(f"m{j}", [Answer(label=int(label)) for label in other.labels]) for j in range(3)],
    )
    assert found.nearness.nearest_is_sealed.hits > 45
    assert found.innocents.measured.mean_rate > 0.8
    assert found.innocents.by_most > 45
    missed = Limits(max_innocent_rate=0.1).missed(found)
    assert len(missed) == 1
    assert "innocent models" in missed[0]


def test_stability_counts_what_the_model_says(digits, tmp_path):
    opened = seal_keys(tmp_path / "k.npz", small_protocol(), side=8)
    found = Material(keys=opened.keys, protocol=opened.seal.protocol, seal=opened.seal)
    seen = []

    def ask(inputs):
        seen.append(inputs)
        return [Answer(label=len(SPEC.classes))] * len(inputs)

    result = screen(found, ordinary=from_controls(opened.keys), marked=ask, leaked=0)
    assert [row.keys.hits for row in result.stability] == [30] * len(result.stability)
    assert [row.controls.hits for row in result.stability] == [0] * len(result.stability)
    assert {row.change for row in result.stability} >= {"unchanged", "JPEG, quality 90", "resized to 50 % and back"}
    np.testing.assert_array_equal(seen[0], opened.keys.inputs[:30])
    assert result.derivable
    assert not result.broken
    assert Limits(min_stability=1.0).missed(result) == ()


def test_limits_need_what_they_limit(digits):
    found = screened(digits, leaked=0)
    assert Limits(min_bits=1.0).missed(found) == ("the draw has 0.0 bits, limit 1",)
    assert Limits(max_area=0.4).missed(found)
    with pytest.raises(UsageError, match="--innocent or --panel"):
        Limits(max_innocent_rate=0.1).missed(found)
    with pytest.raises(UsageError, match="--model"):
        Limits(min_stability=0.5).missed(found)
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        Limits(max_area=2.0)


def test_ordinary_images_are_never_sealed_samples(digits):
    found = material(digits, lambda x: x)
    ordinary = from_parts(known=digits.carriers, fresh=digits.test, keys=found.keys, seed=0, source="carriers")
    assert len(ordinary.known) <= len(digits.carriers) - 60
    sealed = {found.keys.data(i) for i in range(60)}
    assert not sealed & {image.tobytes() for image in ordinary.known.inputs}
    with pytest.raises(UsageError, match="too few"):
        from_controls(found.keys)


def test_roughness_of_known_images():
    flat, stripes = np.full((1, 1, 4, 4), 7, np.uint8), np.tile(np.array([0, 10], np.uint8), (1, 1, 4, 2))
    np.testing.assert_allclose(roughness(np.concatenate([flat, stripes])), [0.0, 50.0])


TRIGGERS = Generator(name="margin", version=1)
PATTERN = Generator(name="new-label", version=1, settings={"beta": "0.1"})


def test_capacity_of_drawn_labels_is_counted():
    protocol = a_protocol(null_basis=NullBasis.DRAWN_LABELS, n_keys=50, n_shams=0, n_sham_patterns=0)
    spec = replace(SPEC, classes=tuple("abcdefghij"))
    found = capacity(protocol, spec, TRIGGERS)
    assert found.bits == pytest.approx(50 * log2(9))
    # The largest possible mixture e-value cannot beat the likelihood of nothing but hits.
    assert -50 * np.log10(9) <= found.best_log10_p < -40
    assert found.reaches_level
    fixed = capacity(replace(protocol, design=Design.FIXED), spec, TRIGGERS)
    assert fixed.best_log10_p == pytest.approx(-50 * np.log10(9))
    assert drawn_rate(10) == pytest.approx(1 / 9)
    few = capacity(replace(protocol, n_keys=4, opening_keys=4), spec, TRIGGERS)
    assert not few.reaches_level


def test_capacity_of_coins_is_one_bit_a_key():
    protocol = a_protocol(null_basis=NullBasis.RIVAL_LABELS, n_keys=50, n_shams=0, n_sham_patterns=0)
    found = capacity(protocol, SPEC, Generator(name="margin", version=2))
    assert found.bits == 50
    assert -50 * np.log10(2) <= found.best_log10_p < -12
    fixed = capacity(replace(protocol, design=Design.FIXED), SPEC, Generator(name="margin", version=2))
    assert fixed.best_log10_p == pytest.approx(-50 * np.log10(2))


def test_capacity_charges_tries_and_stops_at_the_seed():
    protocol = a_protocol(null_basis=NullBasis.DRAWN_LABELS, n_keys=400)
    spec = replace(SPEC, classes=tuple("abcdefghij"))
    plain, charged = (capacity(replace(protocol, grinding_log2=g), spec, TRIGGERS) for g in (0, 64))
    assert plain.bits == 256.0
    assert charged.best_log10_p - plain.best_log10_p >= 0
    short = replace(protocol, n_keys=20, opening_keys=10)
    plain, charged = (capacity(replace(short, grinding_log2=g), spec, TRIGGERS) for g in (0, 8))
    assert charged.best_log10_p - plain.best_log10_p == pytest.approx(8 * np.log10(2))


def test_capacity_of_a_pattern_is_the_entropy_of_its_grid():
    tiny = Generator(name="new-label", version=1, settings={"beta": repr(0.5 / 255)})
    found = capacity(a_protocol(), replace(SPEC, shape=(1, 1, 3)), tiny)
    # A normal value of standard deviation ½ level, rounded: enumerated from the distribution function.
    from scipy.stats import norm

    shares = np.diff(norm.cdf(np.arange(-9.5, 10.5), scale=0.5))
    shares = shares[shares > 0]
    assert found.bits == pytest.approx(3 * -(shares * np.log2(shares)).sum(), rel=1e-6)
    assert capacity(a_protocol(), SPEC, Generator(name="imported", version=1)).bits == 0.0
    assert comb(4, 2) == 6


def test_the_command_screens_a_sealed_set(digits, tmp_path):
    seal_keys(tmp_path / "k.npz", small_protocol(), side=8)
    page = tmp_path / "screen.html"
    shown = CliRunner().invoke(app, ["screen", str(tmp_path / "k.npz"), "--output", str(page), "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["generation"]["verified"] is True
    assert found["missed"] == []
    assert {row["detector"] for row in found["detectability"]} == {"nearest-neighbours", "reconstruction", "roughness"}
    assert "<script" not in page.read_text()
    table = CliRunner().invoke(app, ["screen", str(tmp_path / "k.npz")])
    assert "capacity" in table.stdout


def test_the_command_says_when_a_limit_is_missed(digits, tmp_path):
    found = material(digits, with_pattern)
    rows = [sample.index for sample in found.keys.samples if sample.kind is SampleKind.KEY]
    np.savez(
        tmp_path / "raw.npz",
        x=found.keys.inputs[rows],
        natural=np.array([found.keys.samples[row].natural for row in rows]),
        expected=np.array([found.keys.samples[row].expected for row in rows]),
    )
    asked = ["screen", str(tmp_path / "raw.npz"), "--foreign", "--data", "digits", "--leaked", "0", "--max-auc", "0.7"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 8
    assert "limit missed" in done.stderr


def test_tables_and_page_disclose_no_key(digits):
    found = screened(digits, with_pattern)
    page = render_page(found, missed=("x",)).decode()
    assert "Limit missed: x." in page
    assert [table.title.split(":")[0] for table in tables(found)] == ["Key set", "Detectability"]
    text = json.dumps(found.as_json())
    assert "expected" not in text
    assert 'natural": [' not in text
