"""What the report says differently where a guard's tables of target classes were drawn: words, rows and the law."""

from dataclasses import replace
from typing import assert_never

from auditor.records import NullBasis, Status
from auditor.report import wording
from auditor.report.inputs import Tree
from auditor.report.text import clean, rate

CAUTION = (
    "That figure rests on the draw of the tables alone and on no assumption about the suspect; no error rate was "
    "measured on other models."
)
TRANSFER = (
    "Probes may be chosen so that unrelated models answer them alike. The tables here were drawn after probes, cells "
    "and the clean model's answers were fixed, so that none could be made to fit; whether the draw can be derived "
    "again is stated in section 3."
)
NOT_REACHED = (
    "The sealed test did not reach the claim threshold. A surrogate that was trained on first labels only, or that "
    "hides its scores, shows little or nothing of the table; the examination cannot tell it from an independent model."
)
GLOSSARY: tuple[tuple[str, str], ...] = (
    ("Key sample", "An ordinary picture that nobody trained on, called a probe; it carries no mark itself."),
    ("Cell", "A predicted class together with secret bits of the picture; every cell has one drawn target class."),
    ("Target class", "The class towards which the guarded service moved its answers in a cell; a uniform draw."),
    ("Null rate", "One in the number of other classes: how often a cell's target leads at an independent model."),
)  # fmt: skip
_REPLACED = ("Key sample", "Sham", "Null rate")


def applies(tree: Tree) -> bool:
    """Return whether the results rest on drawn tables."""
    return tree.text("/null/kind") == NullBasis.DRAWN_TABLE


def led(tree: Tree) -> str:
    """Return what was counted in the cells, as the end of a sentence about their number."""
    channel = tree.text("/table/channel") if tree.has("/table") else ""
    if channel == "confidence":
        return "the suspect's confidence moved as the drawn sign says"
    return f"the drawn target class led the suspect's {'labels' if channel == 'labels' else 'scores'}"


def comparison(tree: Tree) -> str:
    """Return with what the leading cells are compared."""
    others = round(1.0 / tree.number("/null/rate"))
    return f"(at an independent model one in {others} does)"


def key_figures(tree: Tree) -> tuple[tuple[str, str], ...]:
    """Return the four figures of the front page as (figure, caption)."""
    hits = f"{tree.integer('/detection/hits')} of {tree.integer('/detection/trials')}"
    named = named_clients(tree)
    return (
        (hits, f"cells in which {led(tree)}"),
        (rate(tree.number("/null/rate")), "of the cells would, at an independent model, by the draw"),
        (str(tree.integer("/queries/keys")), "probes asked, as many as the sealed design says"),
        (named[0] if len(named) == 1 else str(len(named)), "client named by the test" if named else "clients named"),
    )


def reworded(words: wording.OutcomeWording, tree: Tree, status: Status) -> wording.OutcomeWording:
    """Return the sentences about an outcome, worded for answers that were steered instead of keys that were trained."""
    hits = f"{tree.integer('/detection/hits')} of {tree.integer('/detection/trials')}"
    found = f"In {hits} cells of the sealed table {led(tree)} {comparison(tree)}"
    match status:
        case Status.SUPPORTED:
            return replace(
                words,
                means=f"{found}; such answers are more probable if it was trained on answers of the guarded service "
                "than if it was developed without them.",
            )
        case Status.NOT_SUPPORTED:
            return replace(
                words,
                opinion="The observed answers give no support for derivation from the reference model over independent "
                "development. How often a surrogate of this service would have been missed was not measured here. It "
                "is not a statement of how probable independent development is; that also depends on other evidence, "
                "which is for the court.",
                means=f"{found}; that does not reach the level that was sealed.",
                paragraphs=(NOT_REACHED, *words.paragraphs[1:]),
            )
        case Status.INCONCLUSIVE:
            return replace(
                words,
                means=f"{found}, but the examination could not decide between the two propositions, for the reason "
                "stated above.",
            )
    assert_never(status)


def alternatives() -> tuple[wording.Alternative, ...]:
    """Return the alternative explanations, worded for guarded services."""
    swapped = {"the secret pattern": "the drawn table", "Keys, shams and controls": "Probes and controls"}
    found = []
    for item in wording.ALTERNATIVES:
        text = TRANSFER if item.title == "Transferable keys" else item.text
        for old, new in swapped.items():
            text = text.replace(old, new)
        found.append(replace(item, text=text))
    return tuple(found)


def glossary() -> tuple[tuple[str, str], ...]:
    """Return the glossary, worded for drawn tables."""
    return (*GLOSSARY, *(entry for entry in wording.GLOSSARY if entry[0] not in _REPLACED))


def named_clients(tree: Tree) -> list[str]:
    """Return the clients that the test names."""
    if not tree.has("/table"):
        return []
    return [clean(item, limit=60) for item in tree.items("/table/named") if isinstance(item, str)]
