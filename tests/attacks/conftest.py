from dataclasses import replace

import pytest

from auditor import datasets, training

PLAN = training.TrainingPlan(epochs=4, batch_size=50, learning_rate=0.05, seed=1, threads=1)


@pytest.fixture(scope="session")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="session")
def victim(digits):
    """A small victim; attacks must leave it as it is."""
    part = digits.train
    return training.train_unmarked(
        architecture="small-cnn", spec=digits.spec, inputs=part.inputs, labels=part.labels, plan=replace(PLAN, epochs=5)
    )


@pytest.fixture(scope="session")
def plan():
    return PLAN
