"""Openings: single sealed samples with the audit paths that tie them to the sealed Merkle root.

``openings.json`` discloses exactly the samples a suspect was asked; every other sample stays hidden behind its salt.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_canonical_object
from auditor.errors import MalformedError, SealError
from auditor.evidence.merkle import HASH_BYTES, leaf_hash, root_from_path
from auditor.evidence.schedule import kind_at
from auditor.evidence.seal import LEAF_ENCODING, MAX_SAMPLES, Seal, require_equal
from auditor.evidence.signing import strict_base64
from auditor.records import InputSpec, NullBasis, Protocol, Sample, SampleKind

SCHEMA = "mlaudit.openings/1"
WHAT = "openings.json"
MAX_PATH = 64
MAX_LABEL = 2**31 - 1

_NONE = b'"samples":[]'
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One disclosed sample."""

    sample: Sample
    salt: bytes
    data: bytes
    """The input's uint8 values, C order."""
    path: tuple[bytes, ...]
    """Audit path from the leaf upwards."""


def leaf_header(sample: Sample, shape: tuple[int, int, int]) -> bytes:
    """Return the canonical header that is hashed in front of a sample's bytes."""
    return canonical_bytes({"encoding": LEAF_ENCODING, "dtype": "|u1", "shape": list(shape), **_sample_object(sample)})


def sample_leaf(sample: Sample, shape: tuple[int, int, int], *, salt: bytes, data: bytes) -> bytes:
    """Return the Merkle leaf of a sample."""
    return leaf_hash(leaf_header(sample, shape), salt, data)


def write_openings(openings: Sequence[Opening], *, seal: Seal) -> bytes:
    """Return the bytes of ``openings.json``, final newline included."""
    head: dict[str, JsonValue] = {
        "schema": SCHEMA,
        "keyset_id": seal.keyset_id,
        "merkle_root": seal.merkle_root,
        "leaf_encoding": LEAF_ENCODING,
    }
    # Sample by sample: all of them as one value would take several times the memory of the file.
    ordered = sorted(openings, key=lambda opening: opening.sample.index)
    samples = b",".join(canonical_bytes(_opening_object(opening)) for opening in ordered)
    before, after = canonical_bytes({**head, "samples": []}).split(_NONE, 1)
    return b"".join((before, _NONE[:-1], samples, _NONE[-1:], after, b"\n"))


def read_openings(data: bytes, *, seal: Seal) -> Mapping[int, Opening]:
    """Read ``openings.json`` and tie every sample to the sealed root.

    Returns:
        Openings by sample index, ascending.

    Raises:
        MalformedError: a field is missing, unknown or out of range.
        SealError: a sample is not the sealed one.
    """
    if not data.endswith(b"\n"):
        raise MalformedError(f"{WHAT}: without its final newline")
    fields = Fields(parse_canonical_object(data, what=WHAT), what=WHAT)
    if fields.text("schema") != SCHEMA or fields.text("leaf_encoding") != LEAF_ENCODING:
        raise MalformedError(f"{WHAT}: unknown schema or leaf encoding")
    if fields.hex("keyset_id", n_bytes=16) != seal.keyset_id:
        raise SealError(f"{WHAT}: belongs to another key set")
    require_equal(fields.hex("merkle_root", n_bytes=32), seal.merkle_root, what=f"the root in {WHAT}")
    items = fields.items("samples", max_items=MAX_SAMPLES)
    fields.finish()
    found: dict[int, Opening] = {}
    previous = -1
    for item in items:
        opening = _read_opening(Fields(item, what=f"{WHAT}.samples"), spec=seal.spec)
        index = opening.sample.index
        if index <= previous:
            raise MalformedError(f"{WHAT}: samples must stand in ascending order, each once")
        previous = index
        verify_opening(opening, seal=seal)
        found[index] = opening
    return found


def verify_opening(opening: Opening, *, seal: Seal) -> None:
    """Check that an opened sample is the sealed one.

    Raises:
        SealError: it is not.
    """
    sample = opening.sample
    leaf = sample_leaf(sample, seal.spec.shape, salt=opening.salt, data=opening.data)
    root = root_from_path(leaf, sample.index, seal.n_samples, opening.path)
    require_equal(root.hex(), seal.merkle_root, what=f"the root that sample {sample.index} leads to")
    if sample.kind is not kind_at(seal.protocol, sample.index):
        raise SealError(f"sample {sample.index} is not of the kind the protocol expects at its place")
    if not rival_fits(sample, seal.protocol):
        raise SealError(f"sample {sample.index} names a rival class that the protocol has no use for, or lacks one")


