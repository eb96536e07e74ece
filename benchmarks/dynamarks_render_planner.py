"""The sections on what the planner of probes rests on, and on the second channel."""

import statistics

from dynamarks_text import Trial, spread, table

SHAPE = "shape of "
KINDS = (
    "scores held-out", "scores mixtures", "labels held-out", "labels mixtures", "confidence held-out",
    "confidence mixtures",
)  # fmt: skip


def planner_section(by_name: dict[str, list[Trial]]) -> str:
    """Return the measured shapes with p by number of probes, for both kinds of answers and of probes."""
    shapes = {name.removeprefix(SHAPE): found for name, found in by_name.items() if name.startswith(SHAPE)}
    if not shapes:
        return ""
    numbers = sorted(
        {int(n) for found in shapes.values() for one in found for n in one["measured"][KINDS[1]]["log10_p"]}
    )
    parts = [
        "## What the planner rests on\n\nHow far the targets of the own table stand out among the other classes, in "
        "shares of a rank (scores) or of an answer (labels); `auditor plan --scheme dynamarks` interpolates between "
        "the means of these rows. *Held-out*: 2,000 pictures of the task; *mixtures*: 5,000 of two, of low margin. "
        "For confidences the lead is how far they fall by a sign, in shares of their ranks among all probes.",
    ]
    for kind in KINDS:
        rows = []
        for name, found in sorted(shapes.items()):
            if kind not in found[0]["measured"]:
                continue
            one = [each["measured"][kind] for each in found]
            p_values = [
                spread(each["log10_p"][str(n)] for each in one) if str(n) in one[0]["log10_p"] else "" for n in numbers
            ]
            means = (
                f"{statistics.fmean(each[key] for each in one):.3f}" for key in ("shift", "shift_sd", "spread", "noise")
            )
            agreement = statistics.fmean(each["measured"]["agreement"] for each in found)
            rows.append((f"`{name}`", str(len(one)), f"{agreement:.3f}", *means, *p_values))
        head = (
            "surrogate", "trials", "agreement", "lead", "its deviation", "spread", "noise",
            *(f"log10 p: {n:,} probes" for n in numbers),
        )  # fmt: skip
        parts.append(f"### Answers and probes: {kind}\n\n" + table(head, rows))
    return "\n\n".join(parts)


def signs_section(by_name: dict[str, list[Trial]]) -> str:
    """Return what the second channel shows to a suspect's confidence in its first label alone."""
    rows = []
    for name in ("depth-1", "depth-2"):
        for trial in by_name.get(name, []):
            found = trial["measured"]["tests"]["confidence"]
            others = found["log10_p"][1:]
            rows.append((
                f"`{name}`", str(trial["seed"]), str(found["cells"]), f"{found['first_ranked']}",
                f"{found['log10_p'][0]:.1f}", f"{found['z']:.1f}", f"{min(others):.1f}",
            ))  # fmt: skip
    if not rows:
        return ""
    head = ("suspect", "seed", "cells", "cells that follow", "log10 p", "z", "smallest of nine other clients")
    return (
        "## The second channel\n\nDepth 0.8, one (`depth-1`) or two (`depth-2`) secret bits, 15,000 queries; the "
        "suspect reveals its first label and that label's score. 1,000 held-out probes; no p can be below 2 to the "
        "power of minus the cells.\n\n" + table(head, rows)
    )
