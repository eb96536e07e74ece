"""Surrogates extracted from a guarded API: does the mark travel, who is named, what removes it, what does it cost?

    python benchmarks/dynamarks.py run --seeds 0 1 2 3 4      (resumable; about 15 minutes per seed on one idle core)
    python benchmarks/dynamarks.py render                     (writes benchmarks/dynamarks.md)
    python benchmarks/dynamarks.py run --only mu-0.01 "shape of mu-0.01"

One seed is one owner's model, one master secret with ten clients, and about forty surrogates. Owner and thief
hold disjoint halves of the Fashion-MNIST training images; probes are held-out carriers that nobody trained on. Every
finished suspect is one line of `benchmarks/results/dynamarks.trials.jsonl`; lines that are there are not run again.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynamarks_measure import (
    SHAPES,
    measure,
    measure_coswm,
    measure_dawn,
    measure_levels,
    measure_owner,
    measure_probes,
    measure_shape,
)
from dynamarks_render import render
from dynamarks_suspects import SETTINGS, SUSPECT_NAMES, suspects
from dynamarks_thieves import THIEF_SETTINGS, THIEVES, thieves
from dynamarks_world import World
from kept import environment

TRIALS = Path(__file__).parent / "results" / "dynamarks.trials.jsonl"


SPECIAL: dict[str, Callable[[World], dict[str, Any]]] = {
    "owner": measure_owner,
    "coswm-1000-probes": measure_coswm,
    "dawn": measure_dawn,
    "levels": measure_levels,
    "probes": measure_probes,
}
SHAPE = "shape of "
"""Before the name of a surrogate: what the planner needs to know of it."""


def measure_one(world: World, name: str) -> dict[str, Any]:
    """Return what is measured under one name; a surrogate that is missing is trained first."""
    if name in SPECIAL:
        return SPECIAL[name](world)
    if name.startswith(SHAPE):
        return measure_shape(world, name.removeprefix(SHAPE))
    made = thieves(world) if name in THIEVES else suspects(world)
    return measure(world, name, made[name](), settings={**SETTINGS, **THIEF_SETTINGS}.get(name, {}))


def run(seeds: list[int], names: list[str] | None) -> None:
    import torch

    torch.set_num_threads(1)
    done = {(line["seed"], line["name"]) for line in read_trials()}
    for seed in seeds:
        world: World | None = None
        wanted = [*SPECIAL, *SUSPECT_NAMES, *THIEVES, *(f"{SHAPE}{name}" for name in SHAPES)]
        for name in wanted:
            if (seed, name) in done or (names and name not in names):
                continue
            world = world or World(seed)
            started_s = time.monotonic()
            measured = measure_one(world, name)
            line = {
                "seed": seed,
                "name": name,
                "wall_s": round(time.monotonic() - started_s, 1),
                "commit": environment()["commit"],
                "measured": measured,
            }
            with TRIALS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(seed, name, line["wall_s"], measured.get("tests", {}).get("scores", {}).get("z"), flush=True)


def read_trials() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TRIALS.read_text().splitlines()] if TRIALS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "render"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME")
    options = parser.parse_args()
    if options.step == "run":
        run(options.seeds, options.only)
    (TRIALS.parent.parent / "dynamarks.md").write_text(render(read_trials(), environment()))


if __name__ == "__main__":
    main()
