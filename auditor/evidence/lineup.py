"""A blind line-up: candidates that a custodian fixes by signature, in secret order, before any key is asked.

``lineup.commit.json`` is a DSSE envelope over an in-toto statement. Its subject is the Merkle root over one salted leaf
per candidate; its predicate names the key set, the candidates' labels and the opaque places at which they are asked,
and nothing else of them. ``lineup.open.json`` is signed afterwards by the same key and tells what every leaf hides.

The SHA-256 of ``lineup.commit.json`` is the nonce that draws the questions of every audit. A transcript that carries it
was begun when the list was fixed, whatever any clock says: the digest cannot be known before the salts are drawn.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from auditor.canonical import Fields, JsonValue, canonical_bytes, sha256_hex
from auditor.errors import MalformedError, SealError
from auditor.evidence.merkle import HASH_BYTES, MerkleTree, leaf_hash
from auditor.evidence.signing import (
    SigningKey,
    check_public_key,
    envelope,
    read_envelope,
    strict_base64,
    verify_envelope,
)
from auditor.evidence.statements import PAYLOAD_TYPE, Statement, read_statement, statement_bytes
from auditor.evidence.times import check_utc
from auditor.evidence.timestamps import MAX_TOKEN_BYTES

COMMITMENT = "lineup.commit.json"
OPENING = "lineup.open.json"
RECORD = "relay.jsonl"
SECRET = "lineup.secret.json"

COMMITMENT_TYPE = "https://model-ownership-auditor.example/lineup-commitment/v1"
OPENING_TYPE = "https://model-ownership-auditor.example/lineup-opening/v1"
SUBJECT_NAME = "candidates.merkle-root"
LEAF_ENCODING = "mlaudit.candidate/1"
STATISTIC = "log10 of the e-value of the candidate's own audit"
MIN_CANDIDATES = 2
MAX_CANDIDATES = 100
MAX_OUTPUTS = 100_000
MAX_NAME = 200
MAX_CANDIDATE_TOKENS = 8
PLACE_BYTES = 16

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LABEL = re.compile(r"[A-Z]{1,2}")


class CandidateRole(StrEnum):
    """What the custodian says a candidate is."""

    SUSPECT = "suspect"
    """The model under accusation; exactly one."""
    EARLIER = "earlier"
    """The accused's own model from before the claim."""
    PUBLIC = "public"
    """A model that anybody can obtain."""
    INDEPENDENT = "independent"
    """Another model made without access to the owner's."""


class Revealed(StrEnum):
    """What the relay passes on of an answer."""

    LABELS = "labels"
    SCORES = "scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate with all that its leaf hides."""

    label: str
    """What the examiner knows it by: A, B, C …"""
    place: str
    """Opaque last part of its address at the relay, 16 bytes as hex."""
    name: str
    role: CandidateRole
    artefact_sha256: str
    """Digest of the model file; empty for a service."""
    address: str
    """Address of the service without credentials; empty for a file."""
    tokens: tuple[bytes, ...]
    """Time stamps over the model file (RFC 3161, SHA-256)."""
    salt: str
    """32 random bytes as hex."""

    @property
    def leaf(self) -> str:
        """The salted leaf that stands for the candidate, hex."""
        header = {name: value for name, value in candidate_object(self).items() if name != "salt"}
        return leaf_hash(canonical_bytes({"encoding": LEAF_ENCODING, **header}), bytes.fromhex(self.salt), b"").hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What the commitment says of one candidate."""

    label: str
    place: str
    leaf: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUp:
    """What the custodian fixed before any key was asked."""

    seal_sha256: str
    """Digest of the ``k.seal.json`` whose keys are asked."""
    placed: tuple[Placed, ...]
    """In the order of their labels."""
    revealed: Revealed
    n_outputs: int
    """Labels that the relay declares for every candidate."""
    custodian_public_key: str
    committed_at: str
    """The custodian's clock; a claim until a time stamp confirms it."""
    tool_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLineUp:
    """What the custodian says afterwards."""

    commitment_sha256: str
    candidates: tuple[Candidate, ...]
    record_sha256: str
    """Digest of the relay's record; empty where there was none."""
    custodian_public_key: str
    opened_at: str
    tool_version: str


