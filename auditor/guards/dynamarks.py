"""Keyed residual steering: probability moves towards a secret class that depends on coarse features of the query.

For clean probabilities p with first class y, the query's cell (y, secret bits) names a target k; the answer is
(1-a) p + a e_k with a strength a drawn per query from a keyed function of the quantised input. The first class stays
first on every query, and the L1 change is exactly 2a (1 - p_k).

Differences from the paper
    The full text of the paper is not available here. This is our own construction on its published idea: no change to
    training, answers changed at run time by secret parameters, accuracy preserved, and a mark carried by the surrogate.
    docs/dynamarks.md lists what is ours.

References:
    A. Chakraborty, D. Xing, Y. Liu, A. Srivastava: DynaMarks: Defending Against Deep Learning Model Extraction Using
    Dynamic Watermarking. arXiv 2207.13321, 2022 (abstract).
"""

from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from auditor.errors import UsageError
from auditor.guard_keys import SCHEME, GuardKeys, blocks, cells_of, pooled, projections
from auditor.guards.base import Floats, Guard, Guarded, check_classes
from auditor.guards.keyed_draws import other_class, quantised, query_words, swap_first, unit_interval
from auditor.records import Inputs


class DynaMarks(Guard):
    """The guard of one client."""

    name: ClassVar[str] = SCHEME

    def __init__(self, keys: GuardKeys, *, client_id: str) -> None:
        table = keys.table(client_id)
        self._keys = keys
        self._settings = keys.settings
        self._n_classes = check_classes(len(keys.classes))
        self._matrix = blocks(keys.shape)
        self._pixels = self._matrix.sum(axis=0)
        self._directions = projections(keys.projection_key, n_blocks=self._matrix.shape[1], bits=self._settings.bits)
        self._targets = np.array(table.targets, dtype=np.int64)
        self._means = self._settings.mu * (1.0 + self._settings.depth * np.array(table.signs))
        self._strength_key = table.strength_key

    @property
    def n_classes(self) -> int:
        """Number of classes of the guarded model."""
        return self._n_classes

    def _answer(self, probabilities: Floats, inputs: Inputs) -> Guarded:
        if inputs.shape[1:] != self._keys.shape:
            raise UsageError("guard: the inputs do not have the guarded model's shape")
        rows = np.arange(len(inputs))
        first = np.argmax(probabilities, axis=1)
        features = pooled(inputs, self._matrix)
        cells = cells_of(features, first, directions=self._directions, thresholds=self._keys.thresholds)
        targets = self._targets[cells]
        words = query_words(self._strength_key, quantised(features, pixels=self._pixels))
        means = self._means[cells]
        wanted = np.clip(means + self._settings.sigma * ndtri(unit_interval(words[:, 0])), 0.0, 2.0 * means)
        lead = probabilities[rows, first] - probabilities[rows, targets]
        shares = np.minimum(wanted, np.maximum(0.0, (lead - self._settings.margin) / (1.0 + lead)))
        answers = probabilities * (1.0 - shares)[:, None]
        answers[rows, targets] += shares
        relabelled = unit_interval(words[:, 1]) < self._settings.label_share
        if relabelled.any():
            planted = other_class(words[:, 2], first, n_classes=self._n_classes)
            swap_first(answers, np.flatnonzero(relabelled), first=first, planted=planted)
        return Guarded(probabilities=answers, relabelled=relabelled)
