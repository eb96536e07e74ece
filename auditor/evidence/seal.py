"""The seal: the owner's signed statement that fixes a key set and the protocol before any suspect is asked.

``k.seal.json`` is a DSSE envelope over an in-toto statement. Its subject is the digest of the inner key-set file,
its predicate carries the Merkle root, the whole protocol and the owner's public key. The seal's own digest, quoted
elsewhere as ``seal_sha256``, is that of the envelope's bytes: it covers the signature too.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import get_type_hints

from auditor import guard_keys, patterns
from auditor.analysis import plan_problem
from auditor.analysis.sham_bound import MIN_PATTERNS, MIN_SAMPLES
from auditor.canonical import Fields, JsonValue, decimal_string
from auditor.errors import MalformedError, SealError
from auditor.evidence.signing import SigningKey, check_public_key, envelope, read_envelope, verify_envelope
from auditor.evidence.statements import PAYLOAD_TYPE, read_statement, statement_bytes
from auditor.evidence.times import check_utc
from auditor.records import Generator, InputSpec, NullBasis, Protocol

PREDICATE_TYPE = "https://model-ownership-auditor.example/keyset-seal/v1"
SUBJECT_NAME = "keyset.inner.npz"
LEAF_ENCODING = "mlaudit.leaf/1"
SEED_DOMAIN = b"auditor/1 seed commitment\x00"
WHAT = "k.seal.json"

MAX_SAMPLES = 1_000_000
MAX_CLASSES = 100_000
MAX_SIDE = 65_536
MAX_GRINDING_LOG2 = 256
MAX_KEYS = 20_000
"""More keys than any audit asks; bounds what a hostile seal can make a checker compute."""
MAX_ALPHA = 1e-3
"""Largest level a seal may state: whoever seals it also makes the claim, and must not choose how often it is false."""
MIN_LEVEL = 1e-100
"""Smallest share of the level, after grinding, that either half of the test may get."""

GRINDING_LOG2 = 64
"""Tries that a seal without public randomness declares, as a power of two; see docs/adr/0007."""
IMPORTED = "imported"
"""Generator name of a key set that another tool made."""
CODE_SETTING = "label_code_used"
"""The one generator setting that is known only after training."""

_OPEN_UNIT = frozenset({"alpha", "null_share", "null_floor", "p_min", "futility"})
_HEX_FIELDS = frozenset({"order_seed", "randomness"})


class RandomnessSource(StrEnum):
    """Where the public randomness of the draw came from."""

    NONE = "none"
    """There was none; the declared number of tries is charged to the level."""
    BEACON = "beacon"
    """A value that a public beacon published after the commitment."""
    NONCE = "nonce"
    """A value that the judge, or whoever stands for the judge, gave after receiving the commitment."""
    TOKEN = "token"
    """The bytes of an RFC 3161 time-stamp over the commitment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What an owner fixed by signing."""

    keyset_id: str
    """16 bytes as lower-case hex."""
    payload_sha256: str
    """Digest of the inner key-set file before any encryption."""
    merkle_root: str
    """Root over the salted samples, hex."""
    n_samples: int
    spec: InputSpec
    protocol: Protocol
    generator: Generator
    model_sha256: str
    """Digest of the protected model's weights, hex."""
    seed_commitment: str
    """:func:`seed_commitment` of the owner's secret seed."""
    owner_public_key: str
    """Raw Ed25519 key as hex."""
    serial: int
    """Number of this seal in the owner's ledger, from 1."""
    previous_seal_sha256: str
    """Digest of the owner's seal before this one; empty for the first."""
    sealed_at: str
    """The owner's clock, RFC 3339 UTC with milliseconds; a claim, not a fact, until a time-stamp confirms it."""
    tool_version: str
    commitment_sha256: str = ""
    """Digest of ``k.commit.json``; empty when nothing was committed before the draw."""
    randomness_source: RandomnessSource = RandomnessSource.NONE