def label_of(position: int) -> str:
    """Return the label of a place in the line-up, from 0: A … Z, AA … ZZ."""
    first, second = divmod(position, len(_LETTERS))
    return _LETTERS[second] if not first else _LETTERS[first - 1] + _LETTERS[second]


def nonce_of(commitment: bytes) -> bytes:
    """Return the nonce that every audit of the line-up is drawn with: the SHA-256 of ``lineup.commit.json``."""
    return bytes.fromhex(sha256_hex(commitment))


def candidate_object(candidate: Candidate) -> dict[str, JsonValue]:
    """Return a candidate as JSON."""
    return {
        "label": candidate.label,
        "place": candidate.place,
        "name": candidate.name,
        "role": candidate.role.value,
        "artefact_sha256": candidate.artefact_sha256,
        "address": candidate.address,
        "tokens": [base64.b64encode(token).decode("ascii") for token in candidate.tokens],
        "salt": candidate.salt,
    }


def candidate_from(value: JsonValue, *, what: str) -> Candidate:
    """Read a candidate.

    Raises:
        MalformedError: a field is missing, unknown or out of range.
    """
    fields = Fields(value, what=what)
    try:
        role = CandidateRole(fields.text("role"))
    except ValueError as error:
        raise MalformedError(f"{what}: unknown role") from error
    tokens = fields.texts("tokens", max_items=MAX_CANDIDATE_TOKENS)
    candidate = Candidate(
        label=_label(fields.text("label"), what=what),
        place=fields.hex("place", n_bytes=PLACE_BYTES),
        name=fields.text("name", max_length=MAX_NAME),
        role=role,
        artefact_sha256=fields.hex("artefact_sha256"),
        address=fields.text("address"),
        tokens=tuple(strict_base64(token, what=what) for token in tokens),
        salt=fields.hex("salt", n_bytes=HASH_BYTES),
    )
    fields.finish()
    if len(candidate.artefact_sha256) not in (0, 64) or bool(candidate.artefact_sha256) == bool(candidate.address):
        raise MalformedError(f"{what}: a candidate is a file with its digest or a service with its address")
    if any(len(token) > MAX_TOKEN_BYTES for token in candidate.tokens):
        raise MalformedError(f"{what}: a time stamp is too large")
    return candidate


def candidates_problem(candidates: Sequence[Candidate]) -> str:
    """Return why candidates make no line-up, or an empty text."""
    if not MIN_CANDIDATES <= len(candidates) <= MAX_CANDIDATES:
        return f"a line-up has {MIN_CANDIDATES} to {MAX_CANDIDATES} candidates"
    if sum(candidate.role is CandidateRole.SUSPECT for candidate in candidates) != 1:
        return "exactly one candidate is the suspect"
    if len({candidate.name for candidate in candidates}) != len(candidates):
        return "two candidates have the same name"
    if len({candidate.artefact_sha256 or candidate.address for candidate in candidates}) != len(candidates):
        return "a model stands in the line-up twice; equal weights or addresses are one candidate"
    if [candidate.label for candidate in candidates] != [label_of(i) for i in range(len(candidates))]:
        return "the labels are not A, B, C … in order"
    return ""


