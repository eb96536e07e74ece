import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import contracts
import numpy as np
import pytest
import web
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from auditor.errors import SuspectAnswerError, SuspectRefusedError, UsageError
from auditor.evidence.raw_answers import read_raw_answers
from auditor.evidence.reading import reading_of
from auditor.records import Answer
from auditor.serving import AnswerMode, create_app
from auditor.suspects import base, open_suspect
from auditor.suspects.http import HttpSuspect, profile, rendering, templates
from auditor.suspects.http.dialects import ByProfile, question
from auditor.suspects.http.profile_file import parse_profile

SHAPE = (1, contracts.SIDE, contracts.SIDE)
NAMES = ", ".join(f'"{name}"' for name in contracts.CLASSES)


def some_inputs(n):
    return np.random.default_rng(n).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def ask(app, path, name, *, n=3, classes=contracts.CLASSES):
    inputs = some_inputs(n)
    with web.running(app) as url, open_suspect(endpoint=url + path, profile=name, classes=classes) as suspect:
        described = suspect.describe()
        step = suspect.batch_size
        exchanges = [suspect.query(inputs[start : start + step]) for start in range(0, n, step)]
    answers = [answer for exchange in exchanges for answer in exchange.reply.answers]
    # Whoever checks a bundle reads the same from the same bytes, with what the transcript records and nothing else.
    reading = reading_of(described.suspect.reading)
    read = [raw for exchange in exchanges for raw in read_raw_answers(exchange.reply.body, reading) or ()]
    assert [(raw.label, raw.scores) for raw in read] == [(answer.label, answer.scores) for answer in answers]
    assert [answer.label for answer in answers] == contracts.expected(inputs)
    return described, answers


def test_open_inference_protocol_with_scores_and_with_labels():
    described, answers = ask(contracts.open_inference(), "/v2/models/animals", "open-inference-v2")
    assert described.suspect.declared_name == "animals"
    assert described.suspect.profile == "open-inference-v2"
    assert sorted(answers[0].scores) == [0.1, 0.1, 0.1, 0.1, 0.6]
    _, answers = ask(contracts.open_inference(labels=True), "/v2/models/animals", "open-inference-v2")
    assert answers[0].scores is None


def test_tensorflow_serving():
    described, answers = ask(contracts.tensorflow_serving(), "/v1/models/animals", "tensorflow-serving")
    assert described.suspect.declared_name == "animals"
    assert len(answers[0].scores) == 5


def test_mlflow():
    described, answers = ask(contracts.mlflow(), "", "mlflow")
    assert described.suspect.artefact_sha256 == ""
    assert answers[0].scores is None


@pytest.mark.parametrize(
    ("app", "path", "name"),
    [
        (contracts.torchserve(), "/predictions/animals", "torchserve"),
        (contracts.huggingface(), "/models/animals", "huggingface-image"),
    ],
)
def test_image_services_that_answer_with_names(app, path, name):
    _, answers = ask(app, path, name)
    for answer in answers:
        assert answer.scores[answer.label] == 0.6
        assert len(answer.scores) == 5


def test_a_list_cut_short_keeps_what_it_shows():
    _, answers = ask(contracts.huggingface(top=3), "/models/animals", "huggingface-image")
    assert {answer.scores for answer in answers} == {None}
    assert all(len(answer.top) == 3 and max(answer.top, key=lambda e: e[1])[0] == answer.label for answer in answers)


def test_a_plain_upload():
    _, answers = ask(contracts.upload(), "/predict", "image-upload")
    assert answers[0].scores is None


@pytest.mark.parametrize("mode", AnswerMode)
def test_the_own_contract_as_a_profile_says_the_same_as_the_built_in_adapter(mode):
    def predict(inputs):
        return np.array(contracts.scores_of(inputs[:, 0, 0, 0]), dtype=np.float32)

    inputs = some_inputs(5)
    copied = parse_profile(profile.source("auditor") + b"\n# copied\n", name="mine")
    labels = ByProfile(copied)
    assert labels.question(inputs).body == question(inputs)
    app = create_app(predict, name="m", classes=contracts.CLASSES, input_shape=SHAPE, answers=mode, top_k=2)
    with web.running(app) as url, HttpSuspect(url) as own, HttpSuspect(url, profile=copied) as mine:
        first, second = own.describe(), mine.describe()
        assert (first.suspect.declared_name, first.n_labels) == (second.suspect.declared_name, second.n_labels)
        assert own.query(inputs).reply.answers == mine.query(inputs).reply.answers
    with web.running(app) as url, open_suspect(endpoint=url, profile="auditor") as built_in:
        assert built_in.describe().suspect == first.suspect.__class__(
            **{name: getattr(first.suspect, name) for name in first.suspect.__slots__} | {"uri": url}
        )


