"""What a secret determines: pattern, target, label code, foreign patterns, drawn labels, and the pixels that follow.

The owner's side marks with these functions and the judge's side re-derives with the same ones, without torch. Every
draw reads one named stream of :class:`auditor.draws.Secret`; a name never changes within a scheme's version.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.draws import Secret
from auditor.records import Inputs, NullBasis

Pattern = npt.NDArray[np.float64]
"""One additive pattern of standard normal values, shape (channels, height, width)."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What the secret determines before any training."""

    pattern: Pattern
    target: int
    """Label that counts as a hit; carriers of this natural label cannot become keys or shams."""
    code: tuple[int, ...]
    """Derangement of the natural labels, or empty when no label code is in use."""
    n_natural: int

    def __repr__(self) -> str:
        return "Mark(…)"


def new_label_mark(secret: Secret, *, shape: Shape, n_natural: int, code: bool) -> Mark:
    """Return pattern, new label and, if wanted, label code of the new-label scheme, version 1."""
    return Mark(
        pattern=secret.stream("new-label pattern").normal(shape),
        target=n_natural,
        code=secret.stream("new-label code").derangement(n_natural) if code else (),
        n_natural=n_natural,
    )


def wrong_label_mark(secret: Secret, *, shape: Shape, n_natural: int, code: bool) -> Mark:
    """Return pattern and target class of the wrong-label scheme, version 1; it has no label code."""
    return Mark(
        pattern=secret.stream("wrong-label pattern").normal(shape),
        target=secret.stream("wrong-label target").integer(n_natural),
        code=(),
        n_natural=n_natural,
    )


def foreign_pattern(secret: Secret, *, scheme: str, shape: Shape, purpose: str) -> Pattern:
    """Return a pattern drawn like the secret one, for another purpose."""
    return secret.stream(f"{scheme} {purpose}").normal(shape)


def sealed_sham(number: int) -> str:
    """Return the purpose of a sealed sham pattern, numbered from 0."""
    return f"sealed sham {number}"


def add_pattern(carriers: Inputs, pattern: npt.NDArray[np.float64], *, beta: float) -> Inputs:
    """Return round(255 · clip(x/255 + β·s, 0, 1)) as uint8.

    Args:
        carriers: uint8, shape (n, channels, height, width).
        pattern: one pattern (channels, height, width), or one per image.
        beta: amplitude on the [0, 1] scale.
    """
    mixed = carriers / 255.0 + beta * pattern
    return np.rint(255.0 * np.clip(mixed, 0.0, 1.0)).astype(np.uint8)


def drawn_wrong_labels(secret: Secret, *, scheme: str, naturals: Sequence[int], n_classes: int) -> tuple[int, ...]:
    """Return one label per carrier, uniform over the ``n_classes`` - 1 classes that differ from its natural label."""
    stream = secret.stream(f"{scheme} drawn labels")
    return tuple((natural + 1 + stream.integer(n_classes - 1)) % n_classes for natural in naturals)


def drawn_rival_labels(
    secret: Secret, *, scheme: str, naturals: Sequence[int], rivals: Sequence[int]
) -> tuple[int, ...]:
    """Return one label per carrier: its natural one or its rival, by a fair coin each."""
    stream = secret.stream(f"{scheme} drawn labels")
    pairs = zip(naturals, rivals, strict=True)
    return tuple(rival if stream.integer(2) else natural for natural, rival in pairs)


def keyset_id(secret: Secret, *, scheme: str) -> str:
    """Return the key set's name: 16 bytes as lower-case hex."""
    return secret.derive(f"{scheme} key set id", n_bytes=16).hex()


def salt_seed(secret: Secret, *, scheme: str) -> bytes:
    """Return the 32 bytes from which the salts of all sealed samples follow."""
    return secret.derive(f"{scheme} salts")


def order_seed(secret: Secret, *, scheme: str) -> str:
    """Return the 32 bytes, as hex, that draw the order of the questions."""
    return secret.derive(f"{scheme} question order").hex()


def carrier_salt_seed(seed: bytes, *, scheme: str) -> bytes:
    """Return the 32 bytes from which the salts of the committed carriers follow; no public randomness goes in."""
    return Secret(seed).derive(f"{scheme} carrier salts")


DrawMark = Callable[..., Mark]
"""Takes the secret and, by keyword, ``shape``, ``n_natural`` and ``code``."""

GENERATORS: Mapping[tuple[str, int], DrawMark] = {
    ("new-label", 1): new_label_mark,
    ("wrong-label", 1): wrong_label_mark,
}
"""Generators, by name and version, whose key sets anybody can re-derive."""

NATURAL_TARGETS = frozenset({("wrong-label", 1)})
"""Those among them whose sealed label is a class that independent models answer too."""

TRIGGER_GENERATORS = frozenset({("margin", 1), ("plain-trigger", 1)})
"""Generators whose keys are the committed carriers themselves, each under a drawn wrong label."""

RIVAL_GENERATORS = frozenset({("margin", 2), ("plain-trigger", 2)})
"""The same, each under its natural label or a committed rival class, as a coin fell."""


def null_basis_of(name: str, version: int) -> NullBasis | None:
    """Return the null that keys of a generator support; None for a generator nobody can re-derive."""
    if (name, version) in GENERATORS:
        return NullBasis.SHAMS
    if (name, version) in RIVAL_GENERATORS:
        return NullBasis.RIVAL_LABELS
    return NullBasis.DRAWN_LABELS if (name, version) in TRIGGER_GENERATORS else None
