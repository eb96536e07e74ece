"""The judge's re-check of a bundle: fixed steps in a fixed order, none of which believes a stored conclusion.

 1 container: names, kinds, sizes and number of files
 2 manifest: every file present and unaltered, nothing else there
 3 signatures: examiner over manifest and transcript head, owner over the seal; refused keys; identities agree
 4 expected keys: fingerprints the judge got from elsewhere
 5 trusted time: tokens over seal, transcript head and manifest, under the caller's roots, in the order of an audit
 6 seal: the opened samples lead to the sealed root; the protocol is the sealed one
 7 transcript: chain, pairing, counts; a raw body for every response
 8 raw answers: read again from the bodies, equal to the recorded ones
 9 questions: asked in the order drawn from the sealed seed, with the sealed inputs; opened are exactly the asked
10 judge's randomness
11 times, custody and environment agree
12 results: every number recomputed from the answers, equal byte for byte
13 error rates on a panel of independent models
14 opinion: the words follow from the number
15 report.html: rendered again, equal byte for byte
16 report.pdf: signature, coverage, attachments
17 generation: the key set, which the judge holds, follows from seed, commitment and randomness
18 further signatures over the manifest: valid, and the demanded ones present
19 custody after signing: the log that goes on is whole, and what it names is still there
20 declarations: what only a person can say, and the revisions of the report that were issued with it
21 the PDF's certificate leads to a root that the caller brings
22 revocation: certificates of time authorities and of the PDF, against lists that the caller brings

A step that fails leaves those that build on it unchecked. Nothing inside the bundle is trusted as a root.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import AuditorError, EvidenceError, MissingPartError
from auditor.evidence.checks import after_signing, conclusion, identity, record, revoked, signer
from auditor.evidence.checks.base import (
    CheckIssued,
    CheckOutcome,
    CheckPdf,
    CheckReport,
    CheckStep,
    Expected,
    NotCheckedError,
    RenderHtml,
    SignerPath,
    Verified,
)
from auditor.evidence.generation import OpenKeySet

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

__all__ = ["CheckIssued", "CheckOutcome", "CheckPdf", "CheckReport", "CheckStep", "RenderHtml", "check_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    title: str
    work: Callable[[Verified], str]
    """Returns what was found; raises when it does not check out."""
    needs: tuple[int, ...] = ()
    """Steps that must have passed."""


STEPS = (
    _Step(title="container limits", work=identity.container),
    _Step(title="manifest and file digests", work=identity.manifest, needs=(1,)),
    _Step(title="signatures", work=identity.signatures, needs=(2,)),
    _Step(title="expected keys", work=identity.identities, needs=(3,)),
    _Step(title="trusted time", work=identity.trusted_time, needs=(3,)),
    _Step(title="seal, openings and protocol", work=identity.sealed_samples, needs=(3,)),
    _Step(title="transcript", work=record.recorded_answers, needs=(3,)),
    _Step(title="raw answers read again", work=record.raw_answers, needs=(7,)),
    _Step(title="order of the questions", work=record.questions, needs=(6, 7)),
    _Step(title="judge's randomness", work=record.judges_randomness, needs=(9,)),
    _Step(title="times, custody, environment", work=record.order_of_events, needs=(7,)),
    _Step(title="results recomputed", work=conclusion.results, needs=(8, 9)),
    _Step(title="error rates on a panel", work=conclusion.panel, needs=(12,)),
    _Step(title="opinion follows from the numbers", work=conclusion.opinion, needs=(12,)),
    _Step(title="report.html rendered again", work=conclusion.html, needs=(12,)),
    _Step(title="report.pdf", work=conclusion.pdf, needs=(12,)),
    _Step(title="generation of the keys", work=identity.generation, needs=(6,)),
    _Step(title="further signatures", work=after_signing.cosignatures, needs=(3,)),
    _Step(title="custody after signing", work=after_signing.later_custody, needs=(3,)),
    _Step(title="declarations and issued reports", work=after_signing.issued_reports, needs=(3,)),
    _Step(title="certificate of the PDF", work=signer.chain, needs=(16, 20)),
    _Step(title="revocation of certificates", work=revoked.revocation, needs=(5,)),
)
"""All steps; the place in this list, from 1, is the step's number."""


def check_bundle(
    path: Path,
    *,
    owner_fingerprint: str | None,
    examiner_fingerprint: str | None,
    render_html: RenderHtml | None,
    check_pdf: CheckPdf | None,
    tsa_roots: Sequence["Certificate"] = (),
    open_keyset: OpenKeySet | None = None,
    judge_nonce: bytes | None = None,
    drawn_with: bytes | None = None,
    witness_fingerprints: Sequence[str] = (),
    custody_head: str | None = None,
    check_issued: CheckIssued | None = None,
    crls: Sequence["CertificateRevocationList"] = (),
    trust_roots: Sequence["Certificate"] = (),
    signer_path: SignerPath | None = None,
) -> CheckReport:
    """Check a bundle and return what every step found; broken evidence never raises.

    Args:
        path: the bundle's folder.
        owner_fingerprint: fingerprint the owner's key must have; None leaves that unchecked.
        examiner_fingerprint: fingerprint the examiner's key must have; None leaves that unchecked.
        render_html: None leaves ``report.html`` unchecked.
        check_pdf: None leaves ``report.pdf`` unchecked.
        tsa_roots: trusted certificates of time authorities; none leaves time stamps unverified.
        open_keyset: None leaves the generation of the keys unchecked.
        judge_nonce: the nonce that the judge gave; None leaves unchecked whose nonce drew the order.
        drawn_with: the public randomness, as whoever drew it gives it; None leaves the keys' draw unconfirmed.
        witness_fingerprints: keys whose further signature is demanded.
        custody_head: a head of the later custody log, noted elsewhere, that the log must still contain.
        check_issued: None leaves the reports of issued revisions unchecked.
        crls: revocation lists of the authorities; none leaves revocation unchecked.
        trust_roots: trusted certificates for whoever signed the PDF; none leaves that unchecked.
        signer_path: builds the chain to them; None leaves it unchecked.
    """
    expected = Expected(
        owner_fingerprint=owner_fingerprint,
        examiner_fingerprint=examiner_fingerprint,
        render_html=render_html,
        check_pdf=check_pdf,
        check_issued=check_issued,
        tsa_roots=tsa_roots,
        open_keyset=open_keyset,
        judge_nonce=judge_nonce,
        drawn_with=drawn_with,
        witness_fingerprints=witness_fingerprints,
        custody_head=custody_head,
        crls=crls,
        trust_roots=trust_roots,
        signer_path=signer_path,
    )
    case = Verified(path, expected)
    done: list[CheckStep] = []
    failed: set[int] = set()
    for number, step in enumerate(STEPS, start=1):
        broken = sorted(failed.intersection(step.needs))
        outcome, detail = (
            _carry_out(step, case) if not broken else (CheckOutcome.NOT_CHECKED, f"step {broken[0]} failed")
        )
        if broken or outcome is CheckOutcome.FAIL:
            failed.add(number)
        done.append(CheckStep(number=number, title=step.title, outcome=outcome, detail=detail))
    return CheckReport(steps=tuple(done))


def _carry_out(step: _Step, case: Verified) -> tuple[CheckOutcome, str]:
    try:
        return CheckOutcome.PASS, step.work(case)
    except (NotCheckedError, MissingPartError) as reason:
        return CheckOutcome.NOT_CHECKED, str(reason)
    except EvidenceError as error:
        return CheckOutcome.FAIL, str(error)
    except AuditorError as error:
        return CheckOutcome.FAIL, f"the step ended with an error: {error}"