CUSTOM = f"""
schema = "auditor.profile/1"
title = "tags"

[request]
path = "/tag"
template = '{{"pictures": [{{% for picture in images %}}{{{{ picture }}}}{{% endfor %}}]}}'
headers = {{ X-API-Key = "${{AUDITOR_TEST_KEY}}" }}

[answer]
answers = "result.pictures[*].tags[*].{{label: tag, score: p}}"

[labels]
names = [{NAMES}]

[limits]
batch_size = 2
price_per_query = "0.002"
currency = "EUR"
"""
PICTURES = """template = '{"pictures": [{"content": {{ image }}}]}'"""


def custom(**changes):
    text = re.sub(r"template = .*", lambda _: PICTURES, CUSTOM).replace("batch_size = 2", "batch_size = 1")
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("AUDITOR_TEST_KEY", "k3y-0123456789")


def test_a_service_of_nobodys_standard(key, tmp_path):
    file = tmp_path / "tags.toml"
    file.write_text(custom())
    inputs = some_inputs(2)
    with web.running(contracts.base64_images()) as url, open_suspect(endpoint=url, profile=str(file)) as suspect:
        suspect_id = suspect.describe().suspect
        exchanges = [suspect.query(inputs[i : i + 1]) for i in range(2)]
    assert [exchange.reply.answers[0].label for exchange in exchanges] == contracts.expected(inputs)
    assert suspect_id.profile_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert suspect_id.profile == "tags"
    headers = dict(exchanges[0].reply.headers)
    assert headers["x-request-id"] == "7"
    assert "set-cookie" not in headers
    assert exchanges[0].reply.address == "127.0.0.1"
    for text in (repr(suspect_id), repr(exchanges)):
        assert "k3y-0123456789" not in text


def test_a_wrong_secret_is_a_refusal_that_does_not_show_it(monkeypatch):
    monkeypatch.setenv("AUDITOR_TEST_KEY", "wr0ng-secret")
    chosen = parse_profile(custom().encode(), name="tags")
    with (
        web.running(contracts.base64_images()) as url,
        HttpSuspect(url, profile=chosen) as suspect,
        pytest.raises(SuspectRefusedError) as caught,
    ):
        suspect.query(some_inputs(1))
    assert "wr0ng" not in str(caught.value)


def test_a_secret_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("AUDITOR_TEST_KEY", raising=False)
    with pytest.raises(UsageError, match="AUDITOR_TEST_KEY, which the profile's header X-API-Key needs, is not set"):
        HttpSuspect("http://h", profile=parse_profile(custom().encode(), name="tags"))


def test_an_answer_that_repeats_a_secret_is_not_kept(key):
    text = (
        profile.source("auditor")
        .decode()
        .replace("[answer]", '[request.headers]\nX-Key = "${AUDITOR_TEST_KEY}"\n[answer]')
    )
    chosen = parse_profile(text.encode(), name="echo")
    with (
        web.running(contracts.echo()) as url,
        HttpSuspect(url, profile=chosen) as suspect,
        pytest.raises(SuspectAnswerError, match="repeats a secret") as caught,
    ):
        suspect.query(some_inputs(1))
    assert "k3y" not in str(caught.value)


def problem(text):
    with pytest.raises(UsageError) as caught:
        parse_profile(text.encode() if isinstance(text, str) else text, name="mine")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


def line_of(text, words):
    return next(number for number, line in enumerate(text.splitlines(), start=1) if words in line)


