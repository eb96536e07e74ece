"""What a guard adds to a batch: its time over the small CNN's own batch time, one thread each.

    python benchmarks/guard_overhead.py [--rounds 15] [--out benchmarks/results/guard_overhead.json]

Model and guard are timed in turns, so that a busy machine slows both; the printed ratio is that of the medians of the
processor times. The model's answers are random: only times are measured.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from kept import environment

GOAL = 0.05
BATCHES = (1, 16, 64, 256)


def cpu_s(work: Callable[[], object], *, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "guard_overhead.json")
    options = parser.parse_args()

    import torch

    from auditor.draws import Secret
    from auditor.guard_keys import GuardKeys, GuardSettings, client_keys, projection_key
    from auditor.guards.coswm import CosWM
    from auditor.guards.dawn import Dawn
    from auditor.guards.dynamarks import DynaMarks
    from auditor.models import build, describe, predict

    torch.set_num_threads(1)
    shape, classes = (1, 28, 28), tuple(f"class {i}" for i in range(10))
    network = build(describe("small-cnn", input_shape=shape, classes=classes), seed=0)
    seed = bytes(32)
    keys = GuardKeys(
        settings=GuardSettings(), classes=classes, shape=shape, model_sha256="00" * 32,
        projection_key=projection_key(seed), thresholds=np.zeros((10, 1), dtype=np.int64),
        reference=np.full((1, 10), 100_000), clients=("a",), client_keys=client_keys(Secret(seed), ("a",)),
    )  # fmt: skip
    guards = {
        "dynamarks": DynaMarks(keys, client_id="a"),
        "dawn": Dawn(client_key=keys.client_keys["a"], n_classes=10, shape=shape),
        "coswm": CosWM(client_key=keys.client_keys["a"], n_classes=10, shape=shape),
    }
    rows = []
    for n in BATCHES:
        inputs = np.random.default_rng(0).integers(0, 256, size=(n, *shape), dtype=np.uint8)
        answers = predict(network, inputs)
        repeats = max(3, 256 // n)
        taken: dict[str, list[float]] = {name: [] for name in ("model", *guards)}
        for _ in range(options.rounds):
            taken["model"].append(cpu_s(lambda x=inputs: predict(network, x), repeats=repeats))
            for name, guard in guards.items():
                work: Callable[[], object] = lambda g=guard, p=answers, x=inputs: g(p, x)  # noqa: E731
                taken[name].append(cpu_s(work, repeats=repeats))
        model_s = statistics.median(taken["model"])
        row: dict[str, float | int] = {"batch": n, "model_ms": round(1000 * model_s, 4)}
        for name in guards:
            row[f"{name}_ratio"] = round(statistics.median(taken[name]) / model_s, 4)
            row[f"{name}_us_per_query"] = round(1e6 * statistics.median(taken[name]) / n, 2)
        rows.append(row)
        print(row)
    options.out.write_text(json.dumps({"goal": GOAL, "rows": rows, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
