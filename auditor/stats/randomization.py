"""Tests whose null law is the owner's own randomness: sham patterns and re-drawn label codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.draws import DrawStream

_CHUNK_OCTETS = 4096
"""The stream's own block: reading it whole yields the same bytes as reading it word by word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOutcome:
    """Where the secret pattern ranks among sham patterns."""

    at_least_as_high: int
    """Sham patterns with at least as many hits as the secret pattern."""
    patterns: int
    """Sham patterns."""
    p_value: float
    """(1 + at_least_as_high) / (patterns + 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeOutcome:
    """How well the answers follow the sealed label code compared with re-drawn codes."""

    hits: int
    """Answers equal to the code's label."""
    trials: int
    """Keys with a code, answered or not."""
    draws: int
    """Codes that were re-drawn."""
    at_least_as_high: int
    """Re-drawn codes with at least as many hits."""
    p_value: float
    """(1 + at_least_as_high) / (draws + 1)."""


def pattern_rank(*, own_hits: int, sham_hits: Sequence[int]) -> RankOutcome:
    """Return the rank p-value of the secret pattern among sham patterns drawn in the same way.

    Exact for every suspect that is independent of the secret, whatever its label space, because all patterns are
    then exchangeable. The unit is the pattern: each count must come from the same number of inputs. Ties count
    against the owner. Without sham patterns p is 1.

    Raises:
        ValueError: a negative count.
    """
    if own_hits < 0 or any(hits < 0 for hits in sham_hits):
        raise ValueError("counts of hits cannot be negative")
    at_least = sum(hits >= own_hits for hits in sham_hits)
    return RankOutcome(
        at_least_as_high=at_least, patterns=len(sham_hits), p_value=(1 + at_least) / (len(sham_hits) + 1)
    )


def derangement_test(
    *, natural: Sequence[int], answers: Sequence[int], code: Sequence[int], n_classes: int, seed: bytes, draws: int
) -> CodeOutcome:
    """Test whether the answers follow the sealed label code, by re-drawing the code.

    The code is a uniformly drawn derangement of the natural classes, so every re-draw is as likely as the sealed one
    on a suspect that is independent of it; given the answers, the p-value is exact for any such suspect.

    Args:
        natural: natural label of each key's carrier, in [0, n_classes).
        answers: the suspect's label for each key; labels outside the natural classes (for example -1 for a missing
            answer) never hit.
        code: the sealed derangement at each key's natural label.
        n_classes: number of natural classes, at least 2.
        seed: 32 bytes that make the re-draws reproducible.
        draws: number of re-draws, at least 1.

    Raises:
        ValueError: lengths differ, a label is out of range, or ``code`` is not part of a derangement.
    """
    _check_code(natural, answers, code, n_classes)
    if draws < 1:
        raise ValueError("draws must be at least 1")
    classes = np.asarray(natural, dtype=np.int64)
    labels = np.asarray(answers, dtype=np.int64)
    inside = (labels >= 0) & (labels < n_classes)
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (classes[inside], labels[inside]), 1)
    hits = int(np.sum(labels == np.asarray(code, dtype=np.int64)))
    codes = draw_derangements(seed=seed, n_classes=n_classes, draws=draws)
    redrawn = counts[np.arange(n_classes), codes].sum(axis=1)
    at_least = int(np.sum(redrawn >= hits))
    return CodeOutcome(
        hits=hits,
        trials=len(natural),
        draws=draws,
        at_least_as_high=at_least,
        p_value=(1 + at_least) / (draws + 1),
    )


def draw_derangements(*, seed: bytes, n_classes: int, draws: int) -> npt.NDArray[np.int64]:
    """Return the first ``draws`` derangements of ``DrawStream(seed)``, shape (draws, n_classes).

    Equal, row by row, to calling :meth:`DrawStream.derangement` repeatedly, but drawn many at a time.
    """
    if n_classes < 2:
        raise ValueError("no derangement of fewer than two items exists")
    stream = DrawStream(seed)
    words_each = n_classes - 1
    below = np.arange(n_classes, 1, -1, dtype=np.uint64)
    # 2**64 itself does not fit an unsigned word; values from `limit` on are the ones a draw without bias rejects.
    excess = np.asarray([(1 << 64) % int(b) for b in below], dtype=np.uint64)
    highest = np.iinfo(np.uint64).max - excess
    rest = np.empty(0, dtype=np.uint64)
    found: list[npt.NDArray[np.int64]] = []
    n_found = 0
    while n_found < draws:
        blocks = max(1, min(1 << 9, (draws - n_found) * words_each * 3 * 8 // _CHUNK_OCTETS + words_each))
        octets = b"".join(stream.octets(_CHUNK_OCTETS) for _ in range(blocks))
        words = np.concatenate([rest, np.frombuffer(octets, dtype=">u8").astype(np.uint64)])
        n_rows = len(words) // words_each
        rows, rest = words[: n_rows * words_each].reshape(n_rows, words_each), words[n_rows * words_each :]
        if np.any(rows > highest):
            # About one draw in 2**60 is rejected for uniformity and shifts all that follow: go one by one then.
            slow = DrawStream(seed)
            return np.asarray([slow.derangement(n_classes) for _ in range(draws)], dtype=np.int64)
        orders = _shuffle((rows % below).astype(np.int64), n_classes)
        fixed = (orders == np.arange(n_classes)).any(axis=1)
        found.append(orders[~fixed])
        n_found += len(found[-1])
    return np.concatenate(found)[:draws]


def _shuffle(swaps: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.int64]:
    # Fisher-Yates on all rows at once, from the last place down, as DrawStream.permutation does it.
    orders = np.tile(np.arange(n_classes, dtype=np.int64), (len(swaps), 1))
    row = np.arange(len(swaps))
    for column, i in enumerate(range(n_classes - 1, 0, -1)):
        j = swaps[:, column]
        orders[row, i], orders[row, j] = orders[row, j], orders[row, i].copy()
    return orders


def _check_code(natural: Sequence[int], answers: Sequence[int], code: Sequence[int], n_classes: int) -> None:
    if not len(natural) == len(answers) == len(code):
        raise ValueError("natural, answers and code must have the same length")
    mapping: dict[int, int] = {}
    for source, target in zip(natural, code, strict=True):
        if not (0 <= source < n_classes and 0 <= target < n_classes) or source == target:
            raise ValueError("code must map each natural class to another natural class")
        if mapping.setdefault(source, target) != target:
            raise ValueError("code must give one label to each natural class")
    if len(set(mapping.values())) != len(mapping):
        raise ValueError("code must give different labels to different natural classes")
