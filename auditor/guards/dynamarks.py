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
from auditor.guard_keys import GRID_SIDE, SCHEME, GuardKeys, projections
from auditor.guards.base import Floats, Guard, Guarded, check_classes
from auditor.guards.keyed_draws import QueryDraws, other_class, swap_first, unit_interval
from auditor.records import Inputs

_KEPT, _RELABELLED = np.zeros(1, dtype=bool), np.ones(1, dtype=bool)
for _flag in (_KEPT, _RELABELLED):
    _flag.setflags(write=False)


class DynaMarks(Guard):
    """The guard of one client."""

    name: ClassVar[str] = SCHEME

    def __init__(self, keys: GuardKeys, *, client_id: str) -> None:
        table = keys.table(client_id)
        self._shape = keys.shape
        self._settings = keys.settings
        self._n_classes = check_classes(len(keys.classes))
        self._draws = QueryDraws(table.strength_key, shape=keys.shape)
        n_blocks = int(np.prod([min(GRID_SIDE, side) for side in keys.shape[1:]])) * keys.shape[0]
        self._directions = projections(keys.projection_key, n_blocks=n_blocks, bits=self._settings.bits)
        self._thresholds = keys.thresholds.astype(np.float64)
        self._bit_values = 1 << np.arange(self._settings.bits, dtype=np.int64)
        self._targets = np.array(table.targets, dtype=np.int64)
        self._means = self._settings.mu * (1.0 + self._settings.depth * np.array(table.signs))
        # The same constants as Python's numbers: for a single query numpy's calls cost more than its arithmetic.
        self._targets_listed, self._means_listed = table.targets, self._means.tolist()
        self._thresholds_listed = self._thresholds.tolist()

    @property
    def n_classes(self) -> int:
        """Number of classes of the guarded model."""
        return self._n_classes

    def _answer(self, probabilities: Floats, inputs: Inputs) -> Guarded:
        if inputs.shape[1:] != self._shape:
            raise UsageError("guard: the inputs do not have the guarded model's shape")
        if len(inputs) == 1:
            return self._answer_one(probabilities, inputs)
        rows = np.arange(len(inputs))
        first = probabilities.argmax(axis=1)
        sums = self._draws.sums(inputs)
        # The judge's cells_of, with its constants made once.
        above = sums @ self._directions > self._thresholds[first]
        cells = (first << self._settings.bits) + (above * self._bit_values).sum(axis=1)
        targets, means = self._targets[cells], self._means[cells]
        words = self._draws.words(sums)
        drawn = means + self._settings.sigma * ndtri(unit_interval(words[:, 0]))
        wanted = np.minimum(np.maximum(drawn, 0.0), 2.0 * means)
        lead = probabilities.max(axis=1) - probabilities[rows, targets]
        shares = np.minimum(wanted, np.maximum(0.0, (lead - self._settings.margin) / (1.0 + lead)))
        answers = probabilities * (1.0 - shares)[:, None]
        answers[rows, targets] += shares
        if not self._settings.label_share:
            return Guarded(probabilities=answers, relabelled=np.zeros(len(rows), dtype=bool))
        relabelled = unit_interval(words[:, 1]) < self._settings.label_share
        planted = other_class(words[:, 2], first, n_classes=self._n_classes)
        swap_first(answers, np.flatnonzero(relabelled), first=first, planted=planted)
        return Guarded(probabilities=answers, relabelled=relabelled)

    def _answer_one(self, probabilities: Floats, inputs: Inputs) -> Guarded:
        """Answer a single query: the same operations in the same order, so that not a bit differs."""
        settings = self._settings
        row = probabilities[0]
        first = int(row.argmax())
        sums = self._draws.sums_of_one(inputs)
        cell = first << settings.bits
        if settings.bits:
            values = np.dot(sums, self._directions).tolist()
            for bit, (value, threshold) in enumerate(zip(values, self._thresholds_listed[first], strict=True)):
                cell += (value > threshold) << bit
        target, mean = self._targets_listed[cell], self._means_listed[cell]
        words = self._draws.words_of_one(sums)
        drawn = mean + settings.sigma * float(ndtri((words[0] + 0.5) / 2.0**32))
        wanted = min(max(drawn, 0.0), 2.0 * mean)
        lead = float(row[first]) - float(row[target])
        share = min(wanted, max(0.0, (lead - settings.margin) / (1.0 + lead)))
        answers = probabilities * (1.0 - share)
        answers[0, target] += share
        relabelled = False
        if settings.label_share:
            relabelled = (words[1] + 0.5) / 2.0**32 < settings.label_share
            if relabelled:
                other = (words[2] * (self._n_classes - 1)) >> 32
                planted = other + (other >= first)
                answers[0, [first, planted]] = answers[0, [planted, first]]
        return Guarded(probabilities=answers, relabelled=_RELABELLED if relabelled else _KEPT)
