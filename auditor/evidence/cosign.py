"""Further signatures over a finished bundle: by a witness, a judge, or the owner.

Each lies in a file of its own, ``cosignatures/FINGERPRINT.dsse.json``: a signed in-toto statement whose subject is
``manifest.json`` and whose predicate names role, key, time and a note. The examiner's own envelope stays as it is, so
that time stamps over it keep their meaning.

A cosignature says that the holder of its key vouches for these bytes at that time by their own clock. Who holds the
key is for the reader to know; that a cosignature was removed shows only where the custody log still names it, or to
who demands it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.canonical import JsonValue, sha256_hex
from auditor.errors import MalformedError, SealError
from auditor.evidence.acts import CosignerRole
from auditor.evidence.manifest import COSIGNATURE_FOLDER, MANIFEST, Endorsement
from auditor.evidence.signing import (
    SigningKey,
    envelope,
    fingerprint,
    public_from_pem,
    read_envelope,
    verify_envelope,
)
from auditor.evidence.statements import PAYLOAD_TYPE, read_statement, statement_bytes
from auditor.evidence.times import check_utc

PREDICATE_TYPE = "https://model-ownership-auditor.example/cosignature/v1"
MAX_NOTE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """What a cosigner signed beside the manifest's digest."""

    role: CosignerRole
    public: bytes
    """Raw Ed25519 key, 32 bytes."""
    note: str
    signed_at: str
    """The cosigner's clock, RFC 3339 UTC with milliseconds."""
    tool_version: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the key, hex."""
        return fingerprint(self.public)


def cosignature_path(key_fingerprint: str) -> str:
    """Return where a cosignature under this key lies in a bundle."""
    return f"{COSIGNATURE_FOLDER}/{key_fingerprint}.dsse.json"


def sign_cosignature(manifest: bytes, cosignature: Cosignature, *, key: SigningKey) -> bytes:
    """Return the bytes of a cosignature over a manifest."""
    if cosignature.public != key.public:
        raise ValueError("a cosignature is made with the key it names")
    predicate: dict[str, JsonValue] = {
        "role": cosignature.role.value,
        "public_key_pem": key.public_pem().decode("ascii"),
        "note": cosignature.note,
        "signed_at": cosignature.signed_at,
        "tool_version": cosignature.tool_version,
    }
    payload = statement_bytes(
        subject_name=MANIFEST,
        subject_sha256=sha256_hex(manifest),
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )
    return envelope(payload, payload_type=PAYLOAD_TYPE, keys=[key])


def verify_cosignature(data: bytes, *, manifest: bytes, path: str, endorsement: Endorsement) -> Cosignature:
    """Verify one cosignature against its manifest and its own place; who holds the key is for the caller.

    Raises:
        MalformedError: not a cosignature in the one accepted spelling.
        SignatureError: it does not verify, or under a key that is refused.
        SealError: it is over another manifest, lies under another key's name, or claims a role that is not its own.
    """
    found = read_statement(read_envelope(data, what=path).payload, predicate_type=PREDICATE_TYPE, what=path)
    predicate = found.predicate
    public = public_from_pem(predicate.text("public_key_pem", max_length=1024).encode("utf-8"), what=path)
    try:
        role = CosignerRole(predicate.text("role", max_length=40))
    except ValueError as error:
        raise MalformedError(f"{path}: unknown role") from error
    cosignature = Cosignature(
        role=role,
        public=public,
        note=predicate.text("note", max_length=MAX_NOTE),
        signed_at=check_utc(predicate.text("signed_at"), what=path),
        tool_version=predicate.text("tool_version", max_length=100),
    )
    predicate.finish()
    verify_envelope(data, payload_type=PAYLOAD_TYPE, public_keys=[public], what=path)
    if (found.subject_name, found.subject_sha256) != (MANIFEST, sha256_hex(manifest)):
        raise SealError(f"{path}: signs another manifest")
    if path != cosignature_path(cosignature.fingerprint):
        raise SealError(f"{path}: is not by the key it is named after")
    _check_role(cosignature, endorsement)
    return cosignature


def cosignatures_among(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the cosignatures among a bundle's later files, by path."""
    return {path: data for path, data in files.items() if path.startswith(f"{COSIGNATURE_FOLDER}/")}


def role_problem(role: CosignerRole, key_fingerprint: str, endorsement: Endorsement) -> str:
    """Return why a key may not sign in a role, or an empty text."""
    if key_fingerprint == endorsement.examiner_fingerprint:
        return "the examiner's own key adds nothing to the examiner's signature"
    if (role is CosignerRole.OWNER) != (key_fingerprint == endorsement.owner_fingerprint):
        return "the owner's role and the key of the seal belong together"
    return ""


def _check_role(cosignature: Cosignature, endorsement: Endorsement) -> None:
    problem = role_problem(cosignature.role, cosignature.fingerprint, endorsement)
    if problem:
        raise SealError(f"{cosignature_path(cosignature.fingerprint)[:30]}…: {problem}")
    if cosignature.signed_at < endorsement.signed_at:
        raise SealError(f"the {cosignature.role.value} states a time before the manifest was signed")
