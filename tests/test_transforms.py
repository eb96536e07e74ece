import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import log_softmax, softmax

from auditor.canonical import Fields
from auditor.errors import MalformedError, UsageError
from auditor.transforms import (
    AnswerChange,
    AnswerKind,
    InputChange,
    InputKind,
    at_temperature,
    largest,
    read_answer_change,
    read_input_change,
    rounded,
    through_jpeg,
    to_bytes,
)

PIXELS = np.random.default_rng(4).integers(0, 256, (3, 1, 16, 16), dtype=np.uint8)
IMAGES = (PIXELS / 255.0).astype(np.float32)
COLOUR = np.random.default_rng(5).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)


@st.composite
def answers(draw):
    logits = draw(st.lists(st.floats(-8, 8), min_size=3, max_size=12))
    return softmax(np.array([logits]), axis=1)


def pillow_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(file.getvalue())))


@pytest.mark.parametrize("quality", [10, 75, 95])
def test_jpeg_is_pillows(quality):
    grey = through_jpeg(PIXELS, quality=quality)
    assert all(np.array_equal(grey[i, 0], pillow_jpeg(PIXELS[i, 0], quality)) for i in range(3))
    colour = through_jpeg(COLOUR, quality=quality)
    wanted = [pillow_jpeg(image.transpose(1, 2, 0), quality) for image in COLOUR]
    assert np.array_equal(colour, np.stack(wanted).transpose(0, 3, 1, 2))
    change = InputChange(kind=InputKind.JPEG, strength=quality)
    assert np.array_equal(to_bytes(change.apply(IMAGES)), grey)


def test_two_channels_are_compressed_one_by_one():
    two = np.concatenate([PIXELS, PIXELS[::-1]], axis=1)
    assert np.array_equal(through_jpeg(two, quality=50)[0, 1], pillow_jpeg(PIXELS[2, 0], 50))


def test_blur_is_convolution_with_a_gaussian_kernel():
    sigma, radius = 0.7, 3  # scipy cuts at four standard deviations
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(IMAGES[0, 0].astype(float), radius, mode="symmetric")
    rows = np.apply_along_axis(np.convolve, 1, padded, kernel, mode="valid")
    wanted = np.apply_along_axis(np.convolve, 0, rows, kernel, mode="valid")
    changed = InputChange(kind=InputKind.BLUR, strength=sigma).apply(IMAGES)
    np.testing.assert_allclose(changed[0, 0], wanted, atol=1e-6)


def test_median_is_the_middle_of_each_window():
    changed = InputChange(kind=InputKind.MEDIAN, strength=3).apply(IMAGES)
    padded = np.pad(IMAGES[1, 0], 1, mode="symmetric")
    wanted = [[np.median(padded[i : i + 3, j : j + 3]) for j in range(16)] for i in range(16)]
    np.testing.assert_allclose(changed[1, 0], wanted)


def test_fewer_bits_leave_that_many_levels():
    changed = InputChange(kind=InputKind.BITS, strength=3).apply(IMAGES)
    assert set(np.rint(changed.ravel() * 7)) <= set(range(8))
    np.testing.assert_allclose(changed * 7, np.rint(changed * 7), atol=1e-6)
    assert np.abs(changed - IMAGES).max() <= 0.5 / 7 + 1e-6
    assert np.array_equal(InputChange(kind=InputKind.BITS, strength=8).apply(IMAGES), IMAGES)


def test_noise_is_a_function_of_seed_and_image():
    grey = np.full((40, 1, 16, 16), 0.5, dtype=np.float32)
    grey[:, 0, 0, 0] = np.arange(40) / 255
    change = InputChange(kind=InputKind.NOISE, strength=0.05, seed=3)
    together = change.apply(grey)
    assert np.array_equal(together[7:9], change.apply(grey[7:9]))
    assert not np.array_equal(together, InputChange(kind=InputKind.NOISE, strength=0.05, seed=4).apply(grey))
    noise = (together - grey)[:, :, 1:]
    assert noise.std() == pytest.approx(0.05, rel=0.05)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.3