@pytest.mark.parametrize(
    ("old", "new", "where", "words"),
    [
        ("currency", "coin", "coin", "limits.coin is not a known field"),
        ("price_per_query", "price_per_qury", "price_per_qury", "is not a known field"),
        ('"0.002"', "0.002", "price_per_query", "limits.price_per_query must be text"),
        ('"0.002"', '"two"', "price_per_query", "decimal number"),
        ('"0.002"', '"-1"', "price_per_query", "amount"),
        ('"0.002"', '"NaN"', "price_per_query", "amount"),
        ("batch_size = 1", "batch_size = 0", "batch_size", "whole number from 1"),
        ("batch_size = 1", "batch_size = true", "batch_size", "whole number from 1"),
        ("batch_size = 1", "requests_per_minute = nan", "requests_per_minute", "number from 0"),
        ('path = "/tag"', 'path = "tag"', "path =", "must begin with"),
        ('path = "/tag"', 'path = "//evil.test/"', "path =", "must begin with"),
        ('path = "/tag"', 'path = "/tag?key=s3cret"', "path =", "must begin with"),
        ('path = "/tag"', 'path = "/tag\\r\\nX: y"', "path =", "one line"),
        ('path = "/tag"', 'method = "DELETE"', "method", "POST or PUT"),
        ('path = "/tag"', 'body = "xml"', "body", "must be one of template, image, multipart"),
        ("${AUDITOR_TEST_KEY}", "s3cret", "X-API-Key", "environment variable"),
        ("X-API-Key", "Host", "Host", "cannot set"),
        ("X-API-Key", '"X Y"', "X Y", "not a header"),
        ("tags[*]", "tags[*", "answers =", "not a JMESPath expression"),
        ("{label: tag, score: p}", "{label: nosuch(tag)}}", "answers =", "not a JMESPath expression"),
        ("answers = ", "scores = 'a'\nanswers = ", "answers =", "not both"),
        ('"ant", "bee"', '"bee", "bee"', "names =", "twice"),
        ('names = ["ant"', 'map = {x = 1}\nnames = ["ant"', "map =", "exclude each other"),
        ('names = ["ant"', 'unknown = "guess"\nnames = ["ant"', "unknown =", "one of extra, no-label, refuse"),
        ("{{ image }}", "{{ image ", "template =", "not a Jinja2 template"),
        ("{{ image }}", "{{ secrets }}", "template =", "uses 'secrets'"),
        ("{{ image }}", "{{ image.__class__.__mro__ }}", "template =", "no request needs (Getattr in its line 1)"),
        ("{{ image }}", "{{ image }} x", "[request]", "not JSON"),
        ('title = "tags"', "title = 3", "title", "must be text"),
        ("auditor.profile/1", "auditor.profile/9", "schema", "must be 'auditor.profile/1'"),
        ("[answer]", "[answr]", "schema", "or else labels and scores"),
        ("[limits]", "[input]\nstd = [0]\n[limits]", "std", "zero"),
        ("[limits]", "[input]\nlayout = 'cwh'\n[limits]", "layout", "one of chw, hwc, flat"),
        ("[limits]", "[input]\ndivide = 0\n[limits]", "divide", "number from"),
    ],
)
def test_malformed_profiles_name_line_and_field(key, old, new, where, words):
    text = custom(it=(old, new))
    message = problem(text)
    assert words in message
    line = 1 if where == "schema" and "schema" not in new and "profile/9" not in new else line_of(text, where)
    assert message.startswith(f"profile mine, line {line}: ") or "schema" in where
    assert "s3cret" not in message


def filling(template):
    return f"""schema = "auditor.profile/1"
[request]
template = '''{template}'''
[answer]
answers = "a"
"""


@pytest.mark.parametrize(
    ("template", "node"),
    [
        ("{{ 'a' * 99999999999 }}", "Mul"),
        ("{{ 9 ** 999999999 }}", "Pow"),
        ("{{ '%9999999999d' % 1 }}", "Mod"),
        ("{{ '{:>9999999999}'.format(1) }}", "Call"),
        ("{{ 'a' | center(9999999999) }}", "Filter"),
        ("{{ image | tojson | tojson }}", "Filter"),
        ("{{ image | tojson(indent=999999999) }}", "Filter"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "Macro"),
        ("{% set x = image ~ image %}{{ x }}", "Assign"),
        ("{% for a in image %}{{ a }}{% endfor %}", "For"),
        ("{% for a in images %}{% for b in images %}{{ b }}{% endfor %}{% endfor %}", "For"),
        ("{% for a in images recursive %}{{ loop(a) }}{% endfor %}", "For"),
        ("{{ image.upper }}", "Getattr"),
        ("{{ described.__class__ }}", "Getattr"),
        ("{{ images[0][0] }}", "Getitem"),
        ("{% include 'x' %}", "Include"),
    ],
)
def test_templates_that_could_hang_or_swell_are_refused_unfilled(key, template, node):
    assert f"line 3: request.template uses what no request needs ({node} in its line 1)" in problem(filling(template))


