"""``auditor attack``: make a surrogate the way a thief would."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.attacks.base import Attack, AttackData
    from auditor.datasets import Dataset
    from auditor.training import TrainingPlan


class AttackName(StrEnum):
    """Built-in attacks."""

    FINETUNE = "finetune"
    PRUNE = "prune"


class AttackerData(StrEnum):
    """Whose images the attacker trains with."""

    HALF_TEST = "half-test"
    OWNER = "owner"


class LayersOption(StrEnum):
    """Which weights are trained on."""

    ALL = "all"
    LAST = "last"


def attack(
    name: Annotated[AttackName, typer.Argument(help="Attack to run.")],
    victim: Annotated[Path, typer.Option("--victim", help="Model folder or model.safetensors.")],
    data: Annotated[str, typer.Option("--data", help="Data set: digits or fashion-mnist.")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for the surrogate.")],
    attacker_data: Annotated[
        AttackerData, typer.Option(help="Train with half the test images, judge on the other half; or owner's data.")
    ] = AttackerData.HALF_TEST,
    rate: Annotated[float, typer.Option(min=0.0, max=0.99, help="Pruning: share of weights set to zero.")] = 0.5,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="Epochs of fine-tuning [default: 20 for finetune, 0 for prune].")
    ] = None,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Fine-tuning: peak learning rate.")] = 0.01,
    layers: Annotated[LayersOption, typer.Option(help="Fine-tuning: layers that are trained.")] = LayersOption.ALL,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the attack's training.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print attack.json on stdout and nothing else.")] = False,
) -> None:
    """Turn a victim model into a surrogate and report task accuracy before and after."""
    from auditor import datasets
    from auditor.canonical import canonical_bytes
    from auditor.cli import console
    from auditor.models import load_model, save_model
    from auditor.schemes.delivery import new_folder

    dataset = datasets.load(data)
    model = load_model(victim)
    if model.description.input_shape != dataset.spec.shape:
        raise UsageError(f"the victim takes inputs of shape {model.description.input_shape}, not those of {data}")
    if model.description.n_outputs < len(dataset.classes):
        raise UsageError(
            f"the victim has {model.description.n_outputs} outputs, {data} has {len(dataset.classes)} classes"
        )
    n_epochs = epochs if epochs is not None else (20 if name is AttackName.FINETUNE else 0)
    plan = _plan(n_epochs, learning_rate=learning_rate, seed=seed, threads=threads)
    chosen = _build(name, plan=plan, rate=rate, layers=layers)
    folder = new_folder(out)
    with console.progress() as progress:
        surrogate = chosen.run(victim=model, data=_data(dataset, attacker_data), progress=progress)
    description = save_model(folder, surrogate.model.network, surrogate.model.description)
    record = {
        "schema": "mlaudit.attack/1",
        "data": dataset.name,
        "attacker_data": attacker_data.value,
        "victim_sha256": model.description.weights_sha256,
        "model_sha256": description.weights_sha256,
        **surrogate.as_json(),
    }
    (folder / "attack.json").write_bytes(canonical_bytes(record) + b"\n")
    if as_json:
        console.print_json(record)
        return
    before, after = surrogate.accuracy_before, surrogate.accuracy_after
    console.say(f"{name.value}: task accuracy {before:.4f} before, {after:.4f} after")
    console.say(f"written: {folder}")


def _plan(epochs: int, *, learning_rate: float, seed: int, threads: int) -> "TrainingPlan | None":
    from auditor.training import TrainingPlan

    if epochs == 0:
        return None
    return TrainingPlan(epochs=epochs, batch_size=64, learning_rate=learning_rate, seed=seed, threads=threads)


def _build(name: AttackName, *, plan: "TrainingPlan | None", rate: float, layers: LayersOption) -> "Attack":
    if name is AttackName.PRUNE:
        from auditor.attacks.prune import Prune

        return Prune(rate=rate, plan=plan)
    from auditor.attacks.finetune import FineTune, Layers

    if plan is None:
        raise UsageError("finetune needs at least one epoch")
    return FineTune(plan=plan, layers=Layers(layers.value))


def _data(dataset: "Dataset", source: AttackerData) -> "AttackData":
    from auditor.attacks.base import AttackData, half_test

    if source is AttackerData.HALF_TEST:
        return half_test(dataset.test)
    return AttackData(own=dataset.train, evaluation=dataset.test)
