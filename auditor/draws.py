"""Deterministic draws from secrets: integers without modulo bias, normal variates, permutations, derangements.

All draws read one SHAKE-256 stream, so that every platform and every version of every numerical library gives the
same material; numpy's generators do not promise that.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NORMAL_GRID = 1024
"""Normal variates are rounded to multiples of 1/1024, which hides last-digit differences between libraries."""
_NORMAL_QUANTILE = np.frompyfunc(NormalDist().inv_cdf, 1, 1)


@dataclass(frozen=True, slots=True)
class Secret:
    """The owner's seed with the public randomness it is mixed with."""

    seed: bytes
    """32 bytes from the operating system; never logged."""
    randomness: bytes = b""
    """Public randomness drawn after the commitment; empty when there was none."""
    commitment: bytes = b""
    """SHA-256 of the commitment that the draw follows; empty where nothing was committed to."""

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise ValueError("a secret seed has 32 bytes")

    def drawn_after(self, commitment: bytes) -> "Secret":
        """Return the secret whose draws follow from the bytes of a commitment too.

        Whoever changes a committed carrier or setting then draws everything anew: carriers cannot be made to fit labels
        that are known before them, even where seed and randomness are.
        """
        return replace(self, commitment=hashlib.sha256(commitment).digest())

    def derive(self, purpose: str, *, n_bytes: int = 32) -> bytes:
        """Return HKDF-SHA256(seed ‖ randomness), salted by the commitment; different purposes are independent."""
        hkdf = HKDF(
            algorithm=SHA256(), length=n_bytes, salt=self.commitment or None, info=b"auditor/1 " + purpose.encode()
        )
        return hkdf.derive(self.seed + self.randomness)

    def stream(self, purpose: str) -> "DrawStream":
        """Return an independent stream of draws for ``purpose``."""
        return DrawStream(self.derive(purpose))

    def __repr__(self) -> str:
        return "Secret(…)"


class DrawStream:
    """An endless reproducible sequence of draws from one 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._block = 0
        self._buffer = b""

    def octets(self, n: int) -> bytes:
        """Return the next ``n`` bytes."""
        chunks = [self._buffer]
        have = len(self._buffer)
        while have < n:
            # One SHAKE call per mebibyte keeps memory flat and the cost linear.
            size = 1 << 20 if n - have > 4096 else 4096
            chunk = hashlib.shake_256(self._seed + struct.pack(">QI", self._block, size)).digest(size)
            self._block += 1
            chunks.append(chunk)
            have += size
        data = b"".join(chunks)
        self._buffer = data[n:]
        return data[:n]

    def integer(self, below: int) -> int:
        """Return a uniform integer in ``[0, below)``, by rejection."""
        if not 0 < below <= 1 << 32:
            raise ValueError("below must lie in [1, 2**32]")
        limit = (1 << 64) - (1 << 64) % below
        while True:
            value = int.from_bytes(self.octets(8), "big")
            if value < limit:
                return value % below

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return standard normal variates on the 1/1024 grid, by the inverse distribution function."""
        n = int(np.prod(shape))
        words = np.frombuffer(self.octets(4 * n), dtype=">u4").astype(np.float64)
        uniform = (words + 0.5) / 2.0**32
        normal = np.asarray(_NORMAL_QUANTILE(uniform), dtype=np.float64)
        return np.asarray(np.rint(normal * NORMAL_GRID) / NORMAL_GRID).reshape(shape)

    def permutation(self, n: int) -> tuple[int, ...]:
        """Return a uniform permutation of ``range(n)`` (Fisher-Yates)."""
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.integer(i + 1)
            order[i], order[j] = order[j], order[i]
        return tuple(order)

    def derangement(self, n: int) -> tuple[int, ...]:
        """Return a uniform permutation of ``range(n)`` without fixed points, by rejection; ``n`` ≥ 2."""
        if n < 2:
            raise ValueError("no derangement of fewer than two items exists")
        while True:
            order = self.permutation(n)
            if all(i != j for i, j in enumerate(order)):
                return order

    def choose(self, items: Sequence[int], k: int) -> tuple[int, ...]:
        """Return ``k`` distinct items in random order."""
        if k > len(items):
            raise ValueError("cannot choose more items than there are")
        return tuple(items[i] for i in self.permutation(len(items))[:k])
