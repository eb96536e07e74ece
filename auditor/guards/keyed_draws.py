"""Keyed draws per query: the same query gets the same draw, and nobody without the key can tell it from chance."""

import hmac

import numpy as np
import numpy.typing as npt

from auditor.guard_keys import Floats

WORDS = 4
"""32-bit words that every query gets."""
_LEVELS = 16


def quantised(features: Floats, *, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return block means in 16 steps, shape (n, blocks): near copies of a query share their draw.

    Args:
        features: sums over blocks.
        pixels: number of pixels in each block.
    """
    return np.asarray(features // (pixels * (256 // _LEVELS)), dtype=np.uint8)


def query_words(key: bytes, messages: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return the first four 32-bit words of HMAC-SHA256(key, row) for every row, shape (n, 4)."""
    size = messages.shape[1]
    data = messages.tobytes()
    drawn = b"".join([hmac.digest(key, data[i : i + size], "sha256")[:16] for i in range(0, len(data), size)])
    return np.frombuffer(drawn, dtype=">u4").astype(np.uint32).reshape(len(messages), WORDS)


def unit_interval(words: npt.NDArray[np.uint32]) -> Floats:
    """Return the centres of 2**32 equal parts of the unit interval."""
    return np.asarray((words.astype(np.float64) + 0.5) / 2.0**32)


def other_class(
    words: npt.NDArray[np.uint32], first: npt.NDArray[np.int64], *, n_classes: int
) -> npt.NDArray[np.int64]:
    """Return one keyed class per query, uniform over those other than ``first`` up to 2**-28."""
    drawn = (words.astype(np.int64) * (n_classes - 1)) >> 32
    return drawn + (drawn >= first)


def swap_first(
    answers: Floats, rows: npt.NDArray[np.intp], *, first: npt.NDArray[np.int64], planted: npt.NDArray[np.int64]
) -> None:
    """Exchange, in place and in the given rows, the scores of the first and the planted class."""
    old, new = first[rows], planted[rows]
    answers[rows, old], answers[rows, new] = answers[rows, new], answers[rows, old]
