"""What a calibration found about the suspect's labels, and how well keys could be told apart, as rows of the report."""

from collections.abc import Mapping

from auditor.report.inputs import Tree
from auditor.report.text import clean, p_value, rate
from auditor.report.view import Row

MOST_SHOWN = 40


def rows(tree: Tree) -> tuple[Row, ...]:
    """Return what was learned of the suspect's labels before any key; none without a calibration."""
    if not tree.has("/calibration"):
        return ()
    found = tree.at("/calibration/labels")
    pairs = (
        [f"{clean(name, limit=40)} → {label}" for name, label in found.items()] if isinstance(found, Mapping) else []
    )
    more = f" and {len(pairs) - MOST_SHOWN} more" if len(pairs) > MOST_SHOWN else ""
    left_out = [clean(str(name), limit=40) for name in tree.items("/calibration/left_out")]
    classes = [clean(str(name), limit=40) for name in tree.items("/calibration/classes_without_label")]
    asked = (
        f"{tree.integer('/calibration/inputs')} ordinary inputs ({clean(tree.text('/calibration/source'), limit=120)})"
    )
    agreement = rate(tree.number("/calibration/agreement"))
    return (
        Row(
            label="Labels learned before any key was asked",
            value=f"from {asked}; share answered with their own class {agreement}",
            pointer="/calibration",
        ),
        Row(
            label="Its own label → class of the task",
            value=(", ".join(pairs[:MOST_SHOWN]) + more) or "none",
            pointer="/calibration/labels",
        ),
        Row(
            label="Labels left out because their class is not beyond doubt",
            value=", ".join(left_out[:MOST_SHOWN]) or "none",
            pointer="/calibration/left_out",
        ),
        Row(
            label="Classes without a label of their own; their controls do not count",
            value=", ".join(classes[:MOST_SHOWN]) or "none",
            pointer="/calibration/classes_without_label",
        ),
    )


def screen_rows(tree: Tree) -> tuple[Row, ...]:
    """Return capacity and detectability of the keys that were asked; none where the results do not state them."""
    if not tree.has("/screen"):
        return ()
    best = p_value(tree.number("/screen/capacity/best_log10_p"))
    capacity = Row(
        label="Capacity of the draw, and the smallest p-value the sealed plan can report",
        value=f"{tree.number('/screen/capacity/bits'):.1f} bits; {best}",
        pointer="/screen/capacity",
    )
    label = "How well keys can be told from controls by their distance to other controls (0.5: not at all)"
    if not tree.has("/screen/detectability"):
        return (capacity, Row(label=label, value="not measured", pointer="/screen/detectability"))
    low, high = (rate(tree.number(f"/screen/detectability/interval/{end}")) for end in ("low", "high"))
    area = rate(tree.number("/screen/detectability/area"))
    value = f"area {area}, 95 % interval {low} to {high}"
    return (capacity, Row(label=label, value=value, pointer="/screen/detectability"))