def sign_lineup(lineup: LineUp, *, key: SigningKey) -> bytes:
    """Return the bytes of ``lineup.commit.json``, signed by the custodian whose public key it names."""
    if key.public.hex() != lineup.custodian_public_key:
        raise ValueError("a line-up is signed with the key it names")
    predicate: dict[str, JsonValue] = {
        "leaf_encoding": LEAF_ENCODING,
        "seal_sha256": lineup.seal_sha256,
        "candidates": [{"label": each.label, "place": each.place, "leaf": each.leaf} for each in lineup.placed],
        "statistic": STATISTIC,
        "revealed": lineup.revealed.value,
        "n_outputs": lineup.n_outputs,
        "custodian_public_key": lineup.custodian_public_key,
        "committed_at": lineup.committed_at,
        "tool_version": lineup.tool_version,
    }
    data = statement_bytes(
        subject_name=SUBJECT_NAME,
        subject_sha256=_root(lineup.placed),
        predicate_type=COMMITMENT_TYPE,
        predicate=predicate,
    )
    _lineup_from(data)
    return envelope(data, payload_type=PAYLOAD_TYPE, keys=[key])


def open_lineup(data: bytes) -> LineUp:
    """Read a commitment and verify its signature under the custodian's key that it names itself.

    Whose key it is, the caller must know from elsewhere.

    Raises:
        MalformedError: not a commitment, or not in the one accepted spelling.
        SignatureError: the signature does not verify or the key is refused.
        SealError: the leaves do not lead to the signed root.
    """
    public = bytes.fromhex(_lineup_from(read_envelope(data, what=COMMITMENT).payload).custodian_public_key)
    check_public_key(public)
    return _lineup_from(verify_envelope(data, payload_type=PAYLOAD_TYPE, public_keys=[public], what=COMMITMENT))


def sign_opening(opened: OpenedLineUp, *, key: SigningKey) -> bytes:
    """Return the bytes of ``lineup.open.json``."""
    if key.public.hex() != opened.custodian_public_key:
        raise ValueError("a line-up is opened with the key it names")
    predicate: dict[str, JsonValue] = {
        "candidates": [candidate_object(candidate) for candidate in opened.candidates],
        "record_sha256": opened.record_sha256,
        "custodian_public_key": opened.custodian_public_key,
        "opened_at": opened.opened_at,
        "tool_version": opened.tool_version,
    }
    data = statement_bytes(
        subject_name=COMMITMENT,
        subject_sha256=opened.commitment_sha256,
        predicate_type=OPENING_TYPE,
        predicate=predicate,
    )
    _opening_from(data)
    return envelope(data, payload_type=PAYLOAD_TYPE, keys=[key])


def read_opening(data: bytes, *, commitment: bytes, lineup: LineUp) -> OpenedLineUp:
    """Read an opening, verify that the commitment's custodian signed it, and compare every candidate with its leaf.

    Raises:
        MalformedError: not an opening in the one accepted spelling.
        SignatureError: not signed by the custodian who committed.
        SealError: of another commitment, or the list is not the one that was committed to.
    """
    public = bytes.fromhex(lineup.custodian_public_key)
    opened = _opening_from(verify_envelope(data, payload_type=PAYLOAD_TYPE, public_keys=[public], what=OPENING))
    if opened.custodian_public_key != lineup.custodian_public_key or opened.commitment_sha256 != sha256_hex(commitment):
        raise SealError(f"{OPENING}: opens another commitment")
    wanted = {each.label: each for each in lineup.placed}
    found = {candidate.label: candidate for candidate in opened.candidates}
    missing, added = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing:
        raise SealError(f"{OPENING}: candidate {missing[0]} was committed to and is not opened")
    if added or len(found) != len(opened.candidates):
        what = f"candidate {added[0]} was added" if added else "a candidate is opened twice"
        raise SealError(f"{OPENING}: {what} after the commitment")
    for label, candidate in found.items():
        if candidate.leaf != wanted[label].leaf or candidate.place != wanted[label].place:
            raise SealError(f"{OPENING}: candidate {label} is not the one that was committed to")
    problem = candidates_problem(opened.candidates)
    if problem:
        raise SealError(f"{OPENING}: {problem}")
    return opened


def _root(placed: Sequence[Placed]) -> str:
    return MerkleTree([bytes.fromhex(each.leaf) for each in placed]).root.hex()