def test_a_request_that_is_too_large_is_refused_while_it_is_filled(monkeypatch):
    monkeypatch.setattr(templates, "MAX_REQUEST_CHARACTERS", 100)
    with pytest.raises(SuspectAnswerError, match="too large"):
        templates.filled("{% for each in images %}{{ images }}{% endfor %}", {"images": ["x" * 60] * 2}, name="p")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            '{"instances": [{% for each in images %}{"b64": {{ each }}}{{ "," if not loop.last }}{% endfor %}]}',
            lambda pictures, tensor: {"instances": [{"b64": picture} for picture in pictures]},
        ),
        ('{"images": {{ images }}, "n": {{ n }}}', lambda pictures, tensor: {"images": pictures, "n": 3}),
        (
            '[{% for t in tensor %}{"id": {{ loop.index0 }}, "x": {{ t }}}{{ "," if not loop.last }}{% endfor %}]',
            lambda p, tensor: [{"id": i, "x": row} for i, row in enumerate(tensor)],
        ),
        ('{"x": {{ tensor }}, "first": {{ tensor | first }}}', lambda p, tensor: {"x": tensor, "first": tensor[0]}),
    ],
)
def test_a_template_may_take_the_inputs_together_or_one_by_one(template, expected):
    inputs = some_inputs(3)
    body, _ = rendering.render(parse_profile(filling(template).encode(), name="mine"), inputs, {})
    found = json.loads(body)
    pictures = [base64.b64encode(rendering.encode_image(each, base.Encoding())).decode() for each in inputs]
    assert [np.array(Image.open(io.BytesIO(base64.b64decode(p)))).tolist() for p in pictures] == inputs[:, 0].tolist()
    assert found == expected(pictures, inputs.tolist())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "schema is missing"),
        (b"schema = ", "not TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"x = " + b"[" * 5000, "not TOML"),
        (b'schema = "auditor.profile/1"\nrequest = 3\n[answer]\nanswers = "a"', "line 2: request must be a table"),
        (b'schema = "auditor.profile/1"\n[request]\n[answer]\nanswers = "a"', "line 2: request.template is missing"),
        (
            b'schema = "auditor.profile/1"\n[request]\nbody="image"\n[answer]\nanswers = "a"\n[limits]\nbatch_size = 2',
            "line 6: limits batch_size must be 1",
        ),
    ],
)
def test_files_that_are_no_profile(data, words):
    assert words in problem(data)


def test_profiles_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="unknown profile 'kserv'; known: auditor, open-inference-v2"):
        profile.load("kserv")
    with pytest.raises(UsageError, match=r"none\.toml: the profile cannot be read"):
        profile.load(str(tmp_path / "none.toml"))
    (tmp_path / "big.toml").write_bytes(b"#" * (profile.MAX_PROFILE_BYTES + 1))
    with pytest.raises(UsageError, match="larger than"):
        profile.load(str(tmp_path / "big.toml"))


def test_every_built_in_profile_says_where_its_contract_comes_from():
    assert sorted(contracts.PROVENANCE) == sorted(profile.names())


def test_every_built_in_profile_is_shipped_and_whole():
    folder = Path(profile.__file__).parent / "profiles"
    assert sorted(path.stem for path in folder.iterdir()) == sorted(profile.names())
    for name in profile.names():
        loaded = profile.load(name)
        assert loaded.title
        assert loaded.endpoint
        assert loaded.sha256 == hashlib.sha256((folder / f"{name}.toml").read_bytes()).hexdigest()