def generation_problem(seal: Seal) -> str:
    """Return why nobody can re-derive the key set, or an empty text; a claim that rests on such keys is contestable."""
    if seal.generator.name == IMPORTED:
        return "the key set was imported from another tool; its generation is not verifiable"
    generator = (seal.generator.name, seal.generator.version)
    served = generator == (guard_keys.SCHEME, guard_keys.VERSION)
    basis = NullBasis.DRAWN_TABLE if served else patterns.null_basis_of(*generator)
    if basis is None:
        return "this version does not know the generator; the generation is not verifiable"
    if basis is not seal.protocol.null_basis:
        return "the sealed null rests on another randomness than the generator draws; it is not verifiable"
    if not seal.commitment_sha256:
        return "no commitment precedes the draw; the generation is not verifiable"
    return ""


def claim_problem(seal: Seal) -> str:
    """Return why a claim on the key set is contestable, or an empty text.

    Nobody can re-derive it, or its foreign patterns cannot show what the owner's does by itself: they are too few, or
    the sealed label is a natural class, which an independent model may give to one pattern and not to others.
    """
    protocol = seal.protocol
    problem = generation_problem(seal)
    if problem or protocol.null_basis is not NullBasis.SHAMS:
        return problem
    if (seal.generator.name, seal.generator.version) in patterns.NATURAL_TARGETS:
        return "the sealed label is a natural class; foreign patterns do not bound what one pattern does by itself"
    if protocol.n_sham_patterns >= MIN_PATTERNS and protocol.n_shams >= MIN_SAMPLES * protocol.n_sham_patterns:
        return ""
    return f"fewer than {MIN_PATTERNS} foreign patterns of {MIN_SAMPLES} samples each do not show what patterns do"


def seed_commitment(seed: bytes) -> str:
    """Return the commitment to an owner's 32-byte seed; the seed is random, so that its digest hides it."""
    return hashlib.sha256(SEED_DOMAIN + seed).hexdigest()


def statement(seal: Seal) -> bytes:
    """Return the in-toto statement of a seal.

    Raises:
        MalformedError: the seal's fields break the rules of :func:`seal_from_statement`.
    """
    predicate: dict[str, JsonValue] = {
        "keyset_id": seal.keyset_id,
        "leaf_encoding": LEAF_ENCODING,
        "merkle_root": seal.merkle_root,
        "n_samples": seal.n_samples,
        "spec": spec_object(seal.spec),
        "protocol": protocol_object(seal.protocol),
        "generator": generator_object(seal.generator),
        "model_sha256": seal.model_sha256,
        "seed_commitment": seal.seed_commitment,
        "owner_public_key": seal.owner_public_key,
        "serial": seal.serial,
        "previous_seal_sha256": seal.previous_seal_sha256,
        "sealed_at": seal.sealed_at,
        "tool_version": seal.tool_version,
        "commitment_sha256": seal.commitment_sha256,
        "randomness_source": seal.randomness_source.value,
    }
    data = statement_bytes(
        subject_name=SUBJECT_NAME,
        subject_sha256=seal.payload_sha256,
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )
    seal_from_statement(data)
    return data


