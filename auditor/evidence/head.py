"""The signed head of the transcript: what the examiner commits to before any statistic is computed.

``transcript.head.dsse.json`` is a signed in-toto statement over ``transcript.jsonl``. Once it is time-stamped, no
answer can be dropped or exchanged in the light of the results without both being later than they say.
"""

from dataclasses import dataclass

from auditor import __version__
from auditor.errors import SealError
from auditor.evidence.manifest import HEAD_ENVELOPE, TRANSCRIPT
from auditor.evidence.signing import SigningKey, envelope, verify_envelope
from auditor.evidence.statements import PAYLOAD_TYPE, read_statement, statement_bytes
from auditor.evidence.times import check_utc

PREDICATE_TYPE = "https://model-ownership-auditor.example/transcript-head/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """What the examiner signed about the transcript."""

    transcript_sha256: str
    head: str
    """Hash of the last line, hex; stands for all lines."""
    n_lines: int
    seal_sha256: str
    signed_at: str
    """The examiner's clock, RFC 3339 UTC with milliseconds."""
    tool_version: str = __version__


def sign_head(head: SignedHead, *, examiner: SigningKey) -> bytes:
    """Return the bytes of ``transcript.head.dsse.json``."""
    payload = statement_bytes(
        subject_name=TRANSCRIPT,
        subject_sha256=head.transcript_sha256,
        predicate_type=PREDICATE_TYPE,
        predicate={
            "transcript_head": head.head,
            "n_lines": head.n_lines,
            "seal_sha256": head.seal_sha256,
            "signed_at": head.signed_at,
            "tool_version": head.tool_version,
        },
    )
    return envelope(payload, payload_type=PAYLOAD_TYPE, keys=[examiner])


def verify_head(data: bytes, *, examiner_public: bytes) -> SignedHead:
    """Verify the examiner's signature and return what was signed; the caller compares it with the transcript.

    Raises:
        MalformedError: not a signed head in the one accepted spelling.
        SignatureError: the signature does not verify under this key.
        SealError: it is about another file.
    """
    payload = verify_envelope(data, payload_type=PAYLOAD_TYPE, public_keys=[examiner_public], what=HEAD_ENVELOPE)
    found = read_statement(payload, predicate_type=PREDICATE_TYPE, what=HEAD_ENVELOPE)
    if found.subject_name != TRANSCRIPT:
        raise SealError(f"{HEAD_ENVELOPE}: is about another file")
    predicate = found.predicate
    head = SignedHead(
        transcript_sha256=found.subject_sha256,
        head=predicate.hex("transcript_head", n_bytes=32),
        n_lines=predicate.integer("n_lines", low=1),
        seal_sha256=predicate.hex("seal_sha256", n_bytes=32),
        signed_at=check_utc(predicate.text("signed_at"), what=HEAD_ENVELOPE),
        tool_version=predicate.text("tool_version", max_length=100),
    )
    predicate.finish()
    return head
