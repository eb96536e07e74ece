"""Ordinary images to compare keys with, cut into parts that never meet: known ones, and fresh ones of two kinds."""

from dataclasses import dataclass

import numpy as np

from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.evidence.keyset import KeySet
from auditor.records import Inputs, SampleKind

MIN_ORDINARY = 16
"""Fewest ordinary images with which anything is measured."""
MOST_KNOWN = 5_000
MOST_FRESH = 4_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ordinary:
    """Ordinary images in three disjoint parts, none of them a sample of the key set."""

    known: Part
    """What a suspect has: detectors are fitted on these."""
    chosen_on: Part
    """Fresh images on which thresholds are chosen."""
    tried_on: Part
    """Fresh images on which nothing is chosen."""
    source: str
    """Where they come from."""

    @property
    def fresh(self) -> Inputs:
        """All fresh images, shape (n, channels, height, width)."""
        return np.concatenate([self.chosen_on.inputs, self.tried_on.inputs])


def from_parts(*, known: Part, fresh: Part, keys: KeySet, seed: int, source: str) -> Ordinary:
    """Return ordinary images drawn from two parts of a data set, without those that equal a sealed sample.

    Raises:
        UsageError: images of another shape, or too few.
    """
    if known.inputs.shape[1:] != keys.spec.shape or fresh.inputs.shape[1:] != keys.spec.shape:
        raise UsageError(f"{source}: its images have another shape than the key set's, {keys.spec.shape}")
    generator = np.random.default_rng(seed)
    sealed = {keys.data(sample.index) for sample in keys.samples}
    kept = [
        _drawn(part, sealed, most=most, generator=generator)
        for part, most in ((known, MOST_KNOWN), (fresh, MOST_FRESH))
    ]
    return _cut(kept[0], kept[1], source=source)


def from_controls(keys: KeySet) -> Ordinary:
    """Return the sealed controls as ordinary images: every other one known, the rest fresh.

    Raises:
        UsageError: too few controls.
    """
    rows = [sample.index for sample in keys.samples if sample.kind is SampleKind.CONTROL]
    labels = np.array([keys.samples[row].natural for row in rows], dtype=np.int64)
    part = Part(inputs=keys.inputs[rows], labels=labels)
    return _cut(*part.halves(), source="sealed controls")


def _cut(known: Part, fresh: Part, *, source: str) -> Ordinary:
    chosen_on, tried_on = fresh.halves()
    if min(len(known), len(fresh)) < MIN_ORDINARY // 2:
        raise UsageError(
            f"{source}: {len(known) + len(fresh)} ordinary images are too few; at least {MIN_ORDINARY} are needed"
        )
    return Ordinary(known=known, chosen_on=chosen_on, tried_on=tried_on, source=source)


def _drawn(part: Part, sealed: set[bytes], *, most: int, generator: np.random.Generator) -> Part:
    order = generator.permutation(len(part))
    rows = [row for row in order[: most + len(sealed)] if part.inputs[row].tobytes() not in sealed]
    return part.take(np.array(rows[:most], dtype=np.intp))
