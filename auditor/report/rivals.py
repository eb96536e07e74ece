"""The page of two rival claims: a function of their comparison alone, alike for both sides."""

from collections.abc import Mapping

from auditor.canonical import Fields, JsonValue
from auditor.evidence.rivals import Ruling
from auditor.report import html
from auditor.report.text import clean, p_value, power_of_ten

TEMPLATE = "rivals.html.j2"
WHAT = "finding.json"
TITLE = "Two claims on one model: which came first?"
NO_TEST = "not done"

SENTENCES: Mapping[Ruling, tuple[str, str]] = {
    Ruling.NEITHER: (
        "Neither claim on the suspect is supported.",
        "There is nothing to order.",
    ),
    Ruling.ONE: (
        "Claim {x} is supported, claim {y} is not.",
        "The suspect answers the keys of claim {x}. On claim {y} the audit ended as shown below; an inconclusive end "
        "refutes nothing.",
    ),
    Ruling.UNDERNEATH: (
        "Mark {x} lies underneath mark {y}.",
        "The model that claimant {y} sealed as its own answers the keys of claim {x}, and the model that claimant {x} "
        "sealed does not answer those of claim {y}. A model that is marked a second time, over an earlier mark, looks "
        "like this; one that was marked first does not.",
    ),
    Ruling.EARLIER: (
        "Both claims are supported; seal {x} is earlier by trusted time.",
        "A time authority stamped seal {x} before another stamped seal {y}, by more than both state they may be off. "
        "The cross-tests, as far as they were done, put neither mark underneath the other.",
    ),
    Ruling.CONTRADICTION: (
        "The cross-test and trusted time contradict each other.",
        "The keys of the later seal are answered by the model whose digest stands in the earlier one. Either those "
        "keys were in use before they were stamped, or they fit models that do not carry their mark. Neither claim is "
        "preferred.",
    ),
    Ruling.CROSSED: (
        "Each mark is found in the other claimant's model.",
        "Both models were made with access to both marks, or one of the key sets fits foreign models. The marks do not "
        "tell which came first.",
    ),
    Ruling.UNORDERED: (
        "Both claims are supported, and nothing here orders them.",
        "The cross-tests put neither mark underneath the other, as far as they were done, and no two verified time "
        "stamps tell the seals apart. The times that the owners state themselves never decide.",
    ),
}
CANNOT = (
    "A time stamp shows that a seal existed by then, not that the other one did not exist unstamped, and it orders the "
    "seals, not the models or the thefts.",
    "A suspect that learned from two marked models may carry both marks without either claimant having copied the "
    "other.",
    "A cross-test says nothing where it was not done or ended inconclusive. Each claimant chooses the model that it "
    "seals: a later one who seals a model without the earlier mark escapes the cross-test, and then time alone orders.",
    "Who made the suspect, whether it was allowed, and what licence holds between the claimants.",
    "Two claims are two questions: the chance that an innocent suspect is called supported by either is at most the "
    "sum of both sealed levels.",
)
SIDES = ("a", "b")


def render_rivals(finding: Mapping[str, JsonValue], *, issued_at: str) -> bytes:
    """Render the page.

    Args:
        finding: content of ``finding.json``.
        issued_at: RFC 3339 time of issue.

    Raises:
        MalformedError: the finding lacks a field.
        MissingPartError: the templates are not installed.
    """
    top = Fields(finding, what=WHAT)
    ruling, suspect, claims = top.text("ruling"), top.object("suspect"), top.object("claims")
    favoured = top.optional_text("favoured")
    columns = [_column(claims.object(side)) for side in SIDES]
    headline, explanation = told(ruling, favoured)
    text = html.template(TEMPLATE).render(
        css=html.stylesheet(),
        generator=html.generator(),
        title=TITLE,
        issued=issued_at,
        issued_day=issued_at[:10],
        report_id="rival claims",
        headline=headline,
        explanation=explanation,
        status_class="supported" if favoured else "inconclusive",
        ruling=ruling,
        suspect=clean(suspect.text("artefact_sha256") or suspect.text("uri")),
        rows=[(label, *values) for label, *values in zip(ROW_LABELS, *columns, strict=True)],
        cannot=CANNOT,
    )
    return text.encode("utf-8")


def told(ruling: str, favoured: str | None) -> tuple[str, str]:
    """Return headline and explanation of a ruling; ``favoured`` is ``a``, ``b`` or None."""
    x = "" if favoured is None else favoured.upper()
    y = {"": "", "A": "B", "B": "A"}[x]
    headline, explanation = SENTENCES[Ruling(ruling)]
    return headline.format(x=x, y=y), explanation.format(x=x, y=y)


ROW_LABELS = (
    "Keys asked of the suspect",
    "Hits",
    "e-value",
    "p-value",
    "Keys asked of the other claimant's model",
    "Hits there",
    "Seal, trusted time",
    "Seal, as the owner states it (never decides)",
    "Scheme",
    "Owner's key",
    "Owner's sealed model",
    "Seal",
    "Bundle of the suspect",
    "Bundle of the cross-test",
    "Examiner's key",
)


def _column(claim: Fields) -> tuple[str, ...]:
    audit = claim.object("on_suspect")
    crossed = claim.raw("on_other_model")
    cross = None if crossed is None else Fields(crossed, what=f"{WHAT} cross-test")
    trusted = claim.raw("sealed_trusted")
    time = None if trusted is None else Fields(trusted, what=f"{WHAT} time")
    return (
        _verdict(audit),
        _hits(audit),
        power_of_ten(audit.decimal("log10_e")),
        p_value(audit.decimal("log10_p")),
        NO_TEST if cross is None else _verdict(cross),
        NO_TEST if cross is None else _hits(cross),
        "none verified" if time is None else f"{time.text('at')} (±{time.integer('accuracy_ms')} ms)",
        claim.text("sealed_at_stated"),
        clean(claim.text("scheme")),
        claim.text("owner_fingerprint"),
        claim.text("model_sha256"),
        claim.text("seal_sha256"),
        audit.text("manifest_sha256"),
        NO_TEST if cross is None else cross.text("manifest_sha256"),
        audit.text("examiner_fingerprint"),
    )


def _verdict(audit: Fields) -> str:
    return f"{audit.text('status')} ({audit.text('reason')})"


def _hits(audit: Fields) -> str:
    return f"{audit.integer('hits')} of {audit.integer('trials')} keys"
