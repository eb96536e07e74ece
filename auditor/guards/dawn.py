"""DAWN: a keyed share of queries is answered with a wrong class, always the same one for the same query.

The changed queries are the trigger set: their owner logs them and later asks a suspect for them. Labels suffice.

Differences from the paper
    The decision is taken on coarse block means instead of a learned latent layer, so that near copies of a query share
    it; the planted class trades places with the first one, so that the shape of the answer stays plausible.

References:
    S. Szyller, B. G. Atli, S. Marchal, N. Asokan: DAWN: Dynamic Adversarial Watermarking of Neural Networks. ACM MM
    2021.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.guards.base import Floats, Guard, Guarded, check_classes
from auditor.guards.keyed_draws import QueryDraws, other_class, swap_first, unit_interval
from auditor.records import Inputs
from auditor.stats.exact import binomial_tail_log10

DEFAULT_SHARE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTest:
    """How often a suspect answers with the planted classes."""

    hits: int
    trials: int
    log10_p: float
    """Exact: every planted class is an independent uniform draw, whatever the suspect answers."""


class Dawn(Guard):
    """Changes the first class of a keyed share of the queries."""

    name: ClassVar[str] = "dawn"

    def __init__(
        self, *, client_key: bytes, n_classes: int, shape: tuple[int, int, int], share: float = DEFAULT_SHARE
    ) -> None:
        if not 0 < share <= 0.05:
            raise UsageError("guard: the share of changed labels must lie in (0, 0.05]")
        self._n_classes = check_classes(n_classes)
        self._shape = shape
        self._share = share
        self._draws = QueryDraws(Secret(client_key).derive("dawn queries"), shape=shape)

    @property
    def n_classes(self) -> int:
        """Number of classes of the guarded model."""
        return self._n_classes

    def planted(
        self, inputs: Inputs, first: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return which queries are changed, and the class that each would be answered with; both of shape (n,)."""
        if inputs.shape[1:] != self._shape:
            raise UsageError("guard: the inputs do not have the guarded model's shape")
        words = self._draws.words(self._draws.sums(inputs))
        return unit_interval(words[:, 0]) < self._share, other_class(words[:, 1], first, n_classes=self._n_classes)

    def _answer(self, probabilities: Floats, inputs: Inputs) -> Guarded:
        first = np.argmax(probabilities, axis=1).astype(np.int64)
        chosen, planted = self.planted(inputs, first)
        answers = probabilities.copy()
        swap_first(answers, np.flatnonzero(chosen), first=first, planted=planted)
        return Guarded(probabilities=answers, relabelled=chosen)


def planted_test(*, answers: npt.NDArray[np.int64], planted: npt.NDArray[np.int64], n_classes: int) -> PlantedTest:
    """Test how often a suspect gives the planted classes against 1/(classes - 1).

    Hypothesis: planted classes are uniform over the classes other than the clean first one and independent of the
    suspect. Where the suspect gives the clean first class there can be no hit, so that the binomial tail is an upper
    bound of the p-value.

    Raises:
        UsageError: nothing was logged, or the numbers of answers differ.
    """
    if len(answers) != len(planted) or not len(planted):
        raise UsageError("guard: one answer per logged query is needed, and at least one")
    hits = int((answers == planted).sum())
    rate = 1.0 / (n_classes - 1)
    return PlantedTest(
        hits=hits, trials=len(planted), log10_p=binomial_tail_log10(hits=hits, trials=len(planted), rate=rate)
    )


def false_claim_log10(*, n_logged: int, n_classes: int, tolerated: float = 0.5) -> float:
    """Return log10 of the published bound on a false claim: a guesser over all classes misses at most ``tolerated``.

    Raises:
        UsageError: no logged query, or a tolerated share outside [0, 1].
    """
    if n_logged < 1 or not 0 <= tolerated <= 1:
        raise UsageError("guard: the bound needs logged queries and a tolerated share in [0, 1]")
    # Binary fractions such as 0.3 · 10 must not fall below their whole number.
    misses = int(np.floor(round(tolerated * n_logged, 9)))
    return binomial_tail_log10(hits=n_logged - misses, trials=n_logged, rate=1.0 / n_classes)
