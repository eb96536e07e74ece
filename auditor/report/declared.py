"""What a person declared, as the report prints it; what is missing stays blank and makes the report a draft."""

from dataclasses import replace

from auditor.evidence.declarations import FORM, MAX_TEXT, Declarations
from auditor.evidence.issue import Issue
from auditor.evidence.manifest import ANNEXES
from auditor.report.inputs import ReportInput
from auditor.report.text import clean
from auditor.report.wording import BANNED

DRAFT, FINAL = "DRAFT", "FINAL"

COMMENTED: dict[str, str] = {
    "Common ancestor": "alternatives.common_ancestor",
    "Shared training data": "alternatives.shared_training_data",
    "Distillation from a third party": "alternatives.third_party",
    "Transferable keys": "alternatives.transferable_keys",
    "Wrapper or ensemble behind the endpoint": "alternatives.wrapper",
    "Nondeterminism": "alternatives.nondeterminism",
    "Drift between questions": "alternatives.drift",
    "Bank of independent models too small": "alternatives.small_bank",
    "Keys leaked or published": "alternatives.keys_leaked",
    "Owner tried many secrets": "alternatives.many_secrets",
}
"""The form's field for the comment on each alternative explanation, by its title."""

DECLARED: tuple[str, ...] = (
    "examiner.qualifications",
    "examiner.testimony",
    "declarations.independence",
    "declarations.own_knowledge",
    "declarations.duty",
    "declarations.truth",
    "declarations.review",
)
"""The form's fields behind the lines of the section on declarations, in their order."""


def declared(given: ReportInput) -> dict[str, str]:
    """Return every field of the form as it is printed; empty where nothing was said."""
    values = {} if given.declarations is None else given.declarations.values
    return {field.path: clean(values.get(field.path, ""), limit=MAX_TEXT) for field in FORM}


def is_final(given: ReportInput) -> bool:
    """Return whether everything that only a person can say has been said about this very report."""
    return given.declarations is not None and not given.declarations.missing(given.report_id)


def revised(given: ReportInput, issue: Issue) -> ReportInput:
    """Return what a later revision of the report is made from."""
    return replace(
        given,
        revision=issue.revision,
        declarations=issue.declarations,
        issued_at=issue.signed_at,
        certificate_sha256=issue.report_certificate_sha256,
    )


def state(given: ReportInput) -> dict[str, object]:
    """Return the template's values for what a person declared and for the mark on every page."""
    said = declared(given)
    final = is_final(given)
    return {
        "declared": said,
        "final": final,
        "state": FINAL if final else DRAFT,
        "author": said["examiner.name"] or "examiner to be named",
        "annexes": [path for path in ANNEXES if path in given.digests],
        "comments": {title: said[path] for title, path in COMMENTED.items()},
    }


def overstating(declarations: Declarations) -> tuple[str, ...]:
    """Return the fields whose text holds a phrase that no sentence of the report itself may contain."""
    return tuple(
        f"{path}: {phrase!r}"
        for path, text in declarations.values.items()
        for phrase in BANNED
        if phrase in text.lower()
    )
