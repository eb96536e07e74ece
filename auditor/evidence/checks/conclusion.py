"""Steps that repeat what was concluded: results, error rates, opinion, and both forms of the report."""

from collections.abc import Mapping

from auditor.canonical import Fields, canonical_bytes, sha256_hex
from auditor.errors import SealError, TranscriptError
from auditor.evidence import manifest as paths
from auditor.evidence.checks.base import NotCheckedError, Verified
from auditor.evidence.recompute import check_opinion, first_difference, panel_of, recompute_results


def results(case: Verified) -> str:
    """Every number follows from the answers, byte for byte."""
    stored = case.bundle.contents[paths.RESULTS]
    try:
        found = recompute_results(
            seal=case.seal,
            seal_sha256=sha256_hex(case.bundle.contents[paths.SEAL]),
            transcript=case.transcript,
            samples={index: opening.sample for index, opening in case.openings.items()},
            guard=case.bundle.contents.get(paths.GUARD, b""),
            data={index: opening.data for index, opening in case.openings.items()},
        )
    except (ArithmeticError, ValueError) as error:
        # The sealed numbers come from a stranger: a plan no test can be computed for is broken evidence.
        raise SealError(f"the sealed plan cannot be computed ({type(error).__name__})") from error
    if canonical_bytes(found) + b"\n" != stored:
        where = first_difference(stored, found)
        raise TranscriptError(f"{paths.RESULTS} differs from what follows from the answers{where}")
    case.results = found
    verdict = Fields(found["verdict"], what=paths.RESULTS)
    return f"every number follows from the answers: {verdict.text('status')} ({verdict.text('reason')})"


def panel(case: Verified) -> str:
    """Error rates on a panel of independent models."""
    null = case.results["null"]
    if isinstance(null, Mapping) and null.get("panel") is None:
        raise NotCheckedError("the results use no panel of independent models")
    recorded = panel_of(case.transcript, seal=case.seal)
    if recorded is None:
        raise TranscriptError("the results name a panel that the preamble does not record")
    return (
        f"{len(recorded.models)} models, recorded before the first question; their figures follow from the record, "
        "their independence is for whoever made it to show"
    )


def opinion(case: Verified) -> str:
    """The words follow from the number."""
    return check_opinion(case.results["opinion"])


def html(case: Verified) -> str:
    """``report.html`` rendered again is equal byte for byte."""
    stored, render = case.bundle.contents.get(paths.REPORT_HTML), case.expected.render_html
    if stored is None:
        raise NotCheckedError(f"the bundle holds no {paths.REPORT_HTML}")
    if render is None:
        raise NotCheckedError("rendering again was not asked for")
    if render(case.bundle) != stored:
        raise SealError(f"{paths.REPORT_HTML} differs from what this version renders from the evidence")
    return "equal byte for byte"


def pdf(case: Verified) -> str:
    """Signature, coverage and attachments of ``report.pdf``."""
    if paths.REPORT_PDF not in case.bundle.contents:
        raise NotCheckedError(f"the bundle holds no {paths.REPORT_PDF}")
    if case.expected.check_pdf is None:
        raise NotCheckedError("checking the PDF was not asked for")
    return case.expected.check_pdf(case.bundle)