@given(answers(), st.floats(0.1, 20))
@settings(max_examples=40, deadline=None)
def test_temperature_divides_logits(p, temperature):
    np.testing.assert_allclose(
        at_temperature(p, temperature=temperature), np.exp(log_softmax(np.log(p) / temperature, axis=1)), atol=1e-12
    )


def test_temperature_keeps_zeros():
    got = at_temperature(np.array([[0.25, 0.0, 0.75]]), temperature=0.5)
    assert got[0].tolist() == pytest.approx([0.1, 0.0, 0.9])


@given(answers(), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_k_largest_keep_their_ratios(p, k):
    kept = largest(p, k=k)[0]
    ranked = sorted(range(p.shape[1]), key=lambda j: (-p[0, j], j))[:k]
    wanted = [p[0, j] / sum(p[0, i] for i in ranked) if j in ranked else 0 for j in range(p.shape[1])]
    np.testing.assert_allclose(kept, wanted, atol=1e-12)


@given(answers(), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_rounding_is_pythons_and_keeps_the_label(p, decimals):
    changed = rounded(p, decimals=decimals)[0]
    plain = np.array([round(float(x), decimals) for x in p[0]])
    assert np.argmax(changed) == np.argmax(p)
    assert changed.sum() == pytest.approx(1)
    if plain.sum() > 0:
        np.testing.assert_allclose(changed, plain / plain.sum(), atol=1e-5)


def test_rounding_to_nothing_leaves_the_label():
    assert rounded(np.array([[0.3, 0.4, 0.3]]), decimals=0).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("temperature", 0.5), ("temperature", 3), ("smooth", 0.2), ("round", 1), ("top-k", 2), ("label", 0)],
)
def test_no_change_of_answers_changes_the_label(kind, value):
    p = softmax(np.random.default_rng(1).normal(size=(300, 7)), axis=1)
    changed = AnswerChange(kind=AnswerKind(kind), value=value).apply(p)
    assert np.array_equal(changed.argmax(axis=1), p.argmax(axis=1))
    np.testing.assert_allclose(changed.sum(axis=1), 1)


def test_smoothing_mixes_in_the_uniform_answer():
    p = np.array([[0.7, 0.2, 0.1, 0.0]])
    changed = AnswerChange(kind=AnswerKind.SMOOTH, value=0.2).apply(p)
    np.testing.assert_allclose(changed, [[0.61, 0.21, 0.13, 0.05]])


def test_changes_are_read_back_as_written():
    for change in (InputChange(kind=kind, strength=2, seed=5) for kind in InputKind):
        assert read_input_change(Fields(change.as_json(), what="x")) == change
    for kind in AnswerKind:
        change = AnswerChange(kind=kind, value=0 if kind is AnswerKind.LABEL else 1)
        assert read_answer_change(Fields(change.as_json(), what="x")) == change


@pytest.mark.parametrize(
    ("kind", "strength"),
    [("jpeg", 0), ("jpeg", 101), ("jpeg", 75.5), ("bits", 0), ("bits", 9), ("blur", -1), ("blur", 1e9), ("median", 0),
     ("noise", float("nan"))],
)  # fmt: skip
def test_impossible_changes_of_images_are_refused(kind, strength):
    with pytest.raises(UsageError, match=kind):
        InputChange(kind=InputKind(kind), strength=strength)


@pytest.mark.parametrize(
    ("kind", "value"), [("temperature", 0), ("smooth", 1.1), ("round", -1), ("round", 0.5), ("top-k", 0), ("label", 1)]
)
def test_impossible_changes_of_answers_are_refused(kind, value):
    with pytest.raises(UsageError, match=kind):
        AnswerChange(kind=AnswerKind(kind), value=value)


def test_unknown_kinds_and_fields_are_refused():
    with pytest.raises(UsageError, match="sepia"):
        read_input_change(Fields({"kind": "sepia", "strength": "1.0", "seed": 0}, what="x"))
    with pytest.raises(MalformedError, match="more"):
        read_answer_change(Fields({"kind": "label", "value": "0.0", "more": 1}, what="x"))
    with pytest.raises(UsageError, match="seed"):
        InputChange(kind=InputKind.NOISE, strength=0.1, seed=-1)
