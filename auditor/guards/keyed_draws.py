"""Keyed draws per query: the same query gets the same draw, and nobody without the key can tell it from chance."""

import hashlib
import struct

import numpy as np
import numpy.typing as npt

from auditor.guard_keys import GRID_SIDE, Floats
from auditor.records import Inputs

Sums = npt.NDArray[np.float32] | npt.NDArray[np.float64]
WORDS = 4
"""32-bit words that every query gets."""
_DIGEST_WORDS = 8
_FOUR_WORDS = struct.Struct(">4I")
_BLOCK_OCTETS = 64
_LEVELS = 16
_EXACT_FLOAT32 = 1 << 24


class QueryDraws:
    """Draws words for every query of one shape from one key, by HMAC-SHA256 of its coarse block means."""

    def __init__(self, key: bytes, *, shape: tuple[int, int, int]) -> None:
        """Prepare for a key of at most 64 bytes and queries of the shape (channels, height, width)."""
        padded = key.ljust(_BLOCK_OCTETS, b"\0")
        # HMAC's two key blocks are hashed once; every query copies the states behind them.
        self._inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in padded))
        self._outer = hashlib.sha256(bytes(octet ^ 0x5C for octet in padded))
        channels, self._height, self._width = shape
        # Sums of whole numbers are exact in single precision, in any order, while they stay below 2**24.
        kind = np.float32 if 255 * channels * self._height * self._width < _EXACT_FLOAT32 else np.float64
        self._rows, self._columns = _side(self._height).astype(kind), _side(self._width).astype(kind)
        pixels = np.outer(self._rows.sum(axis=0), self._columns.sum(axis=0)).reshape(-1)
        self._per_level = np.tile(pixels, channels) * (256 // _LEVELS)

    def sums(self, inputs: Inputs) -> Sums:
        """Return the exact sums of pixels over blocks, shape (n, blocks), as :func:`auditor.guard_keys.pooled` does."""
        across = inputs.reshape(-1, self._width).astype(self._columns.dtype) @ self._columns
        blocks = self._rows.T @ across.reshape(-1, self._height, self._columns.shape[1])
        return np.asarray(blocks.reshape(len(inputs), -1))

    def words(self, sums: Sums) -> npt.NDArray[np.uint32]:
        """Return four 32-bit words for every row of :meth:`sums`, shape (n, 4).

        Block means are taken in 16 steps first, so that near copies of a query share their draw.
        """
        messages = self._messages(sums)
        size = messages.shape[1]
        data = messages.tobytes()
        drawn = b"".join([self._digest(data[i : i + size]) for i in range(0, len(data), size)])
        words = np.frombuffer(drawn, dtype=">u4").reshape(len(messages), _DIGEST_WORDS)
        return words[:, :WORDS].astype(np.uint32)

    def sums_of_one(self, inputs: Inputs) -> Floats:
        """Return the sums of a single query, shape (blocks,), in double precision."""
        if len(self._rows) != inputs.size // self._width:
            return np.asarray(self.sums(inputs)[0], dtype=np.float64)
        # One channel: two plain products, without the calls that keep a batch apart.
        across = np.dot(inputs.reshape(self._height, self._width).astype(self._columns.dtype), self._columns)
        return np.asarray(np.dot(self._rows.T, across).ravel(), dtype=np.float64)

    def words_of_one(self, sums: Floats) -> tuple[int, ...]:
        """Return the four words of a single query as Python's whole numbers."""
        return _FOUR_WORDS.unpack_from(self._digest(self._messages(sums).tobytes()))

    def _messages(self, sums: Sums) -> npt.NDArray[np.uint8]:
        # Half a unit keeps whole numbers clear of the steps' edges, whatever the division rounds to.
        return np.asarray(((sums + 0.5) / self._per_level).astype(np.uint8))

    def _digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def unit_interval(words: npt.NDArray[np.uint32]) -> Floats:
    """Return the centres of 2**32 equal parts of the unit interval."""
    return np.asarray((words + 0.5) / 2.0**32)


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


def _side(pixels: int) -> Floats:
    # Which block every row or column of pixels belongs to, as zeros and ones.
    parts = min(GRID_SIDE, pixels)
    member = np.zeros((pixels, parts))
    member[np.arange(pixels), np.arange(pixels) * parts // pixels] = 1.0
    return member
