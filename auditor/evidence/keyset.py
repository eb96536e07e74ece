"""The sealed key set ``k.npz``: what is in it, how it is written, and how it is opened without trusting it.

The inner file holds samples and secrets; the outer file wraps it together with the owner's seal. Both are
uncompressed ``.npz`` files whose bytes are determined by their content; see ``keysets/README.md``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_canonical_object, sha256_hex
from auditor.errors import MalformedError, SealError
from auditor.evidence.encryption import ENCODINGS, OPEN, Locks, Unlocks, decrypt, encrypt
from auditor.evidence.merkle import MerkleTree, leaf_salt
from auditor.evidence.openings import Opening, rival_fits, sample_leaf, sample_problem
from auditor.evidence.safe_npz import MAX_FILE_BYTES, AnyArray, ArrayRule, read_npz, write_npz
from auditor.evidence.seal import (
    LEAF_ENCODING,
    MAX_SAMPLES,
    Seal,
    generator_from_fields,
    generator_object,
    open_seal,
    require_equal,
    seed_commitment,
    spec_from_fields,
    spec_object,
)
from auditor.guard_keys import GUARD_SETTING
from auditor.records import Generator, Inputs, InputSpec, Protocol, Sample, SampleKind

INNER_SCHEMA = "mlaudit.keyset/1"
OUTER_SCHEMA = "mlaudit.sealed/1"
INNER_WHAT = "key set"
OUTER_WHAT = "k.npz"
SEED_BYTES = 32
MAX_SECTION_BYTES = 64 * 1024 * 1024

KINDS = (SampleKind.KEY, SampleKind.SHAM, SampleKind.CONTROL)
"""Order of the samples, and the code of each kind in the file."""

INNER_RULES: Mapping[str, ArrayRule] = {
    "x": ArrayRule(descr="|u1", n_dims=4),
    "kind": ArrayRule(descr="|u1", n_dims=1),
    "natural": ArrayRule(descr="<i4", n_dims=1),
    "expected": ArrayRule(descr="<i4", n_dims=1),
    "pattern": ArrayRule(descr="<i4", n_dims=1),
    "code": ArrayRule(descr="<i4", n_dims=1),
    "salt_seed": ArrayRule(descr="|u1", n_dims=1),
    "secret_seed": ArrayRule(descr="|u1", n_dims=1),
    "gen": ArrayRule(descr="|u1", n_dims=1),
    "generation": ArrayRule(descr="|u1", n_dims=1),
}
OPTIONAL_RULES: Mapping[str, ArrayRule] = {
    "guard": ArrayRule(descr="|u1", n_dims=1),
    "rival": ArrayRule(descr="<i4", n_dims=1),
}
"""Members of served schemes, and of schemes whose labels are drawn between two classes, only."""
OUTER_RULES: Mapping[str, ArrayRule] = {
    "header": ArrayRule(descr="|u1", n_dims=1),
    "seal": ArrayRule(descr="|u1", n_dims=1),
    "tst": ArrayRule(descr="|u1", n_dims=1),
    "payload": ArrayRule(descr="|u1", n_dims=1),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeySet:
    """Samples with their pixels, and the two secrets behind them; its text form shows neither."""

    keyset_id: str
    """16 bytes as lower-case hex."""
    spec: InputSpec
    samples: tuple[Sample, ...]
    """Keys first, then shams, then controls; ``samples[i].index == i``."""
    inputs: Inputs
    """uint8, shape (n, channels, height, width)."""
    salt_seed: bytes
    """32 bytes; the salts of all leaves follow from it."""
    generator: Generator
    secret_seed: bytes
    """The owner's 32-byte seed; leaves this object only into the payload."""
    generation: bytes = b""
    """Carriers, commitment and randomness for the re-derivation (evidence.commitment); empty when imported."""
    guard: bytes = b""
    """``guard.json`` of a served scheme (guard_keys); empty for marks that a training carries."""

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise ValueError(problem)

    def __repr__(self) -> str:
        return f"KeySet(keyset_id={self.keyset_id!r}, n_samples={len(self.samples)})"

    def leaf(self, index: int) -> bytes:
        """Return the Merkle leaf of one sample."""
        return sample_leaf(
            self.samples[index], self.spec.shape, salt=leaf_salt(self.salt_seed, index), data=self.data(index)
        )

    def data(self, index: int) -> bytes:
        """Return one sample's uint8 values, C order."""
        return bytes(self.inputs[index].tobytes())

    def tree(self) -> MerkleTree:
        """Return the Merkle tree over all samples."""
        return MerkleTree([self.leaf(index) for index in range(len(self.samples))])

    def root(self) -> bytes:
        """Return the 32-byte Merkle root."""
        return self.tree().root

    def opening(self, index: int) -> Opening:
        """Return the opening of one sample; see :meth:`openings` for several."""
        return self.openings([index])[0]

    def openings(self, indices: Iterable[int]) -> tuple[Opening, ...]:
        """Return the openings of several samples, hashing the tree once."""
        tree = self.tree()
        return tuple(
            Opening(
                sample=self.samples[index],
                salt=leaf_salt(self.salt_seed, index),
                data=self.data(index),
                path=tree.path(index),
            )
            for index in indices
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """The parts of ``k.npz``, consistent with one another but not yet checked against the seal."""

    header: Mapping[str, JsonValue]
    envelope: bytes
    """Bytes of ``k.seal.json``."""
    payload: bytes
    """The inner key-set file, as stored: encrypted where the header says so."""
    enc: str = OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedKeySet:
    """A key set that is what its seal says."""

    keys: KeySet
    seal: Seal
    envelope: bytes
    """Bytes of ``k.seal.json``."""


def pack(keys: KeySet) -> bytes:
    """Return the inner file of a key set; equal key sets give equal bytes."""
    gen: dict[str, JsonValue] = {
        "schema": INNER_SCHEMA,
        "keyset_id": keys.keyset_id,
        "spec": spec_object(keys.spec),
        "generator": generator_object(keys.generator),
    }
    rivals = [sample.rival for sample in keys.samples]
    return write_npz(
        {
            "x": keys.inputs,
            "kind": np.array([KINDS.index(sample.kind) for sample in keys.samples], dtype=np.uint8),
            "natural": _column([sample.natural for sample in keys.samples]),
            "expected": _column([sample.expected for sample in keys.samples]),
            "pattern": _column([sample.pattern for sample in keys.samples]),
            "code": _column([sample.code for sample in keys.samples]),
            "salt_seed": _octets(keys.salt_seed),
            "secret_seed": _octets(keys.secret_seed),
            "gen": _octets(canonical_bytes(gen)),
            "generation": _octets(keys.generation),
            **({"guard": _octets(keys.guard)} if keys.guard else {}),
            **({"rival": _column(rivals)} if any(rival != -1 for rival in rivals) else {}),
        }
    )


def unpack(data: bytes) -> KeySet:
    """Read an inner file with the safe loader.

    Raises:
        MalformedError: the file is not a key set.
    """
    arrays = read_npz(data, rules=INNER_RULES, what=INNER_WHAT, optional=OPTIONAL_RULES)
    fields = Fields(_section(arrays["gen"], what=f"{INNER_WHAT}: gen"), what=f"{INNER_WHAT}: gen")
    if fields.text("schema") != INNER_SCHEMA:
        raise MalformedError(f"{INNER_WHAT}: unknown schema")
    keyset_id = fields.hex("keyset_id", n_bytes=16)
    spec = spec_from_fields(fields.object("spec"))
    generator = generator_from_fields(fields.object("generator"))
    fields.finish()
    try:
        return KeySet(
            keyset_id=keyset_id,
            spec=spec,
            samples=_samples(arrays),
            inputs=arrays["x"].view(np.uint8),
            salt_seed=arrays["salt_seed"].tobytes(),
            generator=generator,
            secret_seed=arrays["secret_seed"].tobytes(),
            generation=arrays["generation"].tobytes(),
            guard=arrays["guard"].tobytes(),
        )
    except ValueError as error:
        raise MalformedError(f"{INNER_WHAT}: {error}") from error


def fit_problem(keys: KeySet, protocol: Protocol) -> str:
    """Return how the samples contradict a protocol's numbers, or an empty text."""
    counts = {kind: sum(sample.kind is kind for sample in keys.samples) for kind in KINDS}
    planned = {
        SampleKind.KEY: protocol.n_keys,
        SampleKind.SHAM: protocol.n_shams,
        SampleKind.CONTROL: protocol.n_controls,
    }
    for kind in KINDS:
        if counts[kind] != planned[kind]:
            return f"the protocol plans {planned[kind]} samples of kind {kind.value}, the key set holds {counts[kind]}"
    patterns = {sample.pattern for sample in keys.samples if sample.kind is SampleKind.SHAM}
    if patterns != set(range(protocol.n_sham_patterns)):
        return "the sham patterns are not those the protocol plans"
    if any(not rival_fits(sample, protocol) for sample in keys.samples):
        return "the classes that labels were drawn from are not those the protocol plans"
    return ""


def sealed_bytes(keys: KeySet, *, seal_envelope: bytes, locks: Locks | None = None) -> bytes:
    """Return the bytes of ``k.npz``.

    Raises:
        UsageError: a recipient is not an age recipient.
        EvidenceError: the seal does not verify or belongs to another key set.
    """
    payload = pack(keys)
    seal = open_seal(seal_envelope)
    _match(keys, payload=payload, seal=seal)
    header: dict[str, JsonValue] = {
        "schema": OUTER_SCHEMA,
        "keyset_id": keys.keyset_id,
        "n": len(keys.samples),
        "task": "classification",
        "enc": OPEN if locks is None else locks.enc,
        "inner_size": len(payload),
        "inner_sha256": sha256_hex(payload),
        "leaf_encoding": LEAF_ENCODING,
        "root": seal.merkle_root,
    }
    stored = payload if locks is None else encrypt(payload, locks)
    return _outer(canonical_bytes(header), seal_envelope, stored)


def write_sealed(path: Path, *, keys: KeySet, seal_envelope: bytes, locks: Locks | None = None) -> None:
    """Write ``k.npz`` as a new file that only its owner may read: without ``locks`` it holds the secrets openly.

    Raises:
        FileExistsError: the path is taken.
        EvidenceError: the seal does not verify or belongs to another key set.
    """
    data = sealed_bytes(keys, seal_envelope=seal_envelope, locks=locks)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(data)


def read_sealed(path: Path) -> SealedFile:
    """Read the parts of ``k.npz``; they agree with one another, the seal is not verified yet.

    Raises:
        MalformedError: the file cannot be read or is not a sealed key set.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise MalformedError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    if size > MAX_FILE_BYTES:
        raise MalformedError(f"{path.name}: larger than {MAX_FILE_BYTES} bytes")
    return parse_sealed(data)


def parse_sealed(data: bytes) -> SealedFile:
    """Return the parts of ``k.npz`` from its bytes; see :func:`read_sealed`."""
    arrays = read_npz(data, rules=OUTER_RULES, what=OUTER_WHAT)
    header_bytes, envelope, payload = (arrays[name].tobytes() for name in ("header", "seal", "payload"))
    header = _section(arrays["header"], what=f"{OUTER_WHAT}: header")
    fields = Fields(header, what=f"{OUTER_WHAT}: header")
    if fields.text("schema") != OUTER_SCHEMA or fields.text("leaf_encoding") != LEAF_ENCODING:
        raise MalformedError(f"{OUTER_WHAT}: unknown schema or leaf encoding")
    enc = fields.text("enc")
    if enc not in ENCODINGS or fields.text("task") != "classification":
        raise MalformedError(f"{OUTER_WHAT}: an encryption or task this version does not know")
    if arrays["tst"].size:
        raise MalformedError(f"{OUTER_WHAT}: holds time-stamp tokens, which this version does not know")
    fields.hex("keyset_id", n_bytes=16)
    fields.hex("root", n_bytes=32)
    fields.integer("n", low=1, high=MAX_SAMPLES)
    inner_size = fields.integer("inner_size")
    inner_sha256 = fields.hex("inner_sha256", n_bytes=32)
    fields.finish()
    if enc == OPEN and (len(payload) != inner_size or sha256_hex(payload) != inner_sha256):
        raise SealError(f"{OUTER_WHAT}: the payload is not the one its header names")
    if _outer(header_bytes, envelope, payload) != data:
        # Container fields nobody reads must not be a place where bytes can change unnoticed.
        raise MalformedError(f"{OUTER_WHAT}: the container is not in its canonical layout")
    return SealedFile(header=header, envelope=envelope, payload=payload, enc=enc)


def open_sealed(path: Path, *, seal_envelope: bytes | None = None, unlocks: Unlocks | None = None) -> OpenedKeySet:
    """Open a sealed key set: signature first, then digests over the same bytes, then their content.

    Args:
        path: ``k.npz``.
        seal_envelope: the published ``k.seal.json``, which must be the embedded one.
        unlocks: what opens an encrypted key set.

    Raises:
        UsageError: it is encrypted and nothing to open it with was given.
        EvidenceError: what was given does not open it.
        MalformedError: the file is not a sealed key set.
        SignatureError: the seal's signature does not verify.
        SealError: the key set is not the sealed one, or the published seal is another.
    """
    return check_sealed(read_sealed(path), seal_envelope=seal_envelope, unlocks=unlocks)


def check_sealed(
    sealed: SealedFile, *, seal_envelope: bytes | None = None, unlocks: Unlocks | None = None
) -> OpenedKeySet:
    """Check a sealed file's parts against its seal; see :func:`open_sealed`."""
    if seal_envelope is not None and seal_envelope != sealed.envelope:
        raise SealError("the published seal is not the one inside the key set")
    seal = open_seal(sealed.envelope)
    payload = decrypt(sealed.payload, enc=sealed.enc, unlocks=unlocks, what=OUTER_WHAT)
    require_equal(sha256_hex(payload), seal.payload_sha256, what="the key set's digest")
    keys = unpack(payload)
    _match(keys, payload=payload, seal=seal)
    names = ("keyset_id", "n", "root", "inner_size", "inner_sha256")
    told = tuple(sealed.header[name] for name in names)
    if told != (seal.keyset_id, seal.n_samples, seal.merkle_root, len(payload), seal.payload_sha256):
        raise SealError(f"{OUTER_WHAT}: the header contradicts the seal")
    return OpenedKeySet(keys=keys, seal=seal, envelope=sealed.envelope)


def _match(keys: KeySet, *, payload: bytes, seal: Seal) -> None:
    require_equal(sha256_hex(payload), seal.payload_sha256, what="the key set's digest")
    require_equal(keys.root().hex(), seal.merkle_root, what="the key set's Merkle root")
    require_equal(seed_commitment(keys.secret_seed), seal.seed_commitment, what="the commitment to the owner's seed")
    generators = [canonical_bytes(generator_object(each.generator)) for each in (keys, seal)]
    if (keys.keyset_id, keys.spec) != (seal.keyset_id, seal.spec) or generators[0] != generators[1]:
        raise SealError("the key set's identity, inputs or generator contradict the seal")
    if seal.generator.settings.get(GUARD_SETTING, "") != (sha256_hex(keys.guard) if keys.guard else ""):
        raise SealError("the key set's guard is not the sealed one")
    problem = fit_problem(keys, seal.protocol)
    if problem:
        raise SealError(problem)


def _problem(keys: KeySet) -> str:
    """Return what is wrong with a key set, or an empty text; no message quotes a sample."""
    inputs = keys.inputs
    if inputs.dtype != np.uint8 or inputs.ndim != 4 or inputs.shape[1:] != keys.spec.shape:
        return "inputs must be uint8 of shape (n, channels, height, width) as specified"
    if not 1 <= len(keys.samples) == len(inputs) <= MAX_SAMPLES:
        return "every sample needs exactly one input, and there must be at least one"
    if len(keys.salt_seed) != SEED_BYTES or len(keys.secret_seed) != SEED_BYTES:
        return "a seed has 32 bytes"
    if len(keys.keyset_id) != 32 or any(c not in "0123456789abcdef" for c in keys.keyset_id):
        return "a key set's name is 16 bytes in lower-case hex"
    if any(sample.index != index for index, sample in enumerate(keys.samples)):
        return "samples must carry their position as index"
    order = [KINDS.index(sample.kind) for sample in keys.samples]
    if order != sorted(order) or order[0] != 0:
        return "samples must be keys, then shams, then controls, with at least one key"
    return next((problem for sample in keys.samples if (problem := sample_problem(sample, keys.spec))), "")


def _samples(arrays: Mapping[str, AnyArray]) -> tuple[Sample, ...]:
    columns = [arrays[name].tolist() for name in ("kind", "natural", "expected", "pattern", "code", "rival")]
    columns[-1] = columns[-1] or [-1] * len(columns[0])
    if any(len(column) != len(columns[0]) for column in columns):
        raise ValueError("the sample columns differ in length")
    if any(kind >= len(KINDS) for kind in columns[0]):
        raise ValueError("unknown kind of sample")
    return tuple(
        Sample(index=i, kind=KINDS[kind], natural=natural, expected=expected, pattern=pattern, code=code, rival=rival)
        for i, (kind, natural, expected, pattern, code, rival) in enumerate(zip(*columns, strict=True))
    )


def _outer(header: bytes, envelope: bytes, payload: bytes) -> bytes:
    return write_npz(
        {"header": _octets(header), "seal": _octets(envelope), "tst": _octets(b""), "payload": _octets(payload)}
    )


def _section(array: AnyArray, *, what: str) -> dict[str, JsonValue]:
    if array.nbytes > MAX_SECTION_BYTES:
        raise MalformedError(f"{what}: too large")
    data = array.tobytes()
    if data.endswith(b"\n"):
        raise MalformedError(f"{what}: not in canonical form")
    return parse_canonical_object(data, what=what)


def _octets(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)


def _column(values: list[int]) -> npt.NDArray[np.int32]:
    return np.array(values, dtype="<i4")
