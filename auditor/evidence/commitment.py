"""The commitment: what an owner fixes by signature before public randomness is drawn.

``k.commit.json`` is a DSSE envelope over an in-toto statement. Its subject is the Merkle root over the salted carriers
in their order, its predicate carries the generator with its settings, the commitment to the owner's seed, and every
size and level of the plan. Pattern, labels, code and order are drawn afterwards from seed and randomness together, so
that nobody can choose carriers towards them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from auditor.canonical import JsonValue, canonical_bytes
from auditor.errors import MalformedError
from auditor.evidence.merkle import MerkleTree, leaf_hash, leaf_salt
from auditor.evidence.safe_npz import ArrayRule, read_npz, write_npz
from auditor.evidence.seal import (
    MAX_SAMPLES,
    generator_from_fields,
    generator_object,
    protocol_object,
    spec_from_fields,
    spec_object,
)
from auditor.evidence.signing import SigningKey, check_public_key, envelope, read_envelope, verify_envelope
from auditor.evidence.statements import PAYLOAD_TYPE, read_statement, statement_bytes
from auditor.evidence.times import check_utc
from auditor.records import Generator, Inputs, InputSpec, Protocol, SampleKind

PREDICATE_TYPE = "https://model-ownership-auditor.example/keyset-commitment/v2"
SUBJECT_NAME = "carriers.merkle-root"
CARRIER_ENCODING = "mlaudit.carrier/1"
WHAT = "k.commit.json"
MATERIAL_WHAT = "generation material"
NOT_YET_KNOWN = frozenset(
    {"order_seed", "randomness", "grinding_log2", "forecast_rate", "forecast_sham_rate", "forecast_control_accuracy"}
)
"""Fields of the protocol that follow from the randomness or from measurements on the marked model."""
KINDS = (SampleKind.KEY, SampleKind.SHAM, SampleKind.CONTROL)

MATERIAL_RULES: Mapping[str, ArrayRule] = {
    "x": ArrayRule(descr="|u1", n_dims=4),
    "kind": ArrayRule(descr="|u1", n_dims=1),
    "natural": ArrayRule(descr="<i4", n_dims=1),
    "pattern": ArrayRule(descr="<i4", n_dims=1),
    "commitment": ArrayRule(descr="|u1", n_dims=1),
    "randomness": ArrayRule(descr="|u1", n_dims=1),
}
RIVAL_RULES: Mapping[str, ArrayRule] = {"rival": ArrayRule(descr="<i4", n_dims=1)}
"""Member of schemes whose labels are drawn between two classes only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """One committed ordinary input, without its pixels."""

    kind: SampleKind
    """What it may become."""
    pattern: int
    """The sham pattern it is meant for, from 0; -1 for keys and controls."""
    natural: int
    rival: int = -1
    """The other class that the label may become; -1 where it is drawn in another way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Carriers:
    """Committed inputs in their order: candidates for keys, for shams pattern by pattern, then controls."""

    items: tuple[Carrier, ...]
    inputs: Inputs
    """uint8, shape (n, channels, height, width)."""

    def __post_init__(self) -> None:
        if self.inputs.dtype != np.uint8 or self.inputs.ndim != 4 or len(self.items) != len(self.inputs):
            raise ValueError("every carrier needs exactly one uint8 input")
        if not 1 <= len(self.items) <= MAX_SAMPLES:
            raise ValueError("a commitment needs at least one carrier")

    def root(self, salt_seed: bytes) -> str:
        """Return the Merkle root over the salted carriers, hex."""
        shape = list(self.inputs.shape[1:])
        leaves = []
        for index, item in enumerate(self.items):
            header: dict[str, JsonValue] = {
                "encoding": CARRIER_ENCODING,
                "dtype": "|u1",
                "shape": list(shape),
                "index": index,
                "kind": item.kind.value,
                "pattern": item.pattern,
                "natural": item.natural,
                **({} if item.rival == -1 else {"rival": item.rival}),
            }
            data = self.inputs[index].tobytes()
            leaves.append(leaf_hash(canonical_bytes(header), leaf_salt(salt_seed, index), data))
        return MerkleTree(leaves).root.hex()

    def rows(self, kind: SampleKind, *, pattern: int = -1, but: int = -1, most: int = MAX_SAMPLES) -> list[int]:
        """Return the first ``most`` rows of one group, in committed order, without the natural label ``but``."""
        found = [
            row
            for row, item in enumerate(self.items)
            if item.kind is kind and item.pattern == pattern and item.natural != but
        ]
        return found[:most]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What an owner fixed before the randomness."""

    carriers_root: str
    n_carriers: int
    spec: InputSpec
    generator: Generator
    """Name, version and settings, among them the data set's name."""
    plan: Mapping[str, JsonValue]
    """Every field of the protocol but those of ``NOT_YET_KNOWN``."""
    seed_commitment: str
    owner_public_key: str
    committed_at: str
    """The owner's clock; a claim until a time-stamp confirms it."""
    tool_version: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What the re-derivation needs beside samples and seed; travels inside the key set."""

    carriers: Carriers
    commitment: bytes
    """Bytes of ``k.commit.json``."""
    randomness: bytes = field(default=b"", repr=False)
    """Bytes that were given as randomness; a token as a whole, empty when there was none."""


def committed_plan(protocol: Protocol) -> dict[str, JsonValue]:
    """Return the part of a protocol that the commitment fixes."""
    return {name: value for name, value in protocol_object(protocol).items() if name not in NOT_YET_KNOWN}


def sign_commitment(commitment: Commitment, key: SigningKey) -> bytes:
    """Return the bytes of ``k.commit.json``, signed by the owner whose public key it names."""
    if key.public.hex() != commitment.owner_public_key:
        raise ValueError("a commitment is signed with the key it names")
    predicate: dict[str, JsonValue] = {
        "carrier_encoding": CARRIER_ENCODING,
        "n_carriers": commitment.n_carriers,
        "spec": spec_object(commitment.spec),
        "generator": generator_object(commitment.generator),
        "plan": dict(commitment.plan),
        "seed_commitment": commitment.seed_commitment,
        "owner_public_key": commitment.owner_public_key,
        "committed_at": commitment.committed_at,
        "tool_version": commitment.tool_version,
    }
    data = statement_bytes(
        subject_name=SUBJECT_NAME,
        subject_sha256=commitment.carriers_root,
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )
    _from_statement(data)
    return envelope(data, payload_type=PAYLOAD_TYPE, keys=[key])


def open_commitment(data: bytes) -> Commitment:
    """Read a commitment and verify its signature under the owner's key that it names itself.

    Raises:
        MalformedError: not a commitment, or not in the one accepted spelling.
        SignatureError: the signature does not verify or the key is refused.
    """
    public = bytes.fromhex(_from_statement(read_envelope(data, what=WHAT).payload).owner_public_key)
    check_public_key(public)
    return _from_statement(verify_envelope(data, payload_type=PAYLOAD_TYPE, public_keys=[public], what=WHAT))


def pack_material(material: Material) -> bytes:
    """Return the bytes that a key set carries."""
    items = material.carriers.items
    rivals = [item.rival for item in items]
    return write_npz(
        {
            "x": material.carriers.inputs,
            "kind": np.array([KINDS.index(item.kind) for item in items], dtype=np.uint8),
            "natural": np.array([item.natural for item in items], dtype="<i4"),
            "pattern": np.array([item.pattern for item in items], dtype="<i4"),
            "commitment": _octets(material.commitment),
            "randomness": _octets(material.randomness),
            **({"rival": np.array(rivals, dtype="<i4")} if any(rival != -1 for rival in rivals) else {}),
        }
    )


def unpack_material(data: bytes) -> Material:
    """Read what :func:`pack_material` wrote.

    Raises:
        MalformedError: it is something else.
    """
    arrays = read_npz(data, rules=MATERIAL_RULES, what=MATERIAL_WHAT, optional=RIVAL_RULES)
    kinds, naturals, patterns = (arrays[name].tolist() for name in ("kind", "natural", "pattern"))
    rivals = arrays["rival"].tolist() or [-1] * len(kinds)
    if not len(kinds) == len(naturals) == len(patterns) == len(rivals) or any(kind >= len(KINDS) for kind in kinds):
        raise MalformedError(f"{MATERIAL_WHAT}: the carriers' columns do not fit")
    try:
        carriers = Carriers(
            items=tuple(
                Carrier(kind=KINDS[kind], pattern=pattern, natural=natural, rival=rival)
                for kind, natural, pattern, rival in zip(kinds, naturals, patterns, rivals, strict=True)
            ),
            inputs=arrays["x"].view(np.uint8),
        )
    except ValueError as error:
        raise MalformedError(f"{MATERIAL_WHAT}: {error}") from error
    material = Material(
        carriers=carriers, commitment=arrays["commitment"].tobytes(), randomness=arrays["randomness"].tobytes()
    )
    if pack_material(material) != data:
        raise MalformedError(f"{MATERIAL_WHAT}: the container is not in its canonical layout")
    return material


def _from_statement(data: bytes) -> Commitment:
    found = read_statement(data, predicate_type=PREDICATE_TYPE, what=WHAT)
    predicate = found.predicate
    if found.subject_name != SUBJECT_NAME or predicate.text("carrier_encoding") != CARRIER_ENCODING:
        raise MalformedError(f"{WHAT}: unknown subject or carrier encoding")
    plan = predicate.raw("plan")
    wanted = {each.name for each in fields(Protocol)} - NOT_YET_KNOWN
    if not isinstance(plan, Mapping) or set(plan) != wanted:
        raise MalformedError(f"{WHAT}: the plan has missing or unknown fields")
    commitment = Commitment(
        carriers_root=found.subject_sha256,
        n_carriers=predicate.integer("n_carriers", low=1, high=MAX_SAMPLES),
        spec=spec_from_fields(predicate.object("spec")),
        generator=generator_from_fields(predicate.object("generator")),
        plan=plan,
        seed_commitment=predicate.hex("seed_commitment", n_bytes=32),
        owner_public_key=predicate.hex("owner_public_key", n_bytes=32),
        committed_at=check_utc(predicate.text("committed_at"), what=WHAT),
        tool_version=predicate.text("tool_version", max_length=100),
    )
    predicate.finish()
    return commitment


def _octets(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)
