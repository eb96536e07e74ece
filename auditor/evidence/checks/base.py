"""What the steps of the re-check share: outcomes, what the caller expects, and what earlier steps verified."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.canonical import JsonValue
from auditor.evidence.bundle import Bundle
from auditor.evidence.generation import OpenKeySet
from auditor.evidence.head import SignedHead
from auditor.evidence.issue import Issue
from auditor.evidence.manifest import Endorsement
from auditor.evidence.openings import Opening
from auditor.evidence.seal import Seal
from auditor.evidence.transcript import Transcript

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

RenderHtml = Callable[[Bundle], bytes]
"""Renders ``report.html`` again from a bundle's evidence."""
CheckPdf = Callable[[Bundle], str]
"""Checks ``report.pdf`` and says what it found; raises an :class:`EvidenceError` when it does not check out."""

SignerPath = Callable[[bytes, "Certificate", datetime, Sequence["Certificate"]], Sequence["Certificate"]]
"""Returns the verified chain from a signed PDF's certificate to one of the caller's roots, valid at a time; raises an
:class:`EvidenceError` when there is none."""

CheckIssued = Callable[[Bundle, Issue], str]
"""Checks the files of an issued revision of the report and says what it found, as :data:`CheckPdf` does."""


class CheckOutcome(StrEnum):
    """What a step found."""

    PASS = "PASS"
    FAIL = "FAIL"
    NOT_CHECKED = "NOT CHECKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckStep:
    """One step of the re-check."""

    number: int
    title: str
    outcome: CheckOutcome
    detail: str
    """What was found, or why it was not checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All steps in order."""

    steps: tuple[CheckStep, ...]

    @property
    def intact(self) -> bool:
        """True when no step failed; steps may still be unchecked."""
        return all(step.outcome is not CheckOutcome.FAIL for step in self.steps)

    @property
    def complete(self) -> bool:
        """True when every step was carried out and passed."""
        return all(step.outcome is CheckOutcome.PASS for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the caller brings along; nothing of it comes from the bundle."""

    owner_fingerprint: str | None
    examiner_fingerprint: str | None
    render_html: RenderHtml | None
    check_pdf: CheckPdf | None
    check_issued: CheckIssued | None
    tsa_roots: Sequence["Certificate"]
    open_keyset: OpenKeySet | None
    judge_nonce: bytes | None
    drawn_with: bytes | None
    witness_fingerprints: Sequence[str]
    custody_head: str | None
    crls: Sequence["CertificateRevocationList"]
    trust_roots: Sequence["Certificate"]
    signer_path: SignerPath | None


class Verified:
    """What the steps have verified so far; each is set by one step, for those that need it to have passed."""

    bundle: Bundle
    endorsement: Endorsement
    head: SignedHead
    seal: Seal
    openings: Mapping[int, Opening]
    transcript: Transcript
    results: Mapping[str, JsonValue]
    issues: Sequence[Issue]
    signer_paths: dict[str, tuple["Certificate", ...]]
    """Verified chains of certificates, itself first and a root last, by the PDF's path."""

    def __init__(self, path: Path, expected: Expected) -> None:
        self.path = path
        self.expected = expected
        self.issues = ()
        self.signer_paths = {}


class NotCheckedError(Exception):
    """A step could not be carried out; the message says why."""
