"""What ``train`` does around the draw: the two-step commitment, public randomness, and whom the key set is for."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.evidence.seal import RandomnessSource
    from auditor.evidence.signing import SigningKey
    from auditor.schemes.base import TrainedScheme
    from auditor.schemes.owner import Committed

DRAFT_NAME = "k.draft.npz"
DRAFT_WHAT = "draft"
MAX_TOKEN_BYTES = 1 << 20


def public_randomness(
    *, beacon: str | None, judge_nonce: str | None, token: Path | None
) -> "tuple[RandomnessSource, bytes]":
    """Return source and bytes of the public randomness; at most one may be given.

    Raises:
        UsageError: several were given, or one cannot be read.
    """
    from auditor.casefile import nonce_bytes
    from auditor.evidence.seal import RandomnessSource

    if sum(given is not None for given in (beacon, judge_nonce, token)) > 1:
        raise UsageError("give one of --beacon, --judge-nonce and --randomness-file")
    if beacon is not None:
        return RandomnessSource.BEACON, nonce_bytes(beacon, option="--beacon")
    if judge_nonce is not None:
        return RandomnessSource.NONCE, nonce_bytes(judge_nonce, option="--judge-nonce")
    if token is None:
        return RandomnessSource.NONE, b""
    try:
        data = token.read_bytes()
    except OSError as error:
        raise UsageError(f"{token.name}: cannot be read ({type(error).__name__})") from error
    if not 0 < len(data) <= MAX_TOKEN_BYTES:
        raise UsageError(f"{token.name}: a time-stamp token has 1 to {MAX_TOKEN_BYTES} bytes")
    return RandomnessSource.TOKEN, data


def write_draft(folder: Path, committed: "Committed") -> None:
    """Keep seed and carriers, for their owner only, until the randomness is known."""
    import numpy as np

    from auditor.evidence.commitment import Material, pack_material
    from auditor.evidence.safe_npz import write_npz

    material = pack_material(Material(carriers=committed.carriers, commitment=committed.envelope))
    parts = {"seed": committed.seed, "material": material}
    data = write_npz({name: np.frombuffer(part, dtype=np.uint8) for name, part in parts.items()})
    descriptor = os.open(folder / DRAFT_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def read_draft(folder: Path, *, scheme: "TrainedScheme", dataset: "Dataset", key: "SigningKey") -> "Committed":
    """Return what ``--commit-only`` left in ``folder``.

    Raises:
        UsageError: there is nothing, or scheme, data, settings or key are not those that were committed to.
        EvidenceError: the files are damaged.
    """
    from auditor.canonical import canonical_bytes
    from auditor.evidence.commitment import open_commitment, unpack_material
    from auditor.evidence.safe_npz import ArrayRule, read_npz
    from auditor.evidence.seal import generator_object
    from auditor.schemes.carriers import KeySizes
    from auditor.schemes.owner import Committed, generator_of

    try:
        data = (folder / DRAFT_NAME).read_bytes()
    except OSError as error:
        raise UsageError(f"{folder}: no {DRAFT_NAME} of `train --commit-only` in it") from error
    rule = ArrayRule(descr="|u1", n_dims=1)
    arrays = read_npz(data, rules={"seed": rule, "material": rule}, what=DRAFT_WHAT)
    material = unpack_material(arrays["material"].tobytes())
    commitment = open_commitment(material.commitment)
    same = canonical_bytes(generator_object(commitment.generator)) == canonical_bytes(
        generator_object(generator_of(scheme, dataset))
    )
    if not same or commitment.spec != dataset.spec or commitment.owner_public_key != key.public.hex():
        raise UsageError("scheme, data, settings or owner's key are not those that were committed to")
    numbers = {name: value for name, value in commitment.plan.items() if isinstance(value, int)}
    sizes = KeySizes(
        n_keys=numbers["n_keys"],
        opening_keys=numbers["opening_keys"],
        n_sham_patterns=numbers["n_sham_patterns"],
        shams_per_pattern=numbers["n_shams"] // max(numbers["n_sham_patterns"], 1),
        n_controls=numbers["n_controls"],
        n_repeats=numbers["n_repeats"],
    )
    return Committed(
        seed=arrays["seed"].tobytes(), sizes=sizes, carriers=material.carriers, envelope=material.commitment
    )
