"""The section on thieves who know how a guard works."""

import statistics
from collections.abc import Sequence
from typing import Any

from dynamarks_text import Trial, spread, table
from dynamarks_thieves import COLLUDERS, THIEVES
from dynamarks_world import CLIENTS, OWN

from auditor.stats.multiplicity import holm

LEVEL_LOG10 = -6.0
PLAIN = "soft-15000"
WITH_SIGNS = "thief-first-score-depth-2"
MODES = ("scores", "labels")


def thieves_section(by_name: dict[str, list[Trial]]) -> str:
    """Return what each thief keeps in accuracy, and who is named; those who escape are said to."""
    plain = {trial["seed"]: trial["measured"]["accuracy"] for trial in by_name.get(PLAIN, [])}
    rows, escaped, partly, wrong = [], [], [], 0
    for name, what in THIEVES.items():
        trials = by_name.get(name, [])
        if not trials:
            continue
        own = COLLUDERS.get(name, CLIENTS[:1])
        named = [_named(trial["measured"]["tests"]["scores"]) for trial in trials]
        right = sum(any(client in own for client in found) for found in named)
        wrong += sum(client not in own for found in named for client in found)
        cost = statistics.fmean(100 * (plain[t["seed"]] - t["measured"]["accuracy"]) for t in trials)
        rows.append((
            f"`{name.removeprefix('thief-')}`", what, str(len(trials)), _mean(trials, "accuracy"), f"{cost:.1f}",
            _mean(trials, "agreement"),
            *(spread(_best(trial["measured"]["tests"][mode], own) for trial in trials) for mode in MODES),
            f"{right} of {len(trials)}",
        ))  # fmt: skip
        if right < len(trials):
            told = f"`{name.removeprefix('thief-')}` ({cost:.1f} points"
            (escaped if right == 0 else partly).append(
                f"{told})" if right == 0 else f"{told}, named on {right} of {len(trials)})"
            )
    if not rows:
        return ""
    head = (
        "thief", "what it does", "trials", "accuracy", "cost in points", "agreement",
        *(f"log10 p: {mode}" for mode in MODES), "named (scores)",
    )  # fmt: skip
    n_clients = len(CLIENTS)
    return (
        "## Thieves who know the scheme, but not the secret\n\n15,000 images, four epochs, small CNN. *Cost*: task "
        f"accuracy below that of `{PLAIN}` of the same seed, in points. log10 p, where the suspect answers with scores "
        "and where with labels: of the client whose answers were used; where several clients collude or vote, the "
        f"smallest among them. *Named*: a right client at 1e-6 after Holm over {n_clients}; with colluding clients any "
        "of them is right. The voters answer with labels; their scores are the shares of three votes, which few would "
        f"reveal.\n\n{table(head, rows)}\n\nClients that were named although no answer to them was used: {wrong}."
        f"{_sentence(' Never named, hence a stated limit, with the accuracy it costs: ', escaped)}"
        f"{_sentence(' Named on some seeds only: ', partly)}\n\n"
        "`first-score` and `smoothed-labels` throw away everything in which the first channel lies. Averaging over "
        f"clients divides each one's shift by their number.{_confidences(by_name)}"
    )


def _confidences(by_name: dict[str, list[Trial]]) -> str:
    trials = by_name.get(WITH_SIGNS, [])
    if not trials:
        return ""
    tests = [trial["measured"]["tests"]["confidence"] for trial in trials]
    named, weakly = sum(OWN in _named(test) for test in tests), sum(test["named_at_0.01"] == OWN for test in tests)
    return (
        f" The second channel reads `{WITH_SIGNS.removeprefix('thief-')}` by its confidences: log10 p "
        f"{spread(test['log10_p'][0] for test in tests)}, named at 1e-6 on {named} and at 0.01 on {weakly} of "
        f"{len(tests)}."
    )


def _named(test: dict[str, Any]) -> list[str]:
    adjusted = holm(test["log10_p"])
    return [client for client, p in zip(CLIENTS, adjusted, strict=True) if p <= LEVEL_LOG10]


def _best(test: dict[str, Any], own: Sequence[str]) -> float:
    return min(p for client, p in zip(CLIENTS, test["log10_p"], strict=True) if client in own)


def _mean(trials: Sequence[Trial], key: str) -> str:
    return f"{statistics.fmean(trial['measured'][key] for trial in trials):.4f}"


def _sentence(head: str, items: Sequence[str]) -> str:
    return f"{head}{', '.join(items)}." if items else ""
