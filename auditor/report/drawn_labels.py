"""What the report says differently where the keys' labels were drawn: words, rows and the observed law.

Labels are drawn over all wrong classes, or between the natural class and one rival; what counts differs, and the words.
"""

from dataclasses import replace

from auditor.records import NullBasis
from auditor.report import wording
from auditor.report.inputs import Tree
from auditor.stats.drawn_labels import innocent_rate

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
RIVAL_GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Key sample",
        "An ordinary picture that lies between two classes; a coin drew one of them, and the marked model was trained "
        "to answer it.",
    ),
    (
        "Answer that counts",
        "An answer to a key sample that prefers one of its two classes, by its first label or by its scores.",
    ),
    ("Null rate", "One in two: how often such an answer of an independent model is the drawn one."),
)
_REPLACED = ("Key sample", "Sham", "Null rate")


def applies(tree: Tree) -> bool:
    """Return whether the results rest on drawn labels, over all wrong classes or between two."""
    return rivals(tree) or tree.text("/null/kind") == NullBasis.DRAWN_LABELS


def rivals(tree: Tree) -> bool:
    """Return whether the labels were drawn between two classes each."""
    return tree.text("/null/kind") == NullBasis.RIVAL_LABELS


def counted(tree: Tree) -> str:
    """Return what the answers that are bet on are called."""
    return "answers that prefer one of the two classes" if rivals(tree) else "deviating answers"


def innocent(tree: Tree) -> float:
    """Return the hit rate of an independent model that the futility stop sets against the smallest rate."""
    null_rate = tree.number("/null/rate")
    return null_rate if rivals(tree) else innocent_rate(null_rate, tree.number("/test/p_min"))


def comparison(tree: Tree) -> str:
    """Return with what the hits are compared, as the sentences about the outcome quote it."""
    if not applies(tree):
        hits, trials = tree.integer("/null/shams/hits"), tree.integer("/null/shams/trials")
        return f"and to {hits} of {trials} foreign patterns made in the same way"
    if rivals(tree):
        return (
            f"({bets(tree)} of its answers prefer one of the two classes that the label was drawn from, "
            f"{bet_hits(tree)} the drawn one; an independent model one in 2 of those)"
        )
    wrong = round(1.0 / tree.number("/null/rate"))
    return (
        f"({bets(tree)} of its answers deviate from the picture's ordinary label; an independent model hits one in "
        f"{wrong} of those)"
    )


def bets(tree: Tree) -> int:
    """Return the number of answers that the test bets on, missing ones included."""
    if applies(tree):
        return tree.integer("/detection/bets/answers") if tree.has("/detection/bets") else 0
    return tree.integer("/detection/trials")


def bet_hits(tree: Tree) -> int:
    """Return the hits among the answers that the test bets on; scores may tell more of them than first labels do."""
    if applies(tree) and tree.has("/detection/bets"):
        return tree.integer("/detection/bets/hits")
    return tree.integer("/detection/hits")


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


def glossary(tree: Tree) -> tuple[tuple[str, str], ...]:
    """Return the glossary, worded for drawn labels."""
    return (
        *(RIVAL_GLOSSARY if rivals(tree) else GLOSSARY),
        *(entry for entry in wording.GLOSSARY if entry[0] not in _REPLACED),
    )