def seal_from_statement(data: bytes) -> Seal:
    """Read a seal from its statement's bytes; nothing is verified here.

    Raises:
        MalformedError: a field is missing, unknown or out of range.
        SealError: the numbers of samples contradict the protocol.
    """
    found = read_statement(data, predicate_type=PREDICATE_TYPE, what=WHAT)
    if found.subject_name != SUBJECT_NAME:
        raise MalformedError(f"{WHAT}: the subject is not a key set")
    predicate = found.predicate
    if predicate.text("leaf_encoding") != LEAF_ENCODING:
        raise MalformedError(f"{WHAT}: unknown leaf encoding")
    seal = Seal(
        keyset_id=predicate.hex("keyset_id", n_bytes=16),
        payload_sha256=found.subject_sha256,
        merkle_root=predicate.hex("merkle_root", n_bytes=32),
        n_samples=predicate.integer("n_samples", low=1, high=MAX_SAMPLES),
        spec=spec_from_fields(predicate.object("spec")),
        protocol=protocol_from_fields(predicate.object("protocol")),
        generator=generator_from_fields(predicate.object("generator")),
        model_sha256=predicate.hex("model_sha256", n_bytes=32),
        seed_commitment=predicate.hex("seed_commitment", n_bytes=32),
        owner_public_key=predicate.hex("owner_public_key", n_bytes=32),
        serial=predicate.integer("serial", low=1),
        previous_seal_sha256=predicate.hex("previous_seal_sha256"),
        sealed_at=check_utc(predicate.text("sealed_at"), what=WHAT),
        tool_version=predicate.text("tool_version", max_length=100),
        commitment_sha256=predicate.hex("commitment_sha256"),
        randomness_source=_source(predicate.text("randomness_source")),
    )
    predicate.finish()
    if len(seal.previous_seal_sha256) != (0 if seal.serial == 1 else 64):
        raise MalformedError(f"{WHAT}: every seal but the first names the one before it")
    protocol = seal.protocol
    unusable = plan_problem(protocol, seal.spec)
    if unusable:
        raise SealError(f"{WHAT}: {unusable}")
    if seal.n_samples != protocol.n_keys + protocol.n_shams + protocol.n_controls:
        raise SealError(f"{WHAT}: the number of samples contradicts the protocol")
    if len(seal.commitment_sha256) not in (0, 64):
        raise MalformedError(f"{WHAT}: a commitment is named by its SHA-256")
    drawn = seal.randomness_source is not RandomnessSource.NONE
    if drawn != bool(protocol.randomness):
        raise SealError(f"{WHAT}: public randomness and its source go together")
    if seal.commitment_sha256 and not drawn and protocol.grinding_log2 < GRINDING_LOG2:
        raise SealError(f"{WHAT}: without public randomness at least 2^{GRINDING_LOG2} tries must be declared")
    return seal


def sign_seal(seal: Seal, key: SigningKey) -> bytes:
    """Return the envelope bytes of a seal, signed by the owner whose public key it names."""
    if key.public.hex() != seal.owner_public_key:
        raise ValueError("a seal is signed with the key it names")
    return envelope(statement(seal), payload_type=PAYLOAD_TYPE, keys=[key])


def open_seal(data: bytes) -> Seal:
    """Read a seal and verify its signature under the owner's key that it names itself.

    This shows that the seal is unaltered since that key signed it. Whose key it is, the caller must know from
    elsewhere: compare the fingerprint of ``owner_public_key``.

    Raises:
        MalformedError: not a seal, or not in the one accepted spelling.
        SignatureError: the signature does not verify or the key is refused.
        SealError: the seal contradicts itself.
    """
    # The key stands inside the payload, so this one parse precedes the verification; nothing else is used before it.
    public = bytes.fromhex(seal_from_statement(read_envelope(data, what=WHAT).payload).owner_public_key)
    check_public_key(public)
    return seal_from_statement(verify_envelope(data, payload_type=PAYLOAD_TYPE, public_keys=[public], what=WHAT))


def protocol_object(protocol: Protocol) -> dict[str, JsonValue]:
    """Return a protocol as JSON; fractions become decimal strings."""
    return {field.name: _plain(getattr(protocol, field.name)) for field in fields(Protocol)}


def protocol_from_fields(source: Fields) -> Protocol:
    """Read a protocol; every field is demanded and every number has a range.

    Raises:
        MalformedError: a field is missing, unknown or out of range.
    """
    hints = get_type_hints(Protocol)
    values: dict[str, object] = {}
    for field in fields(Protocol):
        values[field.name] = _protocol_value(source, field.name, hints[field.name])
    source.finish()
    protocol = Protocol(**values)  # type: ignore[arg-type]
    problem = protocol_problem(protocol)
    if problem:
        raise MalformedError(f"protocol: {problem}")
    return protocol


