"""``auditor train none``: innocent reference models, one or a panel of them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.canonical import JsonValue
from auditor.cli import train_options as opt

if TYPE_CHECKING:
    from auditor.datasets import Dataset, Part
    from auditor.records import Progress
    from auditor.training import TrainingPlan


class PartOption(StrEnum):
    """What a reference model is trained on."""

    ALL = "all"
    FIRST = "first"
    SECOND = "second"


def none(
    data: opt.Data,
    out: opt.Out,
    arch: opt.Arch = "small-cnn",
    width: opt.Width = None,
    device: opt.DeviceChoice = opt.DeviceOption.AUTO,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and batches.")] = 0,
    epochs: opt.Epochs = None,
    batch_size: opt.BatchSize = None,
    bf16: opt.Bfloat16 = None,
    compiled: opt.Compiled = False,
    panel: Annotated[
        int | None, typer.Option(min=1, help="Train this many, with seeds from --seed on, each in a folder of --out.")
    ] = None,
    part: Annotated[PartOption, typer.Option(help="Half of the training images, or all of them.")] = PartOption.ALL,
    split_seed: Annotated[int, typer.Option(min=0, help="Draws which half is which.")] = 0,
    threads: opt.Threads = 1,
    as_json: opt.AsJson = False,
) -> None:
    """Train innocent reference models, without any mark.

    Writes model.safetensors, model.json and train.json; with --panel a folder seed-NUMBER/ of these for each seed.
    """
    from dataclasses import replace

    from auditor import datasets
    from auditor.cli import console
    from auditor.schemes.delivery import new_folder
    from auditor.schemes.embedding import recipe_for

    dataset = datasets.load(data)
    plan = opt.planned(
        recipe_for(dataset).plan, seed=seed, device=device, threads=threads, epochs=epochs, batch_size=batch_size,
        bfloat16=bf16, compiled=compiled,
    )  # fmt: skip
    options = opt.architecture(arch, width, dataset)
    images = _part(dataset, part, split_seed)
    folder = new_folder(out)
    records: list[JsonValue] = []
    with console.progress() as progress:
        for offset in range(panel or 1):
            place = folder if panel is None else folder / f"seed-{seed + offset}"
            records.append(
                _train_one(
                    place, dataset=dataset, images=images, plan=replace(plan, seed=seed + offset), arch=arch,
                    options=options, split={"part": part.value, "split_seed": split_seed}, progress=progress,
                )
            )  # fmt: skip
    if as_json:
        console.print_json(records[0] if panel is None else {"panel": records})
        return
    console.say(f"written: {folder}")


def _part(dataset: "Dataset", part: PartOption, split_seed: int) -> "Part":
    from auditor.data_parts import split

    if part is PartOption.ALL:
        return dataset.train
    division = split(dataset, seed=split_seed)
    return division.owner.train if part is PartOption.FIRST else division.attacker


def _train_one(
    folder: Path,
    *,
    dataset: "Dataset",
    images: "Part",
    plan: "TrainingPlan",
    arch: str,
    options: dict[str, int],
    split: dict[str, JsonValue],
    progress: "Progress",
) -> dict[str, JsonValue]:
    from auditor import __version__
    from auditor.canonical import canonical_bytes
    from auditor.models import save_model
    from auditor.schemes.delivery import RECORD_NAME, TRAIN_SCHEMA, plan_object
    from auditor.schemes.measured import accuracy_share
    from auditor.training import train_unmarked

    model = train_unmarked(
        architecture=arch, spec=dataset.spec, inputs=images.inputs, labels=images.labels, plan=plan, options=options,
        title=f"training an unmarked model, seed {plan.seed}", progress=progress,
    )  # fmt: skip
    description = save_model(folder, model.network, model.description)
    share = accuracy_share(model, dataset.test)
    measured: dict[str, JsonValue] = {
        "scheme": "none", "data": dataset.name, "seed": plan.seed, "clean_accuracy": share.as_json(), **split,
    }  # fmt: skip
    record: dict[str, JsonValue] = {
        "schema": TRAIN_SCHEMA,
        "tool_version": __version__,
        "model_sha256": description.weights_sha256,
        "architecture": description.architecture,
        "plan": plan_object(plan),
        "measured": measured,
    }
    (folder / RECORD_NAME).write_bytes(canonical_bytes(record) + b"\n")
    progress.note(f"unmarked model, seed {plan.seed}: accuracy {share.rate:.4f} on {share.trials} test images")
    return record
