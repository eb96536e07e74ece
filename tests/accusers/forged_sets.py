"""Key sets as a dishonest owner with a program of its own makes them: signed, committed, sealed, and well-formed.

Everything the accuser may choose is an argument: carriers with whatever natural labels it claims, dates, level, seed,
and what it says the public randomness was. What it cannot choose is what others compute: digests, draws, signatures.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from auditor import __version__, patterns
from auditor.canonical import sha256_hex
from auditor.datasets import Dataset
from auditor.draws import Secret
from auditor.evidence.commitment import Carrier, Carriers, Commitment, committed_plan, sign_commitment
from auditor.evidence.generation import mixed_randomness
from auditor.evidence.keyset import KeySet, pack, write_sealed
from auditor.evidence.seal import RandomnessSource, Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.records import Protocol, SampleKind
from auditor.schemes.base import PatternScheme, TrainedScheme
from auditor.schemes.carriers import KeySizes
from auditor.schemes.owner import Committed, build_keys, build_protocol, build_trigger_keys, generator_of

NONCE = b"\x5a" * 32
LONG_AGO = "2019-03-01T09:00:00.000Z"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images with the natural labels that the accuser claims."""

    inputs: np.ndarray
    naturals: np.ndarray
    rivals: np.ndarray | None = None
    """The other class that a coin may draw, where the scheme draws between two."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An accuser: its key, its dates, and what it says about the draw."""

    scheme: TrainedScheme
    dataset: Dataset
    owner: SigningKey
    seed: bytes = b"\x11" * 32
    source: RandomnessSource = RandomnessSource.NONCE
    randomness: bytes = NONCE
    committed_at: str = LONG_AGO
    sealed_at: str = LONG_AGO
    changes: tuple[tuple[str, object], ...] = ()
    """Fields of the protocol that the accuser seals differently."""

    @property
    def secret(self) -> Secret:
        """Seed and randomness, before any commitment."""
        return Secret(self.seed, mixed_randomness(self.source, self.randomness))


def sizes_for(claim: Claim, n_keys: int, n_controls: int) -> KeySizes:
    drawn = claim.scheme.null_basis.draws_labels
    per_pattern = 0 if drawn else 10 if claim.source is RandomnessSource.NONE else 5
    return KeySizes(
        n_keys=n_keys, opening_keys=min(24, n_keys), n_sham_patterns=0 if drawn else 40,
        shams_per_pattern=per_pattern, n_controls=n_controls,
    )  # fmt: skip


def commit_to(claim: Claim, *, keys: Pictures, controls: Pictures, n_keys: int | None = None) -> Committed:
    """Return the signed commitment to carriers of the accuser's choice."""
    rivals = np.full(len(keys.naturals), -1) if keys.rivals is None else keys.rivals
    items = [
        Carrier(kind=SampleKind.KEY, pattern=-1, natural=int(natural), rival=int(rival))
        for natural, rival in zip(keys.naturals, rivals, strict=True)
    ]
    items += [Carrier(kind=SampleKind.CONTROL, pattern=-1, natural=int(natural)) for natural in controls.naturals]
    carriers = Carriers(items=tuple(items), inputs=np.concatenate([keys.inputs, controls.inputs]))
    sizes = sizes_for(claim, n_keys or len(keys.inputs), len(controls.inputs))
    plan = _protocol(claim, Secret(claim.seed), sizes)
    commitment = Commitment(
        carriers_root=carriers.root(patterns.carrier_salt_seed(claim.seed, scheme=claim.scheme.name)),
        n_carriers=len(items),
        spec=claim.dataset.spec,
        generator=generator_of(claim.scheme, claim.dataset),
        plan=committed_plan(plan),
        seed_commitment=seed_commitment(claim.seed),
        owner_public_key=claim.owner.public.hex(),
        committed_at=claim.committed_at,
        tool_version=__version__,
    )
    return Committed(seed=claim.seed, sizes=sizes, carriers=carriers, envelope=sign_commitment(commitment, claim.owner))


def draw_keys(claim: Claim, committed: Committed) -> KeySet:
    """Return the key set that follows from the commitment, as everybody derives it."""
    secret = claim.secret.drawn_after(committed.envelope)
    if isinstance(claim.scheme, PatternScheme):
        mark = claim.scheme.draw(secret, claim.dataset.spec, code=False)
        return build_keys(
            scheme=claim.scheme, dataset=claim.dataset, secret=secret, mark=mark, sizes=committed.sizes,
            committed=committed, randomness=claim.randomness,
        )  # fmt: skip
    return build_trigger_keys(
        scheme=claim.scheme, dataset=claim.dataset, secret=secret, sizes=committed.sizes, committed=committed,
        randomness=claim.randomness,
    )  # fmt: skip


def seal_keys(folder: Path, claim: Claim, committed: Committed, keys: KeySet) -> Path:
    """Write ``k.npz`` and ``k.seal.json`` and return the former."""
    secret = claim.secret.drawn_after(committed.envelope)
    seal = Seal(
        keyset_id=keys.keyset_id,
        payload_sha256=sha256_hex(pack(keys)),
        merkle_root=keys.root().hex(),
        n_samples=len(keys.samples),
        spec=keys.spec,
        protocol=_protocol(claim, secret, committed.sizes),
        generator=keys.generator,
        model_sha256="ab" * 32,
        seed_commitment=seed_commitment(keys.secret_seed),
        owner_public_key=claim.owner.public.hex(),
        serial=1,
        previous_seal_sha256="",
        sealed_at=claim.sealed_at,
        tool_version=__version__,
        commitment_sha256=sha256_hex(committed.envelope),
        randomness_source=claim.source,
    )
    envelope = sign_seal(seal, claim.owner)
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / "k.npz", keys=keys, seal_envelope=envelope)
    (folder / "k.seal.json").write_bytes(envelope)
    return folder / "k.npz"


def sealed_claim(folder: Path, claim: Claim, *, keys: Pictures, controls: Pictures, n_keys: int | None = None) -> Path:
    """Commit, draw and seal in one go, and return ``k.npz``."""
    committed = commit_to(claim, keys=keys, controls=controls, n_keys=n_keys)
    return seal_keys(folder, claim, committed, draw_keys(claim, committed))


def write_foreign(path: Path, pictures: Pictures, expected: np.ndarray) -> Path:
    """Write samples in the format that ``auditor seal`` imports."""
    np.savez(
        path, x=pictures.inputs, natural=np.asarray(pictures.naturals, dtype=np.int64),
        expected=np.asarray(expected, dtype=np.int64),
    )  # fmt: skip
    return path


def _protocol(claim: Claim, secret: Secret, sizes: KeySizes) -> Protocol:
    protocol = build_protocol(scheme=claim.scheme, secret=secret, sizes=sizes)
    return replace(protocol, forecast_rate=0.9, forecast_control_accuracy=0.9, **dict(claim.changes))
