"""Whose images an attacker has: a share of the task's data, the owner's own, or images of another task."""

from enum import StrEnum

import numpy as np

from auditor.attacks.base import AttackData, half_test
from auditor.data_parts import split
from auditor.datasets import Dataset, Part
from auditor.errors import UsageError
from auditor.records import Inputs


class Source(StrEnum):
    """Where the attacker's images come from."""

    HALF_TEST = "half-test"
    """Half of the test images; the other half judges."""
    OWNER = "owner"
    """The owner's training images: they leaked together with the model."""
    REST = "rest"
    """The part of the training images that the owner did not get; see :func:`auditor.data_parts.split`."""
    FOREIGN = "foreign"
    """Training images of another data set, brought to the task's shape; their labels mean nothing here."""


def attacker_data(
    dataset: Dataset,
    *,
    source: Source,
    owner_share: float = 0.5,
    split_seed: int = 0,
    foreign: Dataset | None = None,
) -> AttackData:
    """Return the attacker's images and those that judge.

    Args:
        dataset: the victim's task.
        source: where the images come from.
        owner_share: the owner's share of the training images, read for ``rest``.
        split_seed: which division of the training images, read for ``rest``.
        foreign: another data set, needed for ``foreign``.

    Raises:
        UsageError: a share out of range, or ``foreign`` without another data set or the other way round.
    """
    if (source is Source.FOREIGN) != (foreign is not None):
        raise UsageError(
            "foreign images need the name of another data set, and only they do "
            "(--attacker-data foreign --foreign NAME)"
        )
    match source:
        case Source.HALF_TEST:
            return half_test(dataset.test)
        case Source.OWNER:
            return AttackData(own=dataset.train, evaluation=dataset.test)
        case Source.REST:
            own = split(dataset, share=owner_share, seed=split_seed).attacker
            return AttackData(own=own, evaluation=dataset.test)
        case Source.FOREIGN if foreign is not None:
            if foreign.name == dataset.name:
                raise UsageError(f"{foreign.name} is the victim's own task, not a foreign data set")
            inputs = adapted(foreign.train.inputs, shape=dataset.spec.shape)
            own = Part(inputs=inputs, labels=np.zeros(len(inputs), dtype=np.int64))
            return AttackData(own=own, evaluation=dataset.test, labelled=False)
    raise AssertionError(source)


def adapted(inputs: Inputs, *, shape: tuple[int, int, int]) -> Inputs:
    """Return images of another task in this shape: grey values averaged or repeated, sides scaled bilinearly.

    Args:
        inputs: uint8, shape (n, channels, height, width).
        shape: wanted (channels, height, width).
    """
    import torch
    from torch.nn import functional

    channels = shape[0]
    chunks = []
    for start in range(0, len(inputs), 4096):
        images = torch.from_numpy(inputs[start : start + 4096].astype(np.float32))
        if images.shape[1] != channels:
            images = images.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
        if tuple(images.shape[2:]) != shape[1:]:
            images = functional.interpolate(
                images, size=shape[1:], mode="bilinear", align_corners=False, antialias=True
            )
        chunks.append(images.round().clamp(0, 255).numpy().astype(np.uint8))
    return np.concatenate(chunks)
