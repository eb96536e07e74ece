"""The rows and the figure of a report on drawn tables of target classes."""

from auditor.report import drawn_table, plots
from auditor.report.inputs import Tree
from auditor.report.text import clean, decimal, p_value
from auditor.report.view import Row

MAX_CLIENTS = 20


def rows(tree: Tree) -> tuple[Row, ...]:
    """Return the test of every client's table; the first clients by p-value."""
    if not tree.has("/table"):
        return ()
    found = [
        Row(label="Clients named at the level", pointer="/table/named",
            value=", ".join(drawn_table.named_clients(tree)) or "none"),
        Row(label="Answers read", value=f"{clean(tree.text('/table/channel'))}: "
            f"{clean(tree.text('/table/channel_note'), limit=420)}", pointer="/table/channel"),
        Row(label="Cells with enough probes / probes in them", pointer="/table",
            value=f"{tree.integer('/table/cells')} / {tree.integer('/table/probes')}"),
    ]  # fmt: skip
    for number, item in enumerate(tree.items("/table/clients")[:MAX_CLIENTS]):
        base = f"/table/clients/{number}"
        one = Tree(item if isinstance(item, dict) else {}, "results.json /table/clients")
        value = (
            f"p = {p_value(one.number('/log10_p'))}, after Holm {p_value(one.number('/log10_p_holm'))}; "
            f"z = {decimal(one.number('/z'), digits=2)}; {one.integer('/monte_carlo/at_least_as_high')} of "
            f"{one.integer('/monte_carlo/draws'):,} redraws at least as high"
        )
        found.append(Row(label=f"Table of client {clean(one.text('/client'), limit=60)}", value=value, pointer=base))
    return tuple(found)


def figure(tree: Tree) -> tuple[bytes, str, str]:
    """Return the redraw distribution with the sealed table's statistic, its alternative text and its caption."""
    if not tree.has("/table"):
        return (
            plots.table_law_figure(counts=(), low=0.0, high=1.0, statistic=0.0),
            "An empty figure.",
            "No probe was asked.",
        )
    base = "/table/redraws"
    counts = tuple(item if isinstance(item, int) else 0 for item in tree.items(f"{base}/counts"))
    statistic = tree.number(f"{base}/statistic")
    drawn = plots.table_law_figure(
        counts=counts, low=tree.number(f"{base}/low"), high=tree.number(f"{base}/high"), statistic=statistic
    )
    client = clean(tree.text(f"{base}/client"), limit=60)
    told = f"the statistic of {sum(counts):,} re-drawn tables (bars) and of the sealed table of client {client} (line)"
    return drawn, f"Bars of {told}.", f"By chance and as sealed: {told}. The exact tail is stated in the table below."
