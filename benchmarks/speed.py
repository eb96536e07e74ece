"""Start-up time of the command line and time to check a bundle of 2,000 answers, against their budgets.

    .venv/bin/python benchmarks/speed.py [--runs 7] [--out benchmarks/results/speed.json]

Every figure is the wall time of a whole process, interpreter and imports included; torch is not imported. As after an
installation, modules are compiled already: one run that does not count writes their bytecode to a temporary folder.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

HELP_BUDGET_S = 0.3
CHECK_BUDGET_S = 2.0
ANSWERS = {"n_keys": 1400, "opening_keys": 1400, "n_shams": 400, "n_sham_patterns": 80, "n_controls": 150}
REPEATS = 50


def seconds(command: list[str], *, runs: int) -> list[float]:
    taken = []
    for _ in range(1 + runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(round(time.perf_counter() - start, 4))
    return taken[1:]


def bundle_of_2000(folder: Path) -> Path:
    from cases import TableSuspect, marked, seal_keys, small_protocol

    from auditor import casefile
    from auditor.audit import Request

    protocol = small_protocol(**ANSWERS, n_repeats=REPEATS)
    opened = seal_keys(folder / "k.npz", protocol, side=28)
    suspect = TableSuspect(marked, batch_size=64)
    case = casefile.verify(opened=opened, suspect=suspect, folder=folder / "audit", request=Request())
    assert (
        case.headline.total_queries
        == sum(v for k, v in ANSWERS.items() if k not in ("opening_keys", "n_sham_patterns")) + REPEATS
    )
    return case.folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    auditor = [sys.executable, "-m", "auditor"]
    with tempfile.TemporaryDirectory() as name:
        os.environ["AUDITOR_HOME"] = f"{name}/home"
        os.environ["PYTHONPYCACHEPREFIX"] = f"{name}/compiled"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        bundle = bundle_of_2000(Path(name))
        figures = {
            "auditor --help": (seconds([*auditor, "--help"], runs=arguments.runs), HELP_BUDGET_S),
            "auditor check, 2,000 answers": (
                seconds([*auditor, "check", str(bundle)], runs=arguments.runs),
                CHECK_BUDGET_S,
            ),
        }
    rows = []
    for what, (taken, budget_s) in figures.items():
        median = statistics.median(taken)
        rows.append({"what": what, "runs_s": taken, "median_s": median, "budget_s": budget_s})
        print(
            f"{what}: median {median:.3f} s, min {min(taken):.3f} s, "
            f"{median / budget_s:.2f} x its budget of {budget_s} s"
        )
    if arguments.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        record = {
            "commit": commit.stdout.strip(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "figures": rows,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
