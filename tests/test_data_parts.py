import numpy as np
import pytest

from auditor import datasets
from auditor.data_parts import split
from auditor.errors import UsageError


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def rows(part):
    return [image.tobytes() + bytes([label]) for image, label in zip(part.inputs, part.labels, strict=True)]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.999])
def test_everybody_gets_other_images_and_nobody_loses_one(digits, share):
    division = split(digits, share=share, seed=3)
    owner, attacker = rows(division.owner.train), rows(division.attacker)
    assert len(owner) == round(share * 1000)
    assert sorted(owner + attacker) == sorted(rows(digits.train))
    assert division.owner.carriers is digits.carriers
    assert division.owner.test is digits.test


def test_the_division_depends_on_share_and_seed_alone(digits):
    one, two, other = (split(digits, share=0.5, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.attacker.inputs, two.attacker.inputs)
    assert not np.array_equal(one.attacker.inputs, other.attacker.inputs)
    shared = set(rows(one.attacker)) & set(rows(other.attacker))
    assert 200 < len(shared) < 300


def test_images_keep_their_order(digits):
    position = {row: i for i, row in reversed(list(enumerate(rows(digits.train))))}
    order = [position[row] for row in rows(split(digits).owner.train)]
    assert order == sorted(order)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), 0.0001])
def test_impossible_shares_are_refused(digits, share):
    with pytest.raises(UsageError):
        split(digits, share=share)


def test_an_impossible_seed_is_refused(digits):
    with pytest.raises(UsageError):
        split(digits, seed=-1)
