"""Annexes as files of their own: the draft certificate under FRE 902(13)/(14) and the map to FRE 702.

Pure functions of the evidence, like the report. The certificate is filled in as far as software can, and never signed.
"""

from auditor.evidence import manifest as paths
from auditor.report import drawn_labels, drawn_table, provenance, view, wording
from auditor.report.declared import declared, state
from auditor.report.html import render_template
from auditor.report.inputs import REQUIRED, ReportInput, Tree
from auditor.report.text import clean, level, rate
from auditor.report.view import Row, digest

CERTIFICATE_TEMPLATE = "annex-902.html.j2"
MAP_TEMPLATE = "annex-702.html.j2"
RECORDS = (*REQUIRED, paths.OPENINGS)
"""The records that the certificate is about, each named by its digest."""


def render_annexes(given: ReportInput) -> dict[str, bytes]:
    """Render both annexes of the report's first revision, by their paths in a bundle."""
    return {paths.CERTIFICATE_902: render_certificate(given), paths.MAP_702: render_map(given)}


def render_certificate(given: ReportInput) -> bytes:
    """Render the draft of a certificate under FRE 902(13) and 902(14), unsigned.

    Raises:
        MalformedError: the results lack a field.
    """
    tree = Tree(given.results, "results.json")
    environment = given.environment
    tool = ", ".join(
        f"{name} {clean(str(environment[name]))}" for name in ("auditor", "python", "platform") if name in environment
    )
    return render_template(
        CERTIFICATE_TEMPLATE,
        {
            **_common(given, title="Draft certificate, Federal Rules of Evidence 902(13) and 902(14)"),
            # Whatever a person declared about the report, the certificate still has to be signed by hand.
            "state": "DRAFT",
            "suspect_uri": clean(tree.text("/suspect/uri"), limit=120),
            "opened_at": clean(given.opened_at, limit=40),
            "closed_at": clean(given.closed_at, limit=40),
            "total": f"{tree.integer('/queries/total'):,}",
            "failed": f"{tree.integer('/queries/failed'):,}",
            "lines": f"{given.counts.get('lines', 0):,}",
            "tool": tool or "not recorded",
            "transcript_head": digest(given.transcript_head),
            "examiner_fingerprint": digest(given.examiner_fingerprint),
            "records": [(name, digest(given.digests[name])) for name in sorted(RECORDS) if name in given.digests],
        },
    )


def render_map(given: ReportInput) -> bytes:
    """Render the map from the elements of FRE 702 (a) to (d) to what the report offers and leaves open.

    Raises:
        MalformedError: the results lack a field, or contradict themselves.
    """
    tree = Tree(given.results, "results.json")
    view.check_ranges(tree)
    outcome = view.read_outcome(tree)
    opinion = "no likelihood ratio is reported and no band applies"
    if outcome.lr is not None:
        limited = "the measured error rate" if tree.text("/opinion/limited_by") == "error rate" else "the null model"
        opinion = f"the words follow from the weaker of two limits, here {limited}"
    offered = (
        (
            f"Propositions H1 and H2 were sealed before the suspect was asked. Outcome: {outcome.status.value}. "
            "Observations, calculation and opinion are stated apart, with what the outcome does not mean.",
        ),
        (
            f"{tree.integer('/queries/total'):,} questions were issued, {tree.integer('/queries/failed'):,} stayed "
            f"without an answer. {_found(tree)}. Every issued question counts; raw answers are kept by digest.",
        ),
        (
            f"The plan was sealed with a level of {level(tree.number('/test/alpha'))}; the null rate used is "
            f"{rate(tree.number('/null/rate'))}. Error rates found on this suspect stand in section 5 with exact upper "
            "bounds. The method is novel, and section 9 lists alternative explanations.",
        ),
        (
            f"Every number can be recomputed from the raw answers by anybody (auditor check); {opinion}. Deviations "
            f"from the sealed plan: {_deviations(tree)}.",
        ),
    )
    left = (
        "Whether the question matters for the case, which is for the court.",
        "Whether the items examined are the right ones: provenance of model, keys and suspect.",
        "Fitness of the method for this kind of suspect, and the range of opinion in the field.",
        "That the expert applied the method reliably, and holds the opinion as the expert's own.",
    )
    rows = [
        (element, f"{content} {text}", where, open_point)
        for (element, content, where), (text,), open_point in zip(wording.FRE_702, offered, left, strict=True)
    ]
    return render_template(
        MAP_TEMPLATE,
        {**_common(given, title="Where each element of Federal Rule of Evidence 702 is met"), "rows": rows},
    )


def _found(tree: Tree) -> str:
    hits = f"{tree.integer('/detection/hits')} of {tree.integer('/detection/trials')}"
    if drawn_table.applies(tree):
        return f"In {hits} cells {drawn_table.led(tree)} {drawn_table.comparison(tree)}"
    return f"The suspect gave the sealed answer to {hits} key samples {drawn_labels.comparison(tree)}"


def _deviations(tree: Tree) -> str:
    found = [clean(str(item), limit=400) for item in tree.items("/deviations")]
    return "; ".join(found) if found else "none"


def _common(given: ReportInput, *, title: str) -> dict[str, object]:
    said = declared(given)
    issued = clean(given.issued_at or given.closed_at, limit=40)
    return {
        **state(given),
        "title": title,
        "report_id": given.report_id,
        "revision": given.revision,
        "issued": issued,
        "issued_day": issued[:10],
        "case_rows": (
            Row(label="Report", value=f"{given.report_id}, rev. {given.revision}"),
            Row(label="Case number", value=said["case.number"]),
            Row(label="Court, requester", value=said["case.court"]),
            Row(label="Examiner", value=provenance.joined(said["examiner.name"], said["examiner.role"])),
        ),
    }