def answered(body, **rules):
    text = custom(it=("answers = ", "shape = 'shape'\nanswers = ")) if rules.pop("shape", False) else custom()
    text = re.sub(r"answers = .*", lambda _: f'answers = "{rules.pop("answers", "out")}"', text)
    if "labels" in rules:
        text = re.sub(r"names = .*", lambda _: rules["labels"], text)
    dialect = ByProfile(parse_profile(text.encode(), name="mine"))
    return dialect.answers(body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("item", "answer"),
    [
        ("cat", Answer(label=2)),
        ("?", Answer(label=5)),
        (4, Answer(label=4)),
        (4.0, Answer(label=4)),
        ([3], Answer(label=3)),
        ([0.5, 0.25, 0.25], Answer(label=0, scores=(0.5, 0.25, 0.25))),
        ({"label": "dog"}, Answer(label=3)),
        ({"label": "dog", "score": 0.9}, Answer(label=3, top=((3, 0.9),))),
        ({"label": 1, "scores": [0.5, 0.5]}, Answer(label=1, scores=(0.5, 0.5))),
        ({"labels": ["dog", "ant"], "scores": [0.25, 0.75]}, Answer(label=0, top=((3, 0.25), (0, 0.75)))),
        ([{"label": "bee", "score": 0.5}, {"label": "ant", "score": 0.25}], Answer(label=1, top=((1, 0.5), (0, 0.25)))),
        ({"elk": 1, "dog": 2, "cat": 3, "bee": 4, "ant": 5}, Answer(label=0, scores=(5.0, 4.0, 3.0, 2.0, 1.0))),
        ({"elk": 1, "dog": 2, "cat": 3, "bee": 4, "ant": 5, "new": 6}, Answer(label=5, scores=(5, 4, 3, 2, 1, 6))),
        ({"elk": 0.5, "new": 0.25, "other": 0.25}, Answer(label=4, top=((4, 0.5), (5, 0.25)))),
    ],
)
def test_the_forms_an_answer_may_have(item, answer):
    assert answered({"out": [item]}) == (answer,)


def test_a_map_of_numbers_moves_labels_and_scores():
    mapped = 'map = { "0" = 2, "1" = 0, "2" = 1 }'
    scores = [0.5, 0.25, 0.125]
    assert answered({"out": [scores, 0, 1]}, labels=mapped) == (
        Answer(label=2, scores=(0.25, 0.125, 0.5)),
        Answer(label=2),
        Answer(label=0),
    )
    assert answered({"out": [7]}, labels=mapped)[0].label == 3
    assert answered({"out": [7]}, labels=mapped + "\nunknown = 'no-label'")[0].label == 999_999
    with pytest.raises(SuspectAnswerError, match="gave the label '7'; the label map holds 3 names"):
        answered({"out": [7]}, labels=mapped + "\nunknown = 'refuse'")


def test_an_unknown_name_without_any_map_is_refused_in_one_safe_line():
    with pytest.raises(SuspectAnswerError, match="the label map holds no names") as caught:
        answered({"out": ["x\n\x1b[31m" + "y" * 500]}, labels="")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_flat_numbers_are_cut_by_the_shape():
    flat = {"out": [0.5, 0.25, 0.25, 0.75], "shape": [2, 2]}
    assert [answer.label for answer in answered(flat, shape=True)] == [0, 1]
    for shape in ([2, 3], [0, 4], [4.0], [True, 4], "x", None, [2**40, 2**40], []):
        with pytest.raises(SuspectAnswerError):
            answered(flat | {"shape": shape}, shape=True)


@pytest.mark.parametrize(
    "out",
    [
        None,
        3,
        {},
        "cat",
        [None],
        [True],
        [-1],
        [1.5],
        [{}],
        [{"label": None}],
        [{"label": [1]}],
        [{"scores": [0.5]}],
        [{"labels": ["ant"], "scores": [0.5, 0.5]}],
        [[0.5, "x"]],
        [[0.5, None]],
        [[0.5, True]],
        [[]],
        [[{"label": "ant", "score": None}]],
        [[{"score": 0.5}]],
        [{"ant": "high"}],
        [[0.5, 0.5], [0.2, 0.3, 0.5]],
        [{"label": 3, "scores": [0.5, 0.5]}],
    ],
)
def test_answers_that_cannot_be_read_are_one_line(out):
    with pytest.raises(SuspectAnswerError) as caught:
        answered({"out": out})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>log in</html>", "a page instead of JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "too deeply"),
        (b'{"out": [NaN]}', "not finite"),
        (b'{"out": [1], "out": [2]}', "duplicate key"),
        (b'{"out": [1e999, 0]}', "without a label|finite"),
    ],
)
def test_bodies_that_are_no_json(body, words):
    with pytest.raises(SuspectAnswerError, match=words):
        answered(body)


def test_images_come_back_as_they_were():
    encoding = base.Encoding()
    gray, color = some_inputs(1)[0], np.random.default_rng(1).integers(0, 256, (3, 5, 6), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(rendering.encode_image(gray, encoding)))), gray[0])
    back = np.asarray(Image.open(io.BytesIO(rendering.encode_image(color, encoding))))
    np.testing.assert_array_equal(back.transpose(2, 0, 1), color)
    lossy = rendering.encode_image(color, base.Encoding(image=base.ImageFormat.JPEG, jpeg_quality=90))
    assert Image.open(io.BytesIO(lossy)).format == "JPEG"
    with pytest.raises(SuspectAnswerError, match="1 or 3 channels"):
        rendering.encode_image(np.zeros((2, 4, 4), np.uint8), encoding)