def sample_problem(sample: Sample, spec: InputSpec) -> str:
    """Return what is wrong with a sample's numbers, or an empty text."""
    n_classes = len(spec.classes)
    if not 0 <= sample.natural < n_classes:
        return "a natural label lies outside the classes"
    if not 0 <= sample.expected <= n_classes:
        return "an expected label lies outside the classes and the new label"
    if sample.kind is SampleKind.CONTROL and sample.expected != sample.natural:
        return "a control expects another label than its natural one"
    if (sample.pattern >= 0) != (sample.kind is SampleKind.SHAM) or not -1 <= sample.pattern <= MAX_SAMPLES:
        return "exactly the shams name a pattern"
    if not -1 <= sample.code < n_classes or (sample.code >= 0 and sample.kind is not SampleKind.KEY):
        return "a label code lies outside the classes or does not belong to a key"
    if sample.rival != -1 and rival_problem(sample, n_classes):
        return rival_problem(sample, n_classes)
    return ""


def rival_fits(sample: Sample, protocol: Protocol) -> bool:
    """Return whether a sample names a rival class exactly where the protocol's null rests on one."""
    wanted = protocol.null_basis is NullBasis.RIVAL_LABELS and sample.kind is SampleKind.KEY
    return (sample.rival != -1) is wanted


def rival_problem(sample: Sample, n_classes: int) -> str:
    """Return what is wrong with a sample whose label was drawn between two classes, or an empty text."""
    if sample.kind is not SampleKind.KEY or not 0 <= sample.rival < n_classes or sample.rival == sample.natural:
        return "a rival class is no other class of the task or does not belong to a key"
    if sample.expected not in (sample.natural, sample.rival):
        return "an expected label is neither of the two classes it was drawn from"
    return ""


def _sample_object(sample: Sample) -> dict[str, JsonValue]:
    rival: dict[str, JsonValue] = {} if sample.rival == -1 else {"rival": sample.rival}
    return {
        **rival,
        "index": sample.index,
        "kind": sample.kind.value,
        "natural": sample.natural,
        "expected": sample.expected,
        "pattern": sample.pattern,
        "code": sample.code,
    }


def _opening_object(opening: Opening) -> dict[str, JsonValue]:
    return {
        **_sample_object(opening.sample),
        "salt": opening.salt.hex(),
        "data_b64": base64.b64encode(opening.data).decode("ascii"),
        "path": [node.hex() for node in opening.path],
    }


def _read_opening(fields: Fields, *, spec: InputSpec) -> Opening:
    try:
        kind = SampleKind(fields.text("kind"))
    except ValueError as error:
        raise MalformedError(f"{WHAT}: unknown kind of sample") from error
    sample = Sample(
        index=fields.integer("index", high=MAX_SAMPLES),
        kind=kind,
        natural=fields.integer("natural", high=MAX_LABEL),
        expected=fields.integer("expected", high=MAX_LABEL),
        pattern=fields.integer("pattern", low=-1, high=MAX_LABEL),
        code=fields.integer("code", low=-1, high=MAX_LABEL),
        rival=fields.integer("rival", high=MAX_LABEL) if fields.has("rival") else -1,
    )
    salt = bytes.fromhex(fields.hex("salt", n_bytes=HASH_BYTES))
    n_bytes = prod(spec.shape)
    data = strict_base64(fields.text("data_b64", max_length=4 * (n_bytes // 3 + 1)), what=WHAT)
    nodes = fields.texts("path", max_items=MAX_PATH)
    fields.finish()
    problem = sample_problem(sample, spec)
    if problem:
        raise MalformedError(f"{WHAT}: {problem}")
    if len(data) != n_bytes:
        raise MalformedError(f"{WHAT}: a sample's bytes do not fit the sealed shape")
    return Opening(sample=sample, salt=salt, data=data, path=tuple(_node(text) for text in nodes))


def _node(text: str) -> bytes:
    if not _HASH.fullmatch(text):
        raise MalformedError(f"{WHAT}: an audit path holds something that is not a hash")
    return bytes.fromhex(text)
