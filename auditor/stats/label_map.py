"""Which of a suspect's own labels stands for which class, as far as ordinary answers can tell.

The map is fitted on ordinary labelled inputs before any key is asked, and fixed; keys must never take part, or innocent
suspects are convicted (see :func:`auditor.stats.missing.align_labels`). A label is mapped only where its answers say so
beyond doubt: among the inputs that were answered with it, one class must be the majority at a stated confidence, and no
other label may claim the same class with more answers. Whatever stays open is left out of the map.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.stats.exact import lower_bound


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedMap:
    """A map from the suspect's labels to classes of the task, with what it left out."""

    label_map: dict[str, int]
    """Class by the suspect's own label."""
    unmapped: tuple[str, ...]
    """Labels that were answered but whose class is not beyond doubt, sorted."""
    unclaimed: tuple[int, ...]
    """Classes that no label stands for, sorted."""
    agreement: float
    """Share of the ordinary answers that the map reads as the input's own class."""


def fit_label_map(
    *, truth: Sequence[int], answered: Sequence[str], n_classes: int, confidence: float = 0.99
) -> FittedMap:
    """Return the map that ordinary answers support.

    A label is mapped to the class that most of its answers come from when the exact lower bound of that share, at
    ``confidence`` for all labels together, exceeds one half. Two labels that stand for one class, as after splitting
    it, are both mapped. With k labels seen, one is mapped after more
    than ``log2(k / (1 - confidence))`` answers that all agree.

    Args:
        truth: class of each ordinary input, in [0, n_classes).
        answered: the suspect's own label for each, numbers written as text.
        n_classes: number of classes of the task.
        confidence: that no mapped label has its majority elsewhere, all labels together, in (0, 1).

    Raises:
        ValueError: no answers, different lengths, a class out of range, or a confidence outside (0, 1).
    """
    if not truth or len(truth) != len(answered):
        raise ValueError("a label map needs one answer per ordinary input, and at least one")
    if n_classes < 2 or not all(0 <= each < n_classes for each in truth):
        raise ValueError("every ordinary input must belong to one of two classes or more")
    if not 0.0 < confidence < 1.0:
        raise ValueError("confidence must lie strictly between 0 and 1")
    by_label: dict[str, Counter[int]] = {}
    for own, label in zip(truth, answered, strict=True):
        by_label.setdefault(label, Counter())[own] += 1
    # Bonferroni over the labels that were seen: each may be mapped wrongly with its share of the error only.
    error = (1.0 - confidence) / len(by_label)
    label_map: dict[str, int] = {}
    for label, counts in by_label.items():
        own, hits = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if lower_bound(hits=hits, trials=counts.total(), confidence=1.0 - error) > 0.5:
            label_map[label] = own
    right = sum(label_map.get(label) == own for own, label in zip(truth, answered, strict=True))
    return FittedMap(
        label_map=dict(sorted(label_map.items())),
        unmapped=tuple(sorted(set(by_label) - set(label_map))),
        unclaimed=tuple(sorted(set(range(n_classes)) - set(label_map.values()))),
        agreement=right / len(truth),
    )
