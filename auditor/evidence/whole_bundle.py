"""A bundle that checks out, with what comparisons between bundles need of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.canonical import Fields, JsonValue, parse_canonical_object, sha256_hex
from auditor.errors import EvidenceError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import Bundle, read_bundle
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.seal import Seal, open_seal
from auditor.evidence.signing import fingerprint, public_from_pem
from auditor.evidence.timestamps import TokenState, verify_tokens
from auditor.evidence.token_files import tokens_among
from auditor.evidence.transcript import Transcript, read_transcript
from auditor.records import SuspectId
from auditor.results import Headline, headline

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedTime:
    """The earliest verified time stamp over a file: the file existed then."""

    at: str
    """RFC 3339 UTC with milliseconds."""
    accuracy_ms: int
    """How far ``at`` may be off by the authority's own account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeBundle:
    """A bundle none of whose steps failed."""

    bundle: Bundle = field(repr=False)
    seal: Seal
    seal_sha256: str
    manifest_sha256: str
    transcript: Transcript = field(repr=False)
    results: Mapping[str, JsonValue] = field(repr=False)
    owner_fingerprint: str
    examiner_fingerprint: str
    seal_time: TrustedTime | None
    """None: no time stamp over the seal verifies under the caller's roots."""
    n_unchecked: int
    """Steps that could not be carried out."""

    @property
    def headline(self) -> Headline:
        """The figures that fit on one line."""
        return headline(self.results)

    @property
    def log10_e(self) -> float:
        """log10 of the largest e-value reached."""
        return Fields(self.results, what=paths.RESULTS).object("test").decimal("log10_e")

    @property
    def family(self) -> int:
        """Questions by whose number the level was divided."""
        return Fields(self.results, what=paths.RESULTS).object("multiplicity").integer("family", low=1)

    @property
    def suspect(self) -> SuspectId:
        """What was under test, as the transcript's preamble names it."""
        fields = Fields(self.transcript.preamble.get("suspect"), what="preamble.suspect")
        return SuspectId(
            uri=fields.text("uri"),
            kind=fields.text("kind"),
            artefact_sha256=fields.text("artefact_sha256"),
            address=fields.text("address"),
            declared_name=fields.text("declared_name"),
        )


def read_whole(
    folder: Path,
    *,
    what: str,
    owner_fingerprint: str | None = None,
    examiner_fingerprint: str | None = None,
    tsa_roots: Sequence["Certificate"] = (),
) -> WholeBundle:
    """Check a bundle from the raw answers up and read what comparisons need.

    Raises:
        EvidenceError: a step failed; the message names bundle and step.
    """
    report = check_bundle(
        folder,
        owner_fingerprint=owner_fingerprint,
        examiner_fingerprint=examiner_fingerprint,
        render_html=None,
        check_pdf=None,
        tsa_roots=tsa_roots,
    )
    for step in report.steps:
        if step.outcome is CheckOutcome.FAIL:
            raise EvidenceError(f"{what} does not check out: {step.title}: {step.detail}")
    bundle = read_bundle(folder)
    contents = bundle.contents
    examiner = public_from_pem(contents[paths.EXAMINER_KEY], what=paths.EXAMINER_KEY)
    seal = open_seal(contents[paths.SEAL])
    return WholeBundle(
        bundle=bundle,
        seal=seal,
        seal_sha256=sha256_hex(contents[paths.SEAL]),
        manifest_sha256=sha256_hex(bundle.manifest),
        transcript=read_transcript(contents[paths.TRANSCRIPT]),
        results=parse_canonical_object(contents[paths.RESULTS], what=paths.RESULTS),
        owner_fingerprint=fingerprint(bytes.fromhex(seal.owner_public_key)),
        examiner_fingerprint=fingerprint(examiner),
        seal_time=earliest_time(tokens_among(contents, paths.SEAL), data=contents[paths.SEAL], roots=tsa_roots),
        n_unchecked=sum(step.outcome is CheckOutcome.NOT_CHECKED for step in report.steps),
    )


def earliest_time(tokens: Mapping[str, bytes], *, data: bytes, roots: Sequence["Certificate"]) -> TrustedTime | None:
    """Return the earliest time that verifies under the caller's roots; None where no token does.

    Raises:
        TimestampError: a token is malformed or over other bytes.
    """
    found = [
        TrustedTime(at=finding.token.stamped_at, accuracy_ms=finding.token.accuracy_ms)
        for finding in verify_tokens(tokens, data=data, roots=roots)
        if finding.state is TokenState.VERIFIED
    ]
    return min(found, key=lambda time: time.at) if found else None
