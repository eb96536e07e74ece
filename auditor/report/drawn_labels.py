"""What the report says differently where the keys' labels were drawn: words, rows and the observed law."""

from dataclasses import replace

from auditor.records import NullBasis
from auditor.report import wording
from auditor.report.inputs import Tree

CAUTION = (
    "That figure rests on the draw of the labels alone and on no assumption about the suspect; the measured error rate "
    "limits the opinion."
)
TRANSFER = (
    "Keys may be made so that many unrelated models answer them alike. The labels here were drawn after the pictures "
    "were fixed, so that no picture could be made to fit its label; whether the draw can be derived again is stated in "
    "section 3."
)
GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Key sample",
        "An ordinary picture for which a wrong label was drawn; the marked model was trained to answer it.",
    ),
    ("Deviating answer", "An answer to a key sample other than the picture's ordinary label; only such answers count."),
    ("Null rate", "One in the number of wrong labels: how often a deviating answer of an independent model is the "
     "drawn one."),
)  # fmt: skip
_REPLACED = ("Key sample", "Sham", "Null rate")


def applies(tree: Tree) -> bool:
    """Return whether the results rest on drawn labels."""
    return tree.text("/null/kind") == NullBasis.DRAWN_LABELS


def comparison(tree: Tree) -> str:
    """Return with what the hits are compared, as the sentences about the outcome quote it."""
    if not applies(tree):
        hits, trials = tree.integer("/null/shams/hits"), tree.integer("/null/shams/trials")
        return f"and to {hits} of {trials} foreign patterns made in the same way"
    wrong = round(1.0 / tree.number("/null/rate"))
    deviating = tree.integer("/detection/deviating/answers") if tree.has("/detection/deviating") else 0
    return (
        f"({deviating} of its answers deviate from the picture's ordinary label; an independent model hits one in "
        f"{wrong} of those)"
    )


def bets(tree: Tree) -> int:
    """Return the number of answers that the test bets on, missing ones included."""
    if applies(tree):
        return tree.integer("/detection/deviating/answers") if tree.has("/detection/deviating") else 0
    return tree.integer("/detection/trials")


def alternatives() -> tuple[wording.Alternative, ...]:
    """Return the alternative explanations, worded for drawn labels."""
    swapped = {"the secret pattern": "the drawn labels", "Keys, shams and controls": "Keys and controls"}
    found = []
    for item in wording.ALTERNATIVES:
        text = TRANSFER if item.title == "Transferable keys" else item.text
        for old, new in swapped.items():
            text = text.replace(old, new)
        found.append(replace(item, text=text))
    return tuple(found)


def glossary() -> tuple[tuple[str, str], ...]:
    """Return the glossary, worded for drawn labels."""
    return (*GLOSSARY, *(entry for entry in wording.GLOSSARY if entry[0] not in _REPLACED))
