"""The section on the level under H0: fresh keys on unmarked suspects."""

import statistics
from collections.abc import Sequence
from typing import Any

from dynamarks_text import UNMARKED, Trial, table

from auditor.stats.exact import binomial_tail_log10, clopper_pearson


def level_section(by_name: dict[str, list[Trial]]) -> str:
    first = {
        (t["seed"], name): t["measured"]["fresh_keys"]
        for name in UNMARKED
        for t in by_name.get(name, [])
        if "fresh_keys" in t["measured"]
    }
    levels = by_name.get("levels", [])
    if not first or not levels:
        return ""
    second = {(t["seed"], name): t["measured"][name]["fresh_keys"] for t in levels for name in UNMARKED}
    rows = []
    for level in (0.5, 0.1, 0.05, 0.01, 0.001):
        cells = [_rejections([first], level), _rejections([second], level), _rejections([first, second], level)]
        rows.append((f"{level:g}", *cells, _rejections([second], level, kind="monte_carlo_p")))
    n_first, n_second = (sum(len(one["monte_carlo_p"]) for one in part.values()) for part in (first, second))
    head = (
        "level", f"exact law, first {n_first:,} tests", f"exact law, second {n_second:,}", "exact law, both",
        "re-draws (1+k)/(M+1), second",
    )  # fmt: skip
    return (
        f"## Level under H0\n\n{n_first + n_second:,} tests: {len(first)} unmarked suspects (independent models and "
        "surrogates of the unguarded API), fresh keys on each. Intervals are 95 % Clopper-Pearson; fresh keys on one "
        "suspect are independent tests of the exact law, whatever the suspect is. The first tests shared one sample of "
        "999 re-drawn tables and rejected more often than wanted; the second have re-draws of their own.\n\n"
        + table(head, rows)
        + "\n\nThe suspect as the unit (mean over suspects of the share rejected by the exact law, both runs, with "
        "Student's 95 % interval over suspects): "
        + ", ".join(f"at {level:g} {_by_suspect(first, second, level)}" for level in (0.05, 0.01))
        + "."
        + f" So many rejections as in the first tests have probability {_excess(first):.3f} at the nominal level 0.05."
        + _many(levels, by_name.get("level", []))
    )


def _excess(part: dict[Any, Trial]) -> float:
    counts = [_rejected(one, 0.05) for one in part.values()]
    hits, trials = sum(hit for hit, _ in counts), sum(n for _, n in counts)
    return 10.0 ** binomial_tail_log10(hits=hits, trials=trials, rate=0.05)


def _rejections(parts: Sequence[dict[Any, Trial]], level: float, *, kind: str = "exact_log10_p") -> str:
    shares = [_rejected(one, level, kind) for part in parts for one in part.values()]
    hits, trials = sum(hit for hit, _ in shares), sum(n for _, n in shares)
    interval = clopper_pearson(hits=hits, trials=trials, confidence=0.95)
    return f"{hits / trials:.4f} ({interval.low:.4f}-{interval.high:.4f})"


def _rejected(one: Trial, level: float, kind: str = "exact_log10_p") -> tuple[int, int]:
    values = one[kind] if kind == "monte_carlo_p" else [10.0**p for p in one[kind]]
    return sum(p <= level * (1 + 1e-9) for p in values), len(values)


def _by_suspect(first: dict[Any, Trial], second: dict[Any, Trial], level: float) -> str:
    from scipy.stats import t

    shares = []
    for suspect in first.keys() & second.keys():
        counts = [_rejected(part[suspect], level) for part in (first, second)]
        shares.append(sum(hit for hit, _ in counts) / sum(n for _, n in counts))
    mean, error = statistics.fmean(shares), statistics.stdev(shares) / len(shares) ** 0.5
    reach = float(t.ppf(0.975, len(shares) - 1)) * error
    return f"{mean:.4f} ({mean - reach:.4f}-{mean + reach:.4f})"


def _many(trials: Sequence[Trial], earlier: Sequence[Trial]) -> str:
    rows, sums, keys, ratios = (
        [],
        dict.fromkeys(trials[0]["measured"]["independent"]["many_keys"]["rejected"], 0),
        0,
        [],
    )
    for trial in trials:
        for name in UNMARKED:
            found = trial["measured"][name]["many_keys"]
            keys += found["keys"]
            ratios.append(found["law_over_redraws"])
            sums = {level: count + found["rejected"][level] for level, count in sums.items()}
            shares = (f"{count / found['keys']:.5f}" for count in found["rejected"].values())
            rows.append((f"{trial['seed']}, {name}", f"{found['keys']:,}", *shares))
    rows.append(("all", f"{keys:,}", *(f"{count / keys:.5f}" for count in sums.values())))
    intervals = [clopper_pearson(hits=count, trials=keys, confidence=0.95) for count in sums.values()]
    rows.append(("95 % interval", "", *(f"{i.low:.5f}-{i.high:.5f}" for i in intervals)))
    middles = [statistics.fmean(column) for column in zip(*ratios, strict=True)]
    over = ", ".join(f"{ratio:.3f} at {level}" for ratio, level in zip(middles, sums, strict=True))
    text = (
        "\n\nThe same with many more fresh keys, p again from the exact law's upper bound, so that an excess of the "
        "first tests' size would show at once:\n\n"
        + table(("seed and suspect", "fresh keys", *(f"level {level}" for level in sums)), rows)
        + "\n\nThe exact law's upper bound over the share of independent re-drawn tables (400,000 per suspect) at "
        f"least as high, mean over suspects: {over}. The bound rounds scores up to a lattice, which makes it a little "
        "larger than the tail. What the first tests rejected too often has no cause in the law or in the draws of "
        "tables that these keys would not share."
    )
    for trial in earlier:
        shares = ", ".join(f"{share:.5f} at {level}" for level, share in trial["measured"]["rejected"].items())
        text += (
            f" An earlier run (seed {trial['seed']}, independent model, {trial['measured']['keys']:,} keys, law from "
            f"re-draws) rejected {shares}."
        )
    return text
