"""Trains the reference set: every scheme with a small CNN and a ResNet-18, and what each of them costs.

    python benchmarks/reference_models.py run                    # Fashion-MNIST on the CPU: about 20 CPU minutes
    python benchmarks/reference_models.py run --device cuda      # full size; CIFAR-10 too where its files are
    python benchmarks/reference_models.py run --out reference/   # keeps every trained model with its sealed keys
    python benchmarks/reference_models.py render                 # the table from the kept rows

A row is one training by the tool's own recipe for the data set, in a process of its own. Its seconds are those of the
training steps alone; a marked row is given its unmarked twin, which is the row ``none``. On the CPU a ResNet-18 sees
fewer images for fewer epochs, and fewer test images judge it; the row says how many. On a GPU nothing is cut.

Every row is one line of ``benchmarks/results/reference_models.rows.jsonl`` with the settings that made it. A row
whose settings are already there is not trained again; ``render`` trains nothing.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from kept import keep, kept_by_id
from stopwatch import Stopwatch

from auditor import datasets
from auditor.canonical import sha256_hex
from auditor.datasets import Dataset
from auditor.draws import Secret
from auditor.errors import MissingPartError
from auditor.evidence.signing import SigningKey
from auditor.models import SMALL_CNN, WEIGHTS_NAME, LoadedModel, load_model, save_model
from auditor.models.resnet import RESNET18
from auditor.schemes import embedding, margin
from auditor.schemes.base import LabelCode, TrainedScheme, pattern_scheme
from auditor.schemes.carriers import default_sizes
from auditor.schemes.delivery import deliver
from auditor.schemes.embedding import train_twin
from auditor.schemes.measured import accuracy_share
from auditor.schemes.owner import train_owner
from auditor.training import Device, TrainingPlan

HERE = Path(__file__).parent
ROWS = HERE / "results" / "reference_models.rows.jsonl"
PAGE = HERE / "reference_models.md"
FORMAT = 1
UNMARKED = "none"
PATTERNS = ("new-label", "wrong-label")
TRIGGERS = {scheme.name: scheme for scheme in (margin.Margin, margin.PlainTrigger)}
SCHEMES = (UNMARKED, *PATTERNS, *TRIGGERS)
ARCHITECTURES = (SMALL_CNN, RESNET18)
DATA = ("fashion-mnist", "cifar10")
SEALED_AT = "2026-01-01T00:00:00.000Z"
"""Of the kept models; a benchmark has no clock of record."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is cut; None leaves it as the data set or the recipe has it."""

    n_train: int | None = None
    n_carriers: int | None = None
    n_test: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None


FULL = Size()
CUT = {RESNET18: Size(n_train=2_048, n_carriers=500, n_test=200, epochs=3, batch_size=64, learning_rate=0.05)}
"""By architecture, on the CPU: a step of a ResNet-18 costs some ninety times one of the small network.

With 1,024 images, two epochs and the recipe's rate it learned nothing (the kept row with an accuracy of 0.12).
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training; everything that could change it is in here or in its plan and settings."""

    data: str
    architecture: str
    scheme: str
    seed: int
    device: str

    @property
    def size(self) -> Size:
        return CUT.get(self.architecture, FULL) if self.device == "cpu" else FULL

    def work(self, dataset: Dataset) -> tuple[TrainedScheme | None, TrainingPlan, int | None]:
        """Return scheme, plan and number of keys; the recipe is the scheme's own, bfloat16 everywhere."""
        size, found, n_keys = self.size, None, None
        if self.scheme in TRIGGERS:
            recipe = margin.recipe_for(dataset)
            plan, n_keys = recipe.plan, recipe.n_keys
            found = TRIGGERS[self.scheme](recipe.settings)
        else:
            pattern = embedding.recipe_for(dataset)
            plan = pattern.plan
            if self.scheme != UNMARKED:
                # With the code decided, a row is one training.
                found = pattern_scheme(self.scheme, replace(pattern.settings, label_code=LabelCode.ON))
        changed: dict[str, Any] = {
            "epochs": size.epochs,
            "batch_size": size.batch_size,
            "learning_rate": size.learning_rate,
        }
        changed = {name: value for name, value in changed.items() if value is not None}
        plan = replace(plan, seed=self.seed, device=Device(self.device), threads=1, bfloat16=True, **changed)
        return found, plan, n_keys

    def identity(self, dataset: Dataset) -> str:
        scheme, plan, n_keys = self.work(dataset)
        settings = None if scheme is None else scheme.recorded_settings.as_json()
        cut_to = {name: value for name, value in asdict(self.size).items() if value is not None}
        parts = [FORMAT, asdict(self), cut_to, asdict(plan), settings, n_keys]
        return sha256_hex(json.dumps(parts, sort_keys=True, default=str).encode())[:16]


def cut(dataset: Dataset, size: Size) -> Dataset:
    """Return a data set with the first images of each part; the order of the parts is a drawn one."""
    kept = {"train": size.n_train, "carriers": size.n_carriers, "test": size.n_test}
    parts = {
        name: getattr(dataset, name).take(np.arange(n)) for name, n in kept.items() if n is not None
    }  # fmt: skip
    return replace(dataset, **parts)


