"""Whole audits over HTTP: owner, stolen, fine-tuned and pruned copy, innocent, for several training seeds.

    python benchmarks/verdicts.py --data fashion-mnist --seeds 1 2 3

Each seed is one run of what `auditor demo` does, with a fresh secret from the operating system; results are kept in
`benchmarks/results/verdicts.json` and rendered by `python benchmarks/new_label.py render`.
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from kept import environment

RESULTS = Path(__file__).parent / "results" / "verdicts.json"


def one_seed(data: str, seed: int) -> dict[str, Any]:
    from auditor.demo import run_demo

    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        os.environ["AUDITOR_HOME"] = f"{name}/home"
        outcome = run_demo(folder=Path(name) / "demo", data=data, seed=seed)
    audits = {}
    for trial in outcome.trials:
        line = trial.case.headline
        audits[trial.origin.value] = {
            "task_accuracy": trial.task_accuracy,
            "status": line.status.value,
            "reason": line.reason.value,
            "hits": line.hits,
            "trials": line.trials,
            "keys_until_decision": line.keys_until_decision,
            "total_queries": line.total_queries,
            "log10_p": line.log10_p,
            "sham_hits": trial.case.results["null"]["shams"]["hits"],
            "sham_trials": trial.case.results["null"]["shams"]["trials"],
        }
    return {
        "data": data,
        "seed": seed,
        "wall_s": round(time.monotonic() - started_s, 1),
        "owner": outcome.record.as_json(),
        "audits": audits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "fashion-mnist"), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    with ProcessPoolExecutor(max_workers=options.workers) as pool:
        found = list(pool.map(one_seed, [options.data] * len(options.seeds), options.seeds))
    replaced = {(run["data"], run["seed"]) for run in found}
    kept = [run for run in kept if (run["data"], run["seed"]) not in replaced]
    runs = sorted([*kept, *({**run, **environment()} for run in found)], key=lambda run: (run["data"], run["seed"]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n")
    for run in found:
        for origin, audit in run["audits"].items():
            print(f"{run['data']} seed {run['seed']}: {origin}: {audit['status']}, {audit['hits']}/{audit['trials']}")


if __name__ == "__main__":
    main()
