"""What key sets look like before they are used, for three schemes on two data sets.

    python benchmarks/screen.py make       (trains owners, guards and innocents; resumable, about an hour on one core)
    python benchmarks/screen.py run        (screens what is there; kept trials are not run again)
    python benchmarks/screen.py render     (writes benchmarks/screen.md)

Every command that a figure came from stands beside it. Training seeds are fixed; the owners' secrets come from the
system, so that another `make` gives other keys and slightly other figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kept import environment

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "screen.trials.jsonl"
PAGE = HERE / "screen.md"
NOTES = HERE / "screen.notes.md"
FOLDER = Path(tempfile.gettempdir()) / "auditor-benchmark-screen"
DATA = ("digits", "fashion-mnist")
SCHEMES = ("new-label", "margin", "guard")
TITLES = {"new-label": "new-label", "margin": "margin", "guard": "dynamarks"}
PANEL = {"digits": 20, "fashion-mnist": 2}
PROBES = {"digits": "200", "fashion-mnist": "500"}
SMALL_MARGIN = ("--owner-share", "0.1", "--epochs", "4", "--keys", "100", "--per-step", "20", "--steps", "2")
OWNER: dict[tuple[str, str], tuple[str, ...]] = {
    ("fashion-mnist", "new-label"): ("--owner-share", "0.3"),
    ("fashion-mnist", "margin"): SMALL_MARGIN,
}
"""Smaller shares and fewer steps on the larger data set, so that `make` takes minutes instead of hours."""
FIRST_SEED = 100


def auditor(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "auditor", *arguments], cwd=folder, check=False, stdout=subprocess.PIPE, text=True
    )


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for data in DATA:
        for scheme in ("new-label", "margin"):
            if not (folder / f"{data}-{scheme}" / "k.npz").exists():
                target = ("--seed", "1", *OWNER.get((data, scheme), ()), "--out", f"{data}-{scheme}")
                auditor("train", scheme, "--data", data, *target, folder=folder)
        if not (folder / f"{data}-panel").exists():
            panel = ("--seed", str(FIRST_SEED), "--panel", str(PANEL[data]))
            auditor("train", "none", "--data", data, *panel, "--out", f"{data}-panel", folder=folder)
        if not (folder / f"{data}-guard").exists():
            owner = f"{data}-new-label/twin"
            sizes = ("--probes", PROBES[data])
            target = ("--clients", "alice,bob", *sizes, "--out", f"{data}-guard")
            auditor("guard", owner, "--data", data, *target, folder=folder)


def command(data: str, scheme: str) -> list[str]:
    """The screen of one key set; a guard's mark is in many answers together, so that no single one is asked."""
    asked = ["screen", f"{data}-{scheme}/k.npz", "--data", data]
    if scheme != "guard":
        asked += ["--model", f"{data}-{scheme}"]
        last = FIRST_SEED + PANEL[data]
        asked += [word for seed in range(FIRST_SEED, last) for word in ("--innocent", f"{data}-panel/seed-{seed}")]
    else:
        asked += ["--innocent", f"{data}-panel/seed-{FIRST_SEED}"]
    return [*asked, "--json"]


def run(folder: Path) -> None:
    kept = {(trial["data"], trial["scheme"]) for trial in trials()}
    for data in DATA:
        for scheme in SCHEMES:
            if (data, scheme) in kept or not (folder / f"{data}-{scheme}" / "k.npz").exists():
                continue
            asked = command(data, scheme)
            done = auditor(*asked, folder=folder)
            if done.returncode not in (0, 8):
                print(f"{data} {scheme}: exit code {done.returncode}", file=sys.stderr)
                continue
            missed = json.loads((folder / f"{data}-{scheme}" / "train.json").read_text()) if scheme != "guard" else {}
            trial = {
                "data": data,
                "scheme": scheme,
                "command": " ".join(["auditor", *asked]),
                "training_missed": missed.get("measured", {}).get("misses", []),
                "screen": json.loads(done.stdout),
                "environment": environment(),
            }
            with TRIALS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trial, sort_keys=True) + "\n")


def trials() -> list[dict[str, Any]]:
    if not TRIALS.exists():
        return []
    return [json.loads(line) for line in TRIALS.read_text(encoding="utf-8").splitlines()]


