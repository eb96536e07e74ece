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

A step that fails leaves those that build on it unchecked. Nothing inside the bundle is trusted as a root.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.canonical import Fields, JsonValue, canonical_bytes, sha256_hex
from auditor.errors import (
    AuditorError,
    EvidenceError,
    MalformedError,
    MissingPartError,
    SealError,
    TranscriptError,
    UsageError,
)  # fmt: skip
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import Bundle, certificate_digest, list_files, read_bundle
from auditor.evidence.generation import OpenKeySet, rederive
from auditor.evidence.head import SignedHead, verify_head
from auditor.evidence.manifest import Endorsement, verify_manifest
from auditor.evidence.openings import Opening, read_openings
from auditor.evidence.order_of_events import check_order
from auditor.evidence.raw_answers import compare_raw_answers
from auditor.evidence.recompute import (
    check_opinion,
    first_difference,
    issued_replies,
    judge_nonce,
    planned_probes,
    recompute_results,
)
from auditor.evidence.seal import Seal, generation_problem, open_seal, protocol_object
from auditor.evidence.signing import fingerprint, public_from_pem
from auditor.evidence.transcript import Transcript, read_transcript
from auditor.evidence.trusted_time import check_times

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

RenderHtml = Callable[[Bundle], bytes]
"""Renders ``report.html`` again from a bundle's evidence."""
CheckPdf = Callable[[Bundle], str]
"""Checks ``report.pdf`` and says what it found; raises an :class:`EvidenceError` when it does not check out."""


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
    """
    checker = _Checker(
        path,
        owner_fingerprint=owner_fingerprint,
        examiner_fingerprint=examiner_fingerprint,
        render_html=render_html,
        check_pdf=check_pdf,
        tsa_roots=tsa_roots,
        open_keyset=open_keyset,
        judge_nonce=judge_nonce,
    )
    return checker.run()


class _NotCheckedError(Exception):
    """A step could not be carried out; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    title: str
    work: Callable[[], str]
    """Returns what was found; raises when it does not check out."""
    needs: tuple[int, ...] = ()
    """Steps that must have passed."""


