"""Tables and figures of the page on guards, as text."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from auditor.stats.exact import clopper_pearson

Trial = dict[str, Any]
UNMARKED = ("independent", "unguarded")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def spread(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{statistics.median(found):.1f} ({found[-1]:.1f} … {found[0]:.1f})"


def mean(values: Iterable[float]) -> str:
    return f"{statistics.fmean(values):.4f}"


def share(hits: Iterable[bool]) -> str:
    found = list(hits)
    interval = clopper_pearson(hits=sum(found), trials=len(found), confidence=0.95)
    return f"{sum(found)} of {len(found)} (95 % interval {interval.low:.3f}-{interval.high:.3f})"
