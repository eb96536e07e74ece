"""Mean queries of the default procedure over the information limit, the SPRT that knows p1, and the fixed test.

    .venv/bin/python benchmarks/queries.py [--out benchmarks/results/queries.json] [--page benchmarks/queries.md]

All figures are exact (forward recursion) except those of score-returning suspects, which are simulated with a fixed
seed. The default procedure here has no futility stop and no cap: it always claims in the end.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

from auditor.stats import drawn_labels, mixtures, queries, rank
from auditor.stats.sequential import log_e

ROOT = Path(__file__).resolve().parent.parent
RATES = (0.3, 0.5, 0.8, 0.95)
NULL_RATES = (0.001, 0.01, 1 / 9, 0.3)
LEVELS = (1e-3, 1e-6, 1e-9)
POWER = 0.99
CAP = 2500
SEED = 20261122
ORACLE_GOAL, FIXED_GOAL, SCORES_GOAL = 1.10, 1.6, 0.2


def cell(alpha: float, null_rate: float, rate: float) -> dict[str, float | int]:
    default = mixtures.open_ended(lambda k, n: log_e(k, n, null_rate), rate=rate, alpha=alpha, cap=CAP)
    grid = mixtures.open_ended(
        lambda k, n: mixtures.grid_log_e(k, n, null_rate=null_rate), rate=rate, alpha=alpha, cap=CAP
    )
    # The oracle: the likelihood ratio of the true rate, with power one like the default; and the SPRT of power 0.99.
    oracle = mixtures.open_ended(
        lambda k, n: mixtures.ratio_log_e(k, n, null_rate=null_rate, rate=rate), rate=rate, alpha=alpha, cap=CAP
    )
    design = queries.sprt_design(alpha=alpha, power=POWER, rate=rate, null_rate=null_rate)
    sprt = queries.sprt_operating(design, rate=rate, cap=CAP)
    fixed = queries.fixed_design(alpha=alpha, power=POWER, rate=rate, null_rate=null_rate)
    assert fixed is not None
    assert default.undecided < 1e-6
    limit = queries.information_limit(alpha=alpha, power=1.0, rate=rate, null_rate=null_rate)
    return {
        "alpha": alpha,
        "null_rate": null_rate,
        "rate": rate,
        "default_mean": default.mean,
        "grid_mean": grid.mean,
        "oracle_mean": oracle.mean,
        "sprt99_mean": sprt.mean,
        "fixed99": fixed.keys,
        "limit": limit,
        "limit99": queries.information_limit(alpha=alpha, power=POWER, rate=rate, null_rate=null_rate),
        "over_limit": default.mean / limit,
        "over_oracle": default.mean / oracle.mean,
        "over_sprt99": default.mean / sprt.mean,
        "fixed_over_default": fixed.keys / default.mean,
    }


def scores(alpha: float) -> dict[str, float]:
    labels = drawn_labels.drawn_label_forecast(alpha=alpha, n_classes=10, hit=0.08, natural=0.91)
    row = {"alpha": alpha, "labels_mean": labels.mean}
    for name, soft in (("ranks", False), ("probabilities", True)):
        cost = rank.synthetic_cost(hit_rate=0.08, n_classes=10, alpha=alpha, soft=soft, seed=SEED, audits=4000, keys=80)
        row |= {f"{name}_mean": cost.mean, f"{name}_error": cost.standard_error}
        row[f"{name}_over_labels"] = cost.mean / labels.mean
    return row


def summary(cells: list[dict[str, float | int]], by_scores: list[dict[str, float]]) -> list[dict[str, object]]:
    strict = [row for row in cells if row["alpha"] <= 1e-6]
    oracle = statistics.median(row["over_oracle"] for row in cells)
    sprt = statistics.median(row["over_sprt99"] for row in cells)
    fixed = statistics.median(row["fixed_over_default"] for row in strict)
    held = [row for row in strict if row["fixed_over_default"] >= FIXED_GOAL]
    missed = [row for row in strict if row["fixed_over_default"] < FIXED_GOAL]
    hopeless = [row for row in missed if row["fixed99"] / row["limit99"] < FIXED_GOAL]
    worst = max(max(row["ranks_over_labels"], row["probabilities_over_labels"]) for row in by_scores)
    lowest = min(strict, key=lambda row: row["fixed_over_default"])
    return [
        {
            "goal": f"median cell at most {ORACLE_GOAL:g} x the oracle that knows p1 (power one, like the default)",
            "figure": round(oracle, 3),
            "holds": oracle <= ORACLE_GOAL,
            "remark": f"against the SPRT of power {POWER:g}, which may give up on a copy: {sprt:.3f}",
        },
        {
            "goal": f"median cell at least {FIXED_GOAL:g} x fewer queries than the fixed test of power {POWER:g} "
            "at alpha <= 1e-6",
            "figure": round(fixed, 3),
            "holds": fixed >= FIXED_GOAL,
            "remark": f"the least is {lowest['fixed_over_default']:.2f} at p0 = {lowest['null_rate']:.3g}, "
            f"p1 = {lowest['rate']:g}, alpha = {lowest['alpha']:g}",
        },
        {
            "goal": f"the same in every cell with alpha <= 1e-6 (cells of {len(strict)})",
            "figure": len(held),
            "holds": len(held) == len(strict),
            "remark": f"in {len(hopeless)} of the {len(missed)} cells that miss it the information limit itself is "
            f"more than 1/{FIXED_GOAL:g} of the fixed test, so no test could meet it",
        },
        {
            "goal": "scores with 8 % first-place hits: at most 1/5 of the label-only queries",
            "figure": round(worst, 3),
            "holds": worst <= SCORES_GOAL,
            "remark": "the worst of ranks and probabilities over all levels; synthetic suspect, optimistic",
        },
    ]


def page(cells: list[dict[str, float | int]], by_scores: list[dict[str, float]], goals: list[dict[str, object]]) -> str:
    lines = [
        "# Queries of the default procedure",
        "",
        "Written by `benchmarks/queries.py`; numbers in `results/queries.json`. Mean key queries on a copy that",
        "hits with probability p1, against independent suspects that hit with probability at most p0. *limit*:",
        "log(1/alpha) / KL(p1‖p0); *oracle*: likelihood ratio that knows p1, same threshold; *SPRT*: knows p1, power",
        "0.99; *fixed*: exact binomial test of power 0.99. The default does not know p1.",
        "",
        "## Goals",
        "",
        "| goal | figure | holds | remark |",
        "|---|---|---|---|",
        *(f"| {g['goal']} | {g['figure']} | {'yes' if g['holds'] else '**no**'} | {g['remark']} |" for g in goals),
        "",
        "## Every cell",
        "",
        "| alpha | p0 | p1 | default | grid | / limit | / oracle | / SPRT | fixed | fixed / default |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['alpha']:g} | {r['null_rate']:.3g} | {r['rate']:g} | {r['default_mean']:.1f} | "
            f"{r['grid_mean']:.1f} | {r['over_limit']:.2f} | {r['over_oracle']:.2f} | {r['over_sprt99']:.2f} | "
            f"{r['fixed99']} | {r['fixed_over_default']:.2f} |"
            for r in cells
        ),
        "",
        "## Score-returning suspects, ten classes, 8 % first-place hits",
        "",
        "| alpha | labels only | ranks | / labels | probabilities | / labels |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['alpha']:g} | {r['labels_mean']:.1f} | {r['ranks_mean']:.1f} ± {r['ranks_error']:.1f} | "
            f"{r['ranks_over_labels']:.2f} | {r['probabilities_mean']:.1f} ± {r['probabilities_error']:.1f} | "
            f"{r['probabilities_over_labels']:.2f} |"
            for r in by_scores
        ),
        "",
        "The synthetic suspect has independent normal logits, plus 4 on the natural label and a boost on the drawn",
        "one. Real classes resemble one another, so expect smaller gains; the level of the test does not depend on it.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "queries.json")
    parser.add_argument("--page", type=Path, default=ROOT / "benchmarks" / "queries.md")
    arguments = parser.parse_args()
    cells = [cell(a, q, p) for a in LEVELS for q in NULL_RATES for p in RATES if p > q]
    by_scores = [scores(alpha) for alpha in LEVELS]
    goals = summary(cells, by_scores)
    text = page(cells, by_scores, goals)
    print(text)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    record = {
        "commit": commit.stdout.strip(),
        "seed": SEED,
        "power": POWER,
        "goals": goals,
        "cells": cells,
        "scores": by_scores,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    arguments.page.write_text(text)


if __name__ == "__main__":
    main()
