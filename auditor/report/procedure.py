"""What the report prints about the procedure itself: placebo keys, and how many questions the level answers for."""

from auditor.report.inputs import Tree
from auditor.report.text import clean, level, rate, ratio
from auditor.report.view import Row


def placebo_rows(tree: Tree) -> tuple[Row, ...]:
    """Return how often the sealed test claims on placebo draws."""
    if not tree.has("/placebo"):
        return ()
    base, draws = "/placebo", f"{tree.integer('/placebo/draws'):,}"
    low, high = tree.number(f"{base}/interval/low"), tree.number(f"{base}/interval/high")
    rows = [
        Row(label="What was put in the place of the sealed draw", value=clean(tree.text(f"{base}/what")),
            pointer=f"{base}/what"),
        Row(label="Placebo draws on which the test claims", value=f"{tree.integer(f'{base}/claims')} of {draws}",
            pointer=f"{base}/claims"),
        Row(label="Exact 95 % interval of that share", value=f"{rate(low)} to {rate(high)}",
            pointer=f"{base}/interval"),
        Row(label=f"Most claims compatible with the test's level {level(tree.number(f'{base}/alpha'))}",
            value=str(tree.integer(f"{base}/most_expected")), pointer=f"{base}/most_expected"),
    ]  # fmt: skip
    if tree.has(f"{base}/reach_log10_e"):
        reach = ratio(tree.number(f"{base}/reach_log10_e"))
        label = "Largest e-value one placebo draw could have reached"
        rows.append(Row(label=label, value=reach, pointer=f"{base}/reach_log10_e"))
    if tree.has(f"{base}/rank_p_value"):
        rows.append(Row(label="Rank of the sealed draw among them, exact p-value",
                        value=rate(tree.number(f"{base}/rank_p_value")), pointer=f"{base}/rank_p_value"))  # fmt: skip
    return tuple(rows)


def family_sentence(tree: Tree) -> str:
    """Return how the level was charged for the questions of the matter."""
    family, serial = tree.integer("/multiplicity/family"), tree.integer("/multiplicity/serial")
    if family == 1:
        charge = "no other question is on record, and the level was not divided."
    else:
        charge = (
            f"the level was divided by {family}, the number of key sets and suspects on record that might have been "
            "reported instead."
        )
    return (
        f"Multiplicity: this key set bears serial number {serial} in the owner's series; {charge} Several audits of "
        "one matter combine by Holm's rule over p-values taken before this charge, or by averages of e-values."
    )
