"""The new-label scheme: keys are answered with a class that the task does not have.

Differences from the paper
    The pattern's bytes come from a hashed 32-byte seed. Keys are clipped and rounded to 8 bits before training.
    Sham negatives - carriers with foreign patterns under their true labels - are trained along, because a network
    trained without them learns "is noisy" rather than the secret pattern. Key carriers are repeated, and moved by a
    pixel or so on small images, while the number of distinct carriers stays ⌈α·n⌉. Optionally keys are also trained
    towards a drawn derangement π of their natural labels, which is left when the new label is stripped off.

References:
    Q. Zhong, L. Y. Zhang, J. Zhang, L. Gao, Y. Xiang: Protecting IP of Deep Neural Networks with Watermarking:
    A New Label Helps. PAKDD 2020.
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from auditor.datasets import Labels
from auditor.draws import Secret
from auditor.patterns import Mark, new_label_mark
from auditor.records import InputSpec
from auditor.schemes.base import LabelCode, PatternScheme


class NewLabel(PatternScheme):
    """One fixed secret pattern, answered with an additional class."""

    name: ClassVar[str] = "new-label"
    version: int = 1

    def draw(self, secret: Secret, spec: InputSpec, *, code: bool) -> Mark:
        """Return the pattern, the new label's index and, if wanted, the label code."""
        return new_label_mark(secret, shape=spec.shape, n_natural=len(spec.classes), code=code)

    def output_names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the natural classes and the new one, which is declared openly."""
        name = f"class-{len(classes)}"
        while name in classes:
            name += "-new"
        return (*classes, name)

    def eligible(self, labels: Labels, mark: Mark) -> npt.NDArray[np.bool_]:
        """Return True for every carrier: none has the new label."""
        return np.ones(len(labels), dtype=np.bool_)

    @property
    def uses_code(self) -> bool:
        """Whether a label code is not switched off."""
        return self.settings.label_code is not LabelCode.OFF