def _lineup_from(data: bytes) -> LineUp:
    found = read_statement(data, predicate_type=COMMITMENT_TYPE, what=COMMITMENT)
    predicate = found.predicate
    if found.subject_name != SUBJECT_NAME or predicate.text("leaf_encoding") != LEAF_ENCODING:
        raise MalformedError(f"{COMMITMENT}: unknown subject or leaf encoding")
    if predicate.text("statistic") != STATISTIC:
        raise MalformedError(f"{COMMITMENT}: unknown statistic")
    try:
        revealed = Revealed(predicate.text("revealed"))
    except ValueError as error:
        raise MalformedError(f"{COMMITMENT}: unknown kind of answers") from error
    items = predicate.items("candidates", max_items=MAX_CANDIDATES)
    lineup = LineUp(
        seal_sha256=predicate.hex("seal_sha256", n_bytes=32),
        placed=tuple(_placed(item) for item in items),
        revealed=revealed,
        n_outputs=predicate.integer("n_outputs", low=2, high=MAX_OUTPUTS),
        custodian_public_key=predicate.hex("custodian_public_key", n_bytes=32),
        committed_at=check_utc(predicate.text("committed_at"), what=COMMITMENT),
        tool_version=predicate.text("tool_version", max_length=100),
    )
    predicate.finish()
    labels = [each.label for each in lineup.placed]
    if len(labels) < MIN_CANDIDATES or labels != [label_of(i) for i in range(len(labels))]:
        raise MalformedError(f"{COMMITMENT}: the labels are not A, B, C … in order")
    if len({each.place for each in lineup.placed}) != len(labels):
        raise MalformedError(f"{COMMITMENT}: two candidates stand at one place")
    if _root(lineup.placed) != found.subject_sha256:
        raise SealError(f"{COMMITMENT}: the leaves do not lead to the signed root")
    return lineup


def _placed(item: JsonValue) -> Placed:
    fields = Fields(item, what=f"{COMMITMENT}.candidates")
    placed = Placed(
        label=_label(fields.text("label"), what=COMMITMENT),
        place=fields.hex("place", n_bytes=PLACE_BYTES),
        leaf=fields.hex("leaf", n_bytes=HASH_BYTES),
    )
    fields.finish()
    return placed


def _opening_from(data: bytes) -> OpenedLineUp:
    found: Statement = read_statement(data, predicate_type=OPENING_TYPE, what=OPENING)
    predicate = found.predicate
    if found.subject_name != COMMITMENT:
        raise MalformedError(f"{OPENING}: the subject is not a line-up")
    items = predicate.items("candidates", max_items=MAX_CANDIDATES)
    opened = OpenedLineUp(
        commitment_sha256=found.subject_sha256,
        candidates=tuple(candidate_from(item, what=f"{OPENING}.candidates") for item in items),
        record_sha256=predicate.hex("record_sha256"),
        custodian_public_key=predicate.hex("custodian_public_key", n_bytes=32),
        opened_at=check_utc(predicate.text("opened_at"), what=OPENING),
        tool_version=predicate.text("tool_version", max_length=100),
    )
    predicate.finish()
    if len(opened.record_sha256) not in (0, 64):
        raise MalformedError(f"{OPENING}: the relay's record is named by its SHA-256")
    return opened


def _label(text: str, *, what: str) -> str:
    if not _LABEL.fullmatch(text):
        raise MalformedError(f"{what}: a label is one or two capital letters")
    return text


def placed_of(candidates: Sequence[Candidate]) -> tuple[Placed, ...]:
    """Return what the commitment says of candidates."""
    return tuple(Placed(label=each.label, place=each.place, leaf=each.leaf) for each in candidates)


def by_label(opened: OpenedLineUp) -> Mapping[str, Candidate]:
    """Return the candidates by their labels."""
    return {candidate.label: candidate for candidate in opened.candidates}
