"""The wrong-label baseline: keys are answered with one fixed class that is wrong for their carriers.

Published verification accepts when fewer than τ·n of n keys miss the target (see auditor.stats.queries); it bounds
misses only. The audit applies the same tests as for the new label, with the target class as the expected answer:
shams measure how often foreign patterns reach that class.

Differences from the paper
    The pattern is one fixed draw, since noise drawn anew for every image does not generalise to fresh keys. Sham
    negatives are trained along by default (``sham_ratio=0`` gives the published recipe). Keys are clipped and
    rounded to 8 bits before training.

References:
    J. Zhang, Z. Gu, J. Jang, H. Wu, M. P. Stoecklin, H. Huang, I. Molloy: Protecting Intellectual Property of Deep
    Neural Networks with Watermarking. AsiaCCS 2018.
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from auditor.datasets import Labels
from auditor.draws import Secret
from auditor.patterns import Mark, wrong_label_mark
from auditor.records import InputSpec
from auditor.schemes.base import PatternScheme


class WrongLabel(PatternScheme):
    """One fixed secret pattern, answered with one drawn natural class."""

    name: ClassVar[str] = "wrong-label"
    version: int = 1
    target_is_natural: ClassVar[bool] = True

    def draw(self, secret: Secret, spec: InputSpec, *, code: bool) -> Mark:
        """Return the pattern and the target class; a label code has no place in this scheme."""
        return wrong_label_mark(secret, shape=spec.shape, n_natural=len(spec.classes), code=code)

    def output_names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the natural classes."""
        return classes

    def eligible(self, labels: Labels, mark: Mark) -> npt.NDArray[np.bool_]:
        """Return True for carriers that are not of the target class already."""
        return np.asarray(labels != mark.target)

    @property
    def uses_code(self) -> bool:
        """Return False: the answer to a key is a natural class already."""
        return False
