"""Divides a data set between its owner and an attacker who has never seen the owner's images."""

from dataclasses import dataclass, replace

import numpy as np

from auditor.datasets import Dataset, Part
from auditor.errors import UsageError

MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """Who has which training images; carriers and test images stay as they are."""

    owner: Dataset
    """The data set with the owner's share as its training part."""
    attacker: Part
    """The other training images."""


def split(dataset: Dataset, *, share: float = 0.5, seed: int = 0) -> Division:
    """Return a division of the training part that depends on its size, ``share`` and ``seed`` alone.

    Args:
        dataset: what is divided.
        share: the owner's share of the training images, in (0, 1); rounded to whole images.
        seed: which of the possible divisions.

    Raises:
        UsageError: a share or seed out of range, or one that leaves somebody without images.
    """
    if not 0 < share < 1 or not 0 <= seed <= MAX_SEED:
        raise UsageError(f"the owner's share lies in (0, 1), the seed of the division in [0, {MAX_SEED}]")
    n = len(dataset.train)
    n_owner = round(share * n)
    if not 0 < n_owner < n:
        raise UsageError(f"a share of {share:g} of {n} training images leaves one side without any")
    order = np.random.default_rng([seed, n]).permutation(n)
    # Sorted, so that a division changes who has an image and nothing about the order of the images.
    rows = np.sort(order[:n_owner]), np.sort(order[n_owner:])
    owner = replace(dataset, train=dataset.train.take(rows[0]))
    return Division(owner=owner, attacker=dataset.train.take(rows[1]))