class _Checker:
    """Goes through the steps once, forwards; each leaves what it verified for those after it."""

    _bundle: Bundle
    _endorsement: Endorsement
    _head: SignedHead
    _seal: Seal
    _openings: Mapping[int, Opening]
    _transcript: Transcript
    _results: Mapping[str, JsonValue]

    def __init__(
        self,
        path: Path,
        *,
        owner_fingerprint: str | None,
        examiner_fingerprint: str | None,
        render_html: RenderHtml | None,
        check_pdf: CheckPdf | None,
        tsa_roots: Sequence["Certificate"],
        open_keyset: OpenKeySet | None,
        judge_nonce: bytes | None,
    ) -> None:
        self._path = path
        self._owner_fingerprint = owner_fingerprint
        self._examiner_fingerprint = examiner_fingerprint
        self._render_html = render_html
        self._check_pdf = check_pdf
        self._tsa_roots = tsa_roots
        self._open_keyset = open_keyset
        self._judge_nonce = judge_nonce

    def run(self) -> CheckReport:
        steps = (
            _Step(title="container limits", work=self._container),
            _Step(title="manifest and file digests", work=self._manifest, needs=(1,)),
            _Step(title="signatures", work=self._signatures, needs=(2,)),
            _Step(title="expected keys", work=self._identities, needs=(3,)),
            _Step(title="trusted time", work=self._trusted_time, needs=(3,)),
            _Step(title="seal, openings and protocol", work=self._sealed_samples, needs=(3,)),
            _Step(title="transcript", work=self._recorded_answers, needs=(3,)),
            _Step(title="raw answers read again", work=self._raw_answers, needs=(7,)),
            _Step(title="order of the questions", work=self._questions, needs=(6, 7)),
            _Step(title="judge's randomness", work=self._judges_randomness, needs=(9,)),
            _Step(title="times, custody, environment", work=self._custody, needs=(7,)),
            _Step(title="results recomputed", work=self._recompute, needs=(8, 9)),
            _Step(title="error rates on a panel", work=self._panel, needs=(12,)),
            _Step(title="opinion follows from the numbers", work=self._opinion, needs=(12,)),
            _Step(title="report.html rendered again", work=self._html, needs=(12,)),
            _Step(title="report.pdf", work=self._pdf, needs=(12,)),
            _Step(title="generation of the keys", work=self._generation, needs=(6,)),
        )
        done: list[CheckStep] = []
        failed: set[int] = set()
        for number, step in enumerate(steps, start=1):
            broken = sorted(failed.intersection(step.needs))
            outcome, detail = _carry_out(step) if not broken else (CheckOutcome.NOT_CHECKED, f"step {broken[0]} failed")
            if broken or outcome is CheckOutcome.FAIL:
                failed.add(number)
            done.append(CheckStep(number=number, title=step.title, outcome=outcome, detail=detail))
        return CheckReport(steps=tuple(done))

    def _container(self) -> str:
        if not self._path.is_dir():
            raise MalformedError("no such folder")
        files = list_files(self._path)
        return f"{len(files)} files, {sum(size for _, size in files)} bytes, within the limits"

    def _manifest(self) -> str:
        self._bundle = read_bundle(self._path)
        return f"{len(self._bundle.entries)} files equal their digests; none missing, none extra"

    def _signatures(self) -> str:
        contents = self._bundle.contents
        examiner = public_from_pem(contents[paths.EXAMINER_KEY], what=paths.EXAMINER_KEY)
        owner = public_from_pem(contents[paths.OWNER_KEY], what=paths.OWNER_KEY)
        self._endorsement = verify_manifest(
            self._bundle.manifest, self._bundle.manifest_envelope, examiner_public=examiner
        )
        self._head = verify_head(contents[paths.HEAD_ENVELOPE], examiner_public=examiner)
        self._seal = open_seal(contents[paths.SEAL])
        certificate = contents.get(paths.REPORT_CERTIFICATE)
        told = self._endorsement
        agreements = (
            ("examiner's key", told.examiner_fingerprint, fingerprint(examiner)),
            ("owner's key", told.owner_fingerprint, fingerprint(owner)),
            ("seal's key", self._seal.owner_public_key, owner.hex()),
            ("seal's digest", told.seal_sha256, self._bundle.sha256(paths.SEAL)),
            ("head's seal", self._head.seal_sha256, self._bundle.sha256(paths.SEAL)),
            (
                "report's certificate",
                told.report_certificate_sha256,
                "" if certificate is None else certificate_digest(certificate),
            ),
        )
        for what, signed, found in agreements:
            if signed != found:
                raise SealError(f"the {what} is not the one that was signed")
        return f"owner {told.owner_fingerprint}, examiner {told.examiner_fingerprint}"

    def _identities(self) -> str:
        expected = (
            ("owner", self._owner_fingerprint, self._endorsement.owner_fingerprint),
            ("examiner", self._examiner_fingerprint, self._endorsement.examiner_fingerprint),
        )
        for role, wanted, found in expected:
            if wanted is not None and wanted.lower() != found:
                raise SealError(f"the {role}'s key is {found[:16]}…, not the expected one")
        open_roles = [role for role, wanted, _ in expected if wanted is None]
        if open_roles:
            raise _NotCheckedError(f"no fingerprint was given for: {', '.join(open_roles)}")
        return "owner and examiner signed with the expected keys"

    def _trusted_time(self) -> str:
        found = check_times(self._bundle, roots=self._tsa_roots)
        if not found.complete:
            raise _NotCheckedError(found.detail)
        return found.detail

    def _sealed_samples(self) -> str:
        contents = self._bundle.contents
        if contents[paths.PROTOCOL] != canonical_bytes(protocol_object(self._seal.protocol)) + b"\n":
            raise SealError(f"{paths.PROTOCOL} is not the sealed protocol")
        self._openings = read_openings(contents[paths.OPENINGS], seal=self._seal)
        return f"{len(self._openings)} opened samples lead to the sealed root; the protocol is the sealed one"

    def _recorded_answers(self) -> str:
        transcript = read_transcript(self._bundle.contents[paths.TRANSCRIPT])
        if transcript.head != self._endorsement.transcript_head:
            raise TranscriptError("the transcript's head is not the one that was signed")
        signed = (self._head.transcript_sha256, self._head.head, self._head.n_lines)
        if signed != (self._bundle.sha256(paths.TRANSCRIPT), transcript.head, transcript.n_lines):
            raise TranscriptError("the transcript is not the one whose head was signed before the analysis")
        recorded = {batch.response_sha256 for batch in transcript.batches if batch.response_sha256 is not None}
        raw = {entry.sha256 for path, entry in self._bundle.entries.items() if path.startswith(f"{paths.RAW_FOLDER}/")}
        if recorded - raw:
            raise TranscriptError("the raw body of an answer is missing")
        self._transcript = transcript
        answered = sum(batch.answers is not None for batch in transcript.batches)
        ending = (
            f"closed: {transcript.closed_reason}" if transcript.closed_reason else "not closed, read as interrupted"
        )
        unrecorded = f", {len(raw - recorded)} raw bodies without a line" if raw - recorded else ""
        batches = f"{answered} of {len(transcript.batches)} batches answered"
        return f"{transcript.n_lines} lines, {batches}{unrecorded}; {ending}"

    def _raw_answers(self) -> str:
        n_read, n_unknown = compare_raw_answers(self._path, self._transcript)
        if n_unknown:
            raise _NotCheckedError(
                f"{n_unknown} raw bodies are in a form this version cannot read; {n_read} answers agree"
            )
        return f"{n_read} answers equal those in the raw bodies"

    def _questions(self) -> str:
        protocol = self._seal.protocol
        replies = issued_replies(
            self._transcript, planned_probes(self._seal, self._transcript), max_keys=protocol.n_keys
        )
        asked = {reply.probe.index for reply in replies}
        if asked != set(self._openings):
            raise SealError("the opened samples are not exactly those that were asked")
        sample_of = {reply.probe.position: reply.probe.index for reply in replies}
        for batch in self._transcript.batches:
            digest = hashlib.sha256()
            for position in batch.positions:
                digest.update(self._openings[sample_of[position]].data)
            if digest.hexdigest() != batch.body_sha256:
                raise TranscriptError(f"batch {batch.batch} was not asked with the sealed inputs")
        drawn = "judge's nonce" if judge_nonce(self._transcript) else "sealed seed"
        return f"{len(replies)} questions in the order drawn from the {drawn}, with the sealed inputs"

    def _judges_randomness(self) -> str:
        nonce = judge_nonce(self._transcript)
        if self._judge_nonce is not None and nonce != self._judge_nonce:
            raise TranscriptError("the order was not drawn from the judge's nonce")
        if not nonce:
            raise _NotCheckedError("no judge's nonce was used; the order was drawn from the owner's sealed seed")
        if self._judge_nonce is None:
            raise _NotCheckedError(f"drawn from the nonce {nonce.hex()}; the judge's own was not given for comparison")
        return "the judge's nonce and the sealed root drew which keys were asked, and in what order"

    def _generation(self) -> str:
        problem = generation_problem(self._seal)
        if problem:
            raise _NotCheckedError(problem)
        if self._open_keyset is None:
            raise _NotCheckedError("the key set was not given, and only who holds it can derive it again")
        try:
            opened = self._open_keyset(self._bundle.contents[paths.SEAL])
        except UsageError as error:
            # An encrypted key set without the key to it says nothing against the evidence.
            raise _NotCheckedError(str(error)) from error
        return rederive(opened.keys, opened.seal).summary

    def _custody(self) -> str:
        return check_order(
            self._bundle, seal=self._seal, transcript=self._transcript, head=self._head, endorsement=self._endorsement
        )

    def _recompute(self) -> str:
        try:
            results = recompute_results(
                seal=self._seal,
                seal_sha256=sha256_hex(self._bundle.contents[paths.SEAL]),
                transcript=self._transcript,
                samples={index: opening.sample for index, opening in self._openings.items()},
                guard=self._bundle.contents.get(paths.GUARD, b""),
                data={index: opening.data for index, opening in self._openings.items()},
            )
        except (ArithmeticError, ValueError) as error:
            # The sealed numbers come from a stranger: a plan no test can be computed for is broken evidence.
            raise SealError(f"the sealed plan cannot be computed ({type(error).__name__})") from error
        if canonical_bytes(results) + b"\n" != self._bundle.contents[paths.RESULTS]:
            where = first_difference(self._bundle.contents[paths.RESULTS], results)
            raise TranscriptError(f"{paths.RESULTS} differs from what follows from the answers{where}")
        self._results = results
        verdict = Fields(results["verdict"], what=paths.RESULTS)
        return f"every number follows from the answers: {verdict.text('status')} ({verdict.text('reason')})"

    def _panel(self) -> str:
        null = self._results["null"]
        if isinstance(null, Mapping) and null.get("panel") is None:
            raise _NotCheckedError("the results use no panel of independent models")
        raise _NotCheckedError("this version cannot check a panel")

    def _opinion(self) -> str:
        return check_opinion(self._results["opinion"])

    def _html(self) -> str:
        stored = self._bundle.contents.get(paths.REPORT_HTML)
        if stored is None:
            raise _NotCheckedError(f"the bundle holds no {paths.REPORT_HTML}")
        if self._render_html is None:
            raise _NotCheckedError("rendering again was not asked for")
        if self._render_html(self._bundle) != stored:
            raise SealError(f"{paths.REPORT_HTML} differs from what this version renders from the evidence")
        return "equal byte for byte"

    def _pdf(self) -> str:
        if paths.REPORT_PDF not in self._bundle.contents:
            raise _NotCheckedError(f"the bundle holds no {paths.REPORT_PDF}")
        if self._check_pdf is None:
            raise _NotCheckedError("checking the PDF was not asked for")
        return self._check_pdf(self._bundle)


def _carry_out(step: _Step) -> tuple[CheckOutcome, str]:
    try:
        return CheckOutcome.PASS, step.work()
    except (_NotCheckedError, MissingPartError) as reason:
        return CheckOutcome.NOT_CHECKED, str(reason)
    except EvidenceError as error:
        return CheckOutcome.FAIL, str(error)
    except AuditorError as error:
        return CheckOutcome.FAIL, f"the step ended with an error: {error}"