def train_row(row: Row, out: Path) -> dict[str, Any]:
    """Train one row; runs in a process of its own, so that the peak of its memory is its own."""
    import torch

    torch.set_num_threads(1)
    dataset = cut(datasets.load(row.data), row.size)
    scheme, plan, n_keys = row.work(dataset)
    before = peak_bytes("cpu")
    watch = Stopwatch()
    measured: dict[str, Any]
    if scheme is None:
        model = train_twin(dataset=dataset, plan=plan, architecture=row.architecture, progress=watch)
        memory = peak_bytes(row.device)
        save_model(unmarked_folder(row, plan, out), model.network, model.description)
        measured = {"clean": asdict(accuracy_share(model, dataset.test))}
    else:
        twin = twin_of(row, dataset, plan, out)
        # Nobody gave randomness to a benchmark; its seed is fixed, so that a row can be made again.
        secret = Secret(bytes.fromhex(sha256_hex(f"reference secret {row.seed}".encode())))
        keys = {} if n_keys is None else {"n_keys": n_keys}
        sizes = default_sizes(randomness=False, scheme=scheme, **keys)
        result = train_owner(
            scheme=scheme, dataset=dataset, secret=secret, plan=plan, architecture=row.architecture,
            sizes=sizes, twin=twin, progress=watch,
        )  # fmt: skip
        memory = peak_bytes(row.device)
        folder = folder_of(row, out)
        folder.mkdir(parents=True, exist_ok=True)
        deliver(
            folder, result=result, plan=plan, key=SigningKey.generate(), sealed_at=SEALED_AT, keep_twin=False
        )  # fmt: skip
        record = result.record
        measured = {
            "clean": asdict(record.clean), "twin": asdict(record.twin), "keys": asdict(record.keys),
            "misses": list(record.misses), "settings": scheme.recorded_settings.as_json(),
        }  # fmt: skip
    n_images = watch.n_steps * min(plan.batch_size, len(dataset.train))
    return {
        "id": row.identity(datasets.load(row.data)), "row": asdict(row), "n_train": len(dataset.train),
        "epochs": plan.epochs, "batch_size": plan.batch_size, "learning_rate": plan.learning_rate,
        "measured": measured, "images": n_images,
        "wall_seconds": round(watch.wall_seconds, 2), "cpu_seconds": round(watch.cpu_seconds, 2),
        "memory_bytes": memory, "memory_before_bytes": before,
        "gpu": torch.cuda.get_device_name() if row.device == "cuda" else "",
    }  # fmt: skip


def peak_bytes(device: str) -> int:
    """Return the largest memory so far: of the GPU's allocator, or of this process (kibibytes on Linux)."""
    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def folder_of(row: Row, out: Path) -> Path:
    return out / f"{row.data}-{row.architecture}-{row.scheme}-seed-{row.seed}-{row.device}"


def unmarked_folder(row: Row, plan: TrainingPlan, out: Path) -> Path:
    """Return where the unmarked model of a recipe lies; schemes with one recipe share it."""
    return folder_of(replace(row, scheme=UNMARKED), out) / sha256_hex(repr(plan).encode())[:8]


def twin_of(row: Row, dataset: Dataset, plan: TrainingPlan, out: Path) -> LoadedModel:
    """Return the unmarked model of the same recipe, trained now where it is not there."""
    folder = unmarked_folder(row, plan, out)
    if not (folder / WEIGHTS_NAME).exists():
        twin = train_twin(dataset=dataset, plan=plan, architecture=row.architecture)
        save_model(folder, twin.network, twin.description)
    return load_model(folder)


def planned(options: argparse.Namespace) -> list[tuple[str, Row]]:
    """Return the wanted rows of the data sets that are here, with their identities."""
    rows = []
    for data in options.data:
        try:
            dataset = datasets.load(data)
        except MissingPartError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for scheme in options.schemes:
            for architecture in options.architectures:
                for seed in range(1, options.seeds + 1):
                    row = Row(data=data, architecture=architecture, scheme=scheme, seed=seed, device=options.device)
                    rows.append((row.identity(dataset), row))
    return rows


def run(options: argparse.Namespace) -> None:
    options.data = options.data or (DATA if options.device == "cuda" else DATA[:1])
    done = kept_by_id(ROWS)
    todo = [row for identity, row in planned(options) if identity not in done]
    print(f"{len(todo)} rows to train, {len(done)} kept", file=sys.stderr)
    ROWS.parent.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, max_tasks_per_child=1, mp_context=context) as pool:
            for count, row in enumerate(todo, start=1):
                record = pool.submit(train_row, row, out).result()
                keep(ROWS, record)
                print(f"{count}/{len(todo)} {record['row']} {record['cpu_seconds']}", file=sys.stderr, flush=True)


def render(_: argparse.Namespace) -> None:
    from reference_models_render import page

    rows = list(kept_by_id(ROWS).values())
    if not rows:
        raise SystemExit("no kept rows: run `python benchmarks/reference_models.py run` first")
    PAGE.write_text(page(rows))
    print(f"written: {PAGE}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="train the rows that are not kept yet")
    runner.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default cpu)")
    runner.add_argument("--data", nargs="+", choices=DATA, help="only these (default: fashion-mnist; on cuda all here)")
    runner.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES, help="only these")
    runner.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES, help="only these")
    runner.add_argument("--seeds", type=int, default=1, help="the first so many seeds (default 1)")
    runner.add_argument("--out", type=Path, help="folder for the trained models and keys (default: none is kept)")
    runner.set_defaults(work=run)
    commands.add_parser("render", help="write the page from the kept rows").set_defaults(work=render)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
