"""The sections on CosWM and DAWN, and on what a guard adds to a batch."""

import json
from pathlib import Path

from dynamarks_text import Trial, table

COSWM_ROWS = {"service": "the service itself", "surrogate": "4 epochs", "surrogate-20-epochs": "20 epochs"}
GUARDS = ("dynamarks", "dawn", "coswm")


def relatives_section(by_name: dict[str, list[Trial]]) -> str:
    rows = []
    for trial in by_name.get("coswm", []):
        m = trial["measured"]
        rows.append((
            "CosWM at the API, held-out probes, 4 epochs", str(trial["seed"]),
            f"{m['changed_first_class']} of {m['queries']:,}", f"{m['mean_l1']:.3f}",
            f"ratio {m['surrogate']['signal_to_noise']:.2f}, "
            f"{'claimed' if m['surrogate']['claimed'] else 'not claimed'}, rank p {m['surrogate']['p_value']:.2f}",
            f"ratio {m['independent']['signal_to_noise']:.2f}, rank p {m['independent']['p_value']:.2f}",
        ))  # fmt: skip
    for trial in by_name.get("coswm-1000-probes", []):
        m = trial["measured"]
        for name in ("service", "surrogate", "surrogate-20-epochs"):
            rows.append((
                f"CosWM at the API, {m['probes']:,} probes, {COSWM_ROWS[name]}", str(trial["seed"]),
                f"{m['changed_first_class']} of {m['queries']:,}", f"{m['mean_l1']:.3f}",
                *(f"ratio {m[which]['signal_to_noise']:.2f}, {'claimed' if m[which]['claimed'] else 'not claimed'}, "
                  f"rank p {m[which]['p_value']:.2f}" for which in (name, "independent")),
            ))  # fmt: skip
    for trial in by_name.get("dawn", []):
        m = trial["measured"]
        for name in ("surrogate", "surrogate-20-epochs"):
            rows.append((
                f"DAWN, {'4' if name == 'surrogate' else '20'} epochs", str(trial["seed"]),
                f"{m['changed_first_class']} of {m['queries']:,}", f"{m['mean_l1']:.3f}",
                f"{m[name]['hits']} of {m[name]['trials']} planted, log10 p {m[name]['log10_p']:.1f}",
                f"{m['independent']['hits']} of {m['independent']['trials']}, "
                f"log10 p {m['independent']['log10_p']:.1f}",
            ))  # fmt: skip
    if not rows:
        return ""
    head = ("scheme", "seed", "first classes changed", "mean L1", "suspect", "independent model")
    return (
        "## Relatives behind the same interface\n\nSame thief, 15,000 queries. CosWM (ε 0.05, published claim above a "
        "ratio of 8) is used at the API only, without the published training of the teacher, and so below what its "
        "authors measure. *The service itself* is the guarded answers to the probes, in which the cosine is exact: "
        "what the ratio can reach. DAWN (0.5 %) is verified on the logged queries.\n\n" + table(head, rows)
    )


def overhead_section() -> str:
    file = Path(__file__).parent / "results" / "guard_overhead.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    rows = [
        (
            str(row["batch"]),
            f"{row['model_ms']:.2f}",
            *(f"{100 * row[f'{name}_ratio']:.1f} % ({row[f'{name}_us_per_query']} µs)" for name in GUARDS),
        )
        for row in found["rows"]
    ]
    missed = [str(row["batch"]) for row in found["rows"] if row["dynamarks_ratio"] > found["goal"]]
    verdict = f"missed at a batch of {', '.join(missed)}" if missed else "met at every batch"
    return (
        "## What a guard adds to a batch\n\nProcessor time over the small CNN's own, per query in brackets; the goal "
        f"is {100 * found['goal']:.0f} % at most, {verdict} for `dynamarks`.\n\n"
        + table(("batch", "CNN, ms", *GUARDS), rows)
    )
