"""What the report prints about the procedure itself: placebo keys."""

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
