from dataclasses import replace

import numpy as np
import pytest

from auditor import datasets
from auditor.draws import Secret
from auditor.models import labels_of
from auditor.schemes import embedding, owner
from auditor.schemes.wrong_label import WrongLabel

SECRET = Secret(bytes(range(32)))
RECIPE = embedding.RECIPES["digits"]


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def marked(digits):
    return owner.train_owner(
        scheme=WrongLabel(RECIPE.settings),
        dataset=digits,
        secret=SECRET,
        plan=replace(RECIPE.plan, threads=1),
        sizes=owner.KeySizes(),
    )


def test_target_is_one_drawn_natural_class(digits):
    scheme = WrongLabel(RECIPE.settings)
    marks = [scheme.draw(Secret(bytes([i]) * 32), digits.spec, code=True) for i in range(60)]
    assert {m.target for m in marks} == set(range(10))
    assert all(m.code == () for m in marks)


def test_no_carrier_is_of_the_target_class(marked, digits):
    scheme = WrongLabel(RECIPE.settings)
    mark = scheme.draw(SECRET, digits.spec, code=False)
    assert mark.target not in scheme.training_keys(digits.train, mark, SECRET).labels
    keys = marked.keys.samples[:320]
    assert {s.expected for s in keys} == {mark.target}
    assert mark.target not in {s.natural for s in keys}


def test_marked_model_keeps_its_label_space_and_answers_fresh_keys(marked):
    assert marked.description.n_outputs == 10
    answers = labels_of(marked.network, marked.keys.inputs[:120])
    assert np.mean(answers == marked.keys.samples[0].expected) >= 0.8
    assert marked.record.shams.rate <= 0.02
    assert marked.record.code_when_masked is None
    assert marked.protocol.scheme == "wrong-label"
