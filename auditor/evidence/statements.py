"""in-toto statements (v1): what a signature says about which bytes."""

from dataclasses import dataclass

from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_canonical_object
from auditor.errors import MalformedError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement of one predicate about one subject."""

    subject_name: str
    subject_sha256: str
    predicate: Fields


def statement_bytes(
    *, subject_name: str, subject_sha256: str, predicate_type: str, predicate: dict[str, JsonValue]
) -> bytes:
    """Return the canonical bytes of a statement, without a final newline."""
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": subject_name, "digest": {"sha256": subject_sha256}}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def read_statement(data: bytes, *, predicate_type: str, what: str) -> Statement:
    """Parse a statement with exactly one subject; the caller reads the predicate's fields.

    Raises:
        MalformedError: not a canonical statement, or of another type or version.
    """
    fields = Fields(parse_canonical_object(data, what=what), what=what)
    if data.endswith(b"\n") or fields.text("_type") != STATEMENT_TYPE:
        raise MalformedError(f"{what}: not an in-toto statement of version 1")
    if fields.text("predicateType") != predicate_type:
        raise MalformedError(f"{what}: not a statement of type {predicate_type}")
    subjects = fields.items("subject", max_items=1)
    if len(subjects) != 1:
        raise MalformedError(f"{what}: needs exactly one subject")
    subject = Fields(subjects[0], what=f"{what}.subject")
    name = subject.text("name", max_length=255)
    digest = subject.object("digest")
    sha256 = digest.hex("sha256", n_bytes=32)
    digest.finish()
    subject.finish()
    predicate = fields.object("predicate")
    fields.finish()
    return Statement(subject_name=name, subject_sha256=sha256, predicate=predicate)