def protocol_problem(protocol: Protocol) -> str:
    """Return what is wrong with a protocol's numbers, or an empty text."""
    for name in sorted(_OPEN_UNIT):
        if not 0 < getattr(protocol, name) < 1:
            return f"{name} must lie strictly between 0 and 1"
    if protocol.alpha > MAX_ALPHA:
        return f"no claim is made at a level above {MAX_ALPHA:g}"
    if not 1 <= protocol.opening_keys <= protocol.n_keys:
        return "opening_keys must lie between 1 and n_keys"
    if not min(protocol.n_shams, 1) <= protocol.n_sham_patterns <= protocol.n_shams:
        return "n_sham_patterns does not fit n_shams"
    if protocol.n_repeats > protocol.opening_keys + protocol.n_shams + protocol.n_controls:
        return "there are more repeats than samples to repeat"
    if protocol.n_keys > MAX_KEYS:
        return f"n_keys is larger than {MAX_KEYS}"
    if len(protocol.order_seed) != 64:
        return "order_seed must hold 32 bytes"
    if protocol.grinding_log2 > MAX_GRINDING_LOG2:
        return "grinding_log2 is too large"
    smaller_share = min(protocol.null_share, 1 - protocol.null_share)
    if protocol.alpha * 2.0**-protocol.grinding_log2 * smaller_share < MIN_LEVEL:
        return "the level is too small to compute with"
    return ""


def spec_object(spec: InputSpec) -> dict[str, JsonValue]:
    """Return an input specification as JSON."""
    return {"shape": list(spec.shape), "classes": list(spec.classes)}


def spec_from_fields(source: Fields) -> InputSpec:
    """Read an input specification.

    Raises:
        MalformedError: a field is missing, unknown or out of range.
    """
    shape = source.items("shape", max_items=3)
    classes = source.texts("classes", max_items=MAX_CLASSES)
    source.finish()
    sides = [side for side in shape if isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE]
    if len(sides) != 3 or len(shape) != 3:
        raise MalformedError("input specification: shape must hold three sizes (channels, height, width)")
    if len(classes) < 2:
        raise MalformedError("input specification: a task has at least two classes")
    return InputSpec(shape=(sides[0], sides[1], sides[2]), classes=classes)


def generator_object(generator: Generator) -> dict[str, JsonValue]:
    """Return a generator's description as JSON."""
    return {"name": generator.name, "version": generator.version, "settings": dict(generator.settings)}


def generator_from_fields(source: Fields) -> Generator:
    """Read a generator's description.

    Raises:
        MalformedError: a field is missing, unknown or of another type.
    """
    settings = source.raw("settings")
    if not isinstance(settings, Mapping):
        raise MalformedError("generator: settings must be an object")
    generator = Generator(
        name=source.text("name", max_length=100), version=source.integer("version"), settings=settings
    )
    source.finish()
    return generator


def _source(text: str) -> RandomnessSource:
    try:
        return RandomnessSource(text)
    except ValueError as error:
        raise MalformedError(f"{WHAT}: unknown source of randomness") from error


def _plain(value: object) -> JsonValue:
    if isinstance(value, float):
        return decimal_string(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, int | str):
        return value
    raise TypeError(f"a protocol cannot hold a {type(value).__name__}")


def _protocol_value(source: Fields, name: str, kind: object) -> int | float | str:
    if kind is float:
        return source.decimal(name, low=0.0, high=1.0)
    if kind is int:
        return source.integer(name, high=MAX_SAMPLES)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(source.text(name))
        except ValueError as error:
            raise MalformedError(f"protocol: unknown {name}") from error
    if kind is not str:
        raise TypeError(f"protocol field {name} has a type this format does not know")
    return source.hex(name) if name in _HEX_FIELDS else source.text(name)


def require_equal(found: str, sealed: str, *, what: str) -> None:
    """Compare a recomputed digest with the sealed one.

    Raises:
        SealError: they differ.
    """
    if found != sealed:
        raise SealError(f"{what} differs from the seal: expected {sealed[:16]}…, found {found[:16]}…")