def test_pixels_are_scaled_as_torchvision_does():
    inputs = np.random.default_rng(3).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    encoding = base.Encoding(divide=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    import torch

    mean, std = (torch.tensor(t).reshape(1, 3, 1, 1) for t in (encoding.mean, encoding.std))
    wanted = (torch.tensor(inputs).float() / 255 - mean) / std
    np.testing.assert_allclose(base.encode_tensor(inputs, encoding), wanted.numpy(), rtol=1e-6, atol=1e-6)
    last = base.Encoding(layout=base.Layout.CHANNELS_LAST)
    np.testing.assert_array_equal(base.encode_tensor(inputs, last)[1, 2, 3], inputs[1, :, 2, 3])
    with pytest.raises(SuspectAnswerError, match=r"input.std has 2 values for 3 channels"):
        base.encode_tensor(inputs, base.Encoding(std=(1.0, 2.0)))


@given(
    layout=st.sampled_from(base.Layout),
    channels=st.sampled_from([1, 3]),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    n=st.integers(1, 3),
    scaling=st.sampled_from(
        [{}, {"divide": 255.0}, {"divide": 255.0, "mean": (0.4,), "std": (0.2,)}, {"divide": 3e-36}]
    ),
    seed=st.integers(0, 99),
)
def test_written_numbers_are_those_of_the_tensor(layout, channels, sides, n, scaling, seed):
    inputs = np.random.default_rng(seed).integers(0, 256, (n, channels, *sides), dtype=np.uint8)
    encoding = base.Encoding(layout=layout, **scaling)
    template = '{"tensor": {{ tensor }}, "flat": {{ flat }}, "shape": {{ shape }}, "n": {{ n }}}'
    chosen = profile.load("tensorflow-serving")
    chosen = replace(chosen, encoding=encoding, question=replace(chosen.question, template=template))
    found = json.loads(rendering.render(chosen, inputs, {})[0])
    wanted = base.encode_tensor(inputs, encoding)
    assert (found["shape"], found["n"]) == (list(wanted.shape), n)
    # The written digits give the very same 32-bit numbers back.
    np.testing.assert_array_equal(np.array(found["tensor"], dtype=wanted.dtype), wanted)
    np.testing.assert_array_equal(np.array(found["flat"], dtype=wanted.dtype), wanted.reshape(-1))


def test_a_scaling_that_leaves_no_number_is_refused():
    chosen = profile.load("mlflow")
    with pytest.raises(SuspectAnswerError, match="not finite"):
        rendering.render(replace(chosen, encoding=base.Encoding(divide=1e-38)), some_inputs(1), {})


def test_a_filled_template_is_looked_at_once_for_each_length_of_batch():
    template = '{% if n == 2 %}oops{% endif %}{"inputs": {{ tensor }}}'
    chosen = profile.load("mlflow")
    dialect = ByProfile(replace(chosen, question=replace(chosen.question, template=template)))
    assert json.loads(dialect.question(some_inputs(1)).body)["inputs"]
    with pytest.raises(SuspectAnswerError, match="not JSON"):
        dialect.question(some_inputs(2))
    assert json.loads(dialect.question(some_inputs(3)).body)["inputs"]


def test_the_same_question_has_the_same_bytes():
    form = profile.load("image-upload")
    one, two = (rendering.render(form, some_inputs(1), {}) for _ in range(2))
    assert one == two


def test_requests_keep_the_stated_rate():
    now, waits = [0.0], []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    chosen = parse_profile(
        profile.source("mlflow") + b"[limits]\nrequests_per_minute = 30\nbatch_size = 2\n", name="slow"
    )
    with (
        web.running(contracts.mlflow()) as url,
        HttpSuspect(url, profile=chosen, sleep=sleep, steady_s=lambda: now[0]) as suspect,
    ):
        assert suspect.batch_size == 2
        for _ in range(3):
            suspect.query(some_inputs(2))
        now[0] += 60
        suspect.query(some_inputs(2))
    assert waits == [2.0, 2.0]