def render() -> None:
    found = sorted(trials(), key=lambda t: (DATA.index(t["data"]), SCHEMES.index(t["scheme"])))
    parts = [NOTES.read_text(encoding="utf-8")]
    parts += [_overview(found)]
    for data in DATA:
        parts += [_detectors(data, [t for t in found if t["data"] == data])]
        parts += [_stability(data, [t for t in found if t["data"] == data])]
    parts += ["## Commands\n\nIn the folder that `make` filled:\n"]
    parts += [f"- {t['data']}, {TITLES[t['scheme']]}: `{_short(t)}`" for t in found]
    commits = sorted({str(t["environment"].get("commit", "")) for t in found})
    parts += [f"\nCommit {', '.join(commits)}; {found[0]['environment'].get('machine', '')}." if found else ""]
    PAGE.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _short(trial: dict[str, Any]) -> str:
    words = trial["command"].split(" ")
    asked = [i for i, word in enumerate(words) if word == "--innocent"]
    if len(asked) < 3:
        return str(trial["command"])
    first, last = words[asked[0] + 1], words[asked[-1] + 1]
    rest = [word for i, word in enumerate(words) if i not in asked and i - 1 not in asked]
    return " ".join(rest) + f"` with `--innocent {first}` … `--innocent {last}"


def _rate(share: dict[str, Any]) -> str:
    low, high = float(share["interval"]["low"]), float(share["interval"]["high"])
    return f"{share['hits']} of {share['trials']} ({low:.3f}-{high:.3f})"


def _overview(found: list[dict[str, Any]]) -> str:
    lines = [
        "## Key sets\n",
        "| data | scheme | keys | capacity, bits | best p | distance, keys / ordinary | farther than 95 % | "
        "nearest is natural | nearest is sealed | innocent hits, mean / worst / bound | natural answers |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for t in found:
        s, near = t["screen"], t["screen"]["nearness"]
        innocents = s["innocents"]
        told, natural = "-", "-"
        if innocents:
            values = (float(innocents[name]) for name in ("mean_rate", "worst_rate", "mean_rate_upper"))
            told = " / ".join(f"{value:.4f}" for value in values) + f" ({innocents['models']} models)"
            natural = f"{innocents['natural']['hits'] / innocents['natural']['trials']:.3f}"
        lines.append(
            f"| {t['data']} | {TITLES[t['scheme']]} | {s['keys']} | {float(s['capacity']['bits']):.0f} | "
            f"10^{float(s['capacity']['best_log10_p']):.1f} | "
            f"{float(near['key_distance']):.0f} / {float(near['ordinary_distance']):.0f} | {_rate(near['far'])} | "
            f"{_rate(near['nearest_is_natural'])} | {_rate(near['nearest_is_sealed'])} | {told} | {natural} |"
        )
    return "\n".join(lines) + "\n"


def _detectors(data: str, found: list[dict[str, Any]]) -> str:
    lines = [
        f"## Detectability: {data}\n",
        "| scheme | detector | keys given | area | DeLong 95 % | exact 95 % | keys refused at 1 % (95 %) | "
        "ordinary refused |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for t in found:
        for row in t["screen"]["detectability"]:
            spans = [f"{float(row[k]['low']):.3f}-{float(row[k]['high']):.3f}" for k in ("delong", "exact")]
            budget = row["at_budget"]
            refused, false = "-", "-"
            if budget:
                refused = _rate({"hits": budget["keys"], "trials": budget["of"], "interval": budget["interval"]})
                false = f"{budget['ordinary']} of {budget['ordinary_of']}"
            side = ", low side" if row["low_side"] else ""
            lines.append(
                f"| {TITLES[t['scheme']]} | {row['detector']}{side} | {row['leaked']} | {float(row['area']):.3f} | "
                f"{spans[0]} | {spans[1]} | {refused} | {false} |"
            )
    return "\n".join(lines) + "\n"


def _stability(data: str, found: list[dict[str, Any]]) -> str:
    lines = [
        f"## Stability of the marked model's answers: {data}\n",
        "| scheme | change | keys with the sealed answer (95 %) | controls with their own (95 %) |",
        "| --- | --- | --- | --- |",
    ]
    for t in found:
        for row in t["screen"]["stability"]:
            controls = _rate(row["controls"]) if row["controls"] else "-"
            lines.append(f"| {TITLES[t['scheme']]} | {row['change']} | {_rate(row['keys'])} | {controls} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("make", "run", "render"))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    if given.what == "render":
        render()
    else:
        (make if given.what == "make" else run)(given.folder)
