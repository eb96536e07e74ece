"""``auditor attack``: make a surrogate the way a thief would."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli import attack_options as options
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.attacks.base import Attack, AttackData, Surrogate
    from auditor.attacks.settings import Settings
    from auditor.canonical import JsonValue
    from auditor.datasets import Dataset
    from auditor.records import Progress

SCHEMA = "mlaudit.attack/1"
RECORD_NAME = "attack.json"
WEB = ("http://", "https://")


class AttackerData(StrEnum):
    """Whose images the attacker trains with."""

    HALF_TEST = "half-test"
    OWNER = "owner"
    REST = "rest"
    FOREIGN = "foreign"


def attack(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="adversarial, answers, distill, ensemble, extract, finetune, invert, noise, overwrite, preprocess, "
            "prune, quantize, unlearn, or one of a plug-in."
        ),
    ],
    victim: Annotated[str, typer.Option("--victim", help="Model folder or model.safetensors; extract: or a URL.")],
    data: Annotated[str, typer.Option("--data", help="The victim's task: digits or fashion-mnist.")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for the surrogate.")],
    preset: Annotated[str | None, typer.Option(help="Named settings; an unknown name lists those there are.")] = None,
    attacker_data: Annotated[
        AttackerData,
        typer.Option(
            help="half-test: half the test images, judged on the other half; rest: training images that are not in "
            "the owner's share; owner: the owner's; foreign: of another data set."
        ),
    ] = AttackerData.HALF_TEST,
    owner_share: Annotated[float, typer.Option(help="With rest: the owner's share of the training images.")] = 0.5,
    split_seed: Annotated[int, typer.Option(min=0, help="With rest: which division of the training images.")] = 0,
    foreign: Annotated[str | None, typer.Option(help="With foreign: name of the other data set.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of any other setting.")] = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    seed: options.Seed = None,
    device: options.Device = None,
    threads: options.Threads = 1,
    taught: options.Taught = None,
    k: options.K = None,
    decimals: options.Decimals = None,
    budget: options.Budget = None,
    architecture: options.Architecture = None,
    temperature: options.Temperature = None,
    mix: options.Mix = None,
    temperature_squared: options.TemperatureSquared = None,
    confident: options.Confident = None,
    hide_new_labels: options.HideNewLabels = None,
    answers_file: options.AnswersFile = None,
    layers: options.Layers = None,
    fresh_head: options.FreshHead = None,
    radius: options.Radius = None,
    step: options.Step = None,
    steps: options.Steps = None,
    clean_share: options.CleanShare = None,
    copies: options.Copies = None,
    drop_outputs: options.DropOutputs = None,
    rounds: options.Rounds = None,
    weight: options.Weight = None,
    rate: options.Rate = None,
    structure: options.Structure = None,
    last_only: options.LastOnly = None,
    bits: options.Bits = None,
    activation_bits: options.ActivationBits = None,
    scale: options.Scale = None,
    mark: options.SecondMark = None,
    beta: options.Beta = None,
    key_share: options.KeyShare = None,
    others: options.Others = None,
    n_others: options.NOthers = None,
    with_victim: options.WithVictim = None,
    combination: options.Combination = None,
    kind: options.Kind = None,
    strength: options.Strength = None,
    value: options.Value = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print attack.json on stdout and nothing else.")] = False,
) -> None:
    """Turn a victim model into a surrogate and report task accuracy before and after."""
    # Three dozen settings are handed on by name; the signature is their declaration.
    given = {setting: ctx.params[setting] for setting in options.SETTINGS if ctx.params[setting] is not None}
    given.update(_settings(set_ or []))
    chosen = _build(name, given, preset=preset, threads=threads)
    dataset, mine, about = _data(
        data, source=attacker_data.value, owner_share=owner_share, split_seed=split_seed, foreign=foreign
    )
    _attack(
        _Work(chosen=chosen, victim=victim, dataset=dataset, data=mine, answers_file=answers_file, threads=threads),
        out=out,
        about={**about, "preset": preset},
        as_json=as_json,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    chosen: "Attack"
    victim: str
    """Path or address."""
    dataset: "Dataset"
    data: "AttackData"
    answers_file: Path | None
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    surrogate: "Surrogate"
    victim: "Mapping[str, JsonValue]"
    """What the record says about the victim."""


def _settings(texts: Sequence[str]) -> dict[str, "JsonValue | float"]:
    """Return NAME=VALUE pairs; a value that is JSON is read as such, anything else is text."""
    found: dict[str, JsonValue | float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--set takes NAME=VALUE, not {text!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _build(name: str, given: "Settings", *, preset: str | None, threads: int) -> "Attack":
    from auditor.attacks import build_attack
    from auditor.attacks.base import attack_class
    from auditor.attacks.settings import setting_names

    trains = "threads" in setting_names(attack_class(name))
    return build_attack(name, {**({"threads": threads} if trains else {}), **given}, preset=preset)


def _data(
    name: str, *, source: str, owner_share: float, split_seed: int, foreign: str | None
) -> "tuple[Dataset, AttackData, dict[str, JsonValue]]":
    from auditor import datasets
    from auditor.attacks.data import Source
    from auditor.attacks.data import attacker_data as attackers
    from auditor.canonical import decimal_string

    dataset = datasets.load(name)
    other = datasets.load(foreign) if foreign is not None else None
    mine = attackers(dataset, source=Source(source), owner_share=owner_share, split_seed=split_seed, foreign=other)
    about: dict[str, JsonValue] = {"data": dataset.name, "attacker_data": source}
    about |= {"own_images": len(mine.own), "evaluation_images": len(mine.evaluation)}
    if source == Source.REST:
        about |= {"owner_share": decimal_string(owner_share), "split_seed": split_seed}
    if other is not None:
        about["foreign"] = other.name
    return dataset, mine, about


def _attack(work: _Work, *, out: Path, about: "Mapping[str, JsonValue]", as_json: bool) -> None:
    from auditor import wrapped
    from auditor.canonical import canonical_bytes
    from auditor.cli import console
    from auditor.schemes.delivery import new_folder

    existed = out.exists()
    folder = new_folder(out)
    try:
        with console.progress() as progress:
            done = _on_service(work, progress) if work.victim.startswith(WEB) else _on_model(work, progress)
    except BaseException:
        if not existed:
            # Kept answers may lie in it; they were paid for.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    surrogate = done.surrogate
    saved = wrapped.save(folder, surrogate.model)
    record: dict[str, JsonValue] = {
        "schema": SCHEMA,
        **about,
        **done.victim,
        "model_sha256": saved.description.weights_sha256,
        **surrogate.as_json(),
    }
    (folder / RECORD_NAME).write_bytes(canonical_bytes(record) + b"\n")
    if as_json:
        console.print_json(record)
        return
    console.say(_summary(surrogate))
    console.say(f"written: {folder}")


def _on_service(work: _Work, progress: "Progress") -> _Done:
    import torch

    from auditor.attacks.extract import Extract
    from auditor.suspects import open_suspect

    if not isinstance(work.chosen, Extract):
        raise UsageError(f"{work.chosen.name} needs the model itself; only extract works on a service")
    torch.set_num_threads(work.threads)
    with open_suspect(endpoint=work.victim) as suspect:
        uri = suspect.describe().suspect.uri
        surrogate = work.chosen.run_on_service(
            suspect=suspect,
            data=work.data,
            classes=work.dataset.classes,
            progress=progress,
            answers_file=work.answers_file,
        )
    return _Done(surrogate=surrogate, victim={"victim_uri": uri, "victim_sha256": ""})


def _on_model(work: _Work, progress: "Progress") -> _Done:
    import torch

    from auditor import wrapped
    from auditor.attacks.extract import Extract

    torch.set_num_threads(work.threads)
    model = wrapped.load(Path(work.victim))
    description, spec = model.description, work.dataset.spec
    if description.input_shape != spec.shape:
        raise UsageError(
            f"the victim takes inputs of shape {description.input_shape}, not those of {work.dataset.name}"
        )
    if description.n_outputs < len(spec.classes):
        raise UsageError(
            f"the victim has {description.n_outputs} outputs, {work.dataset.name} has {len(spec.classes)} classes"
        )
    about: dict[str, JsonValue] = {"victim_uri": "", "victim_sha256": description.weights_sha256}
    if isinstance(work.chosen, Extract):
        surrogate = work.chosen.run(victim=model, data=work.data, progress=progress, answers_file=work.answers_file)
    elif work.answers_file is not None:
        raise UsageError(f"{work.chosen.name} buys no answers that could be kept in a file")
    else:
        surrogate = work.chosen.run(victim=model, data=work.data, progress=progress)
    return _Done(surrogate=surrogate, victim=about)


def _summary(surrogate: "Surrogate") -> str:
    before = "not measured" if surrogate.accuracy_before is None else f"{surrogate.accuracy_before:.4f}"
    text = f"{surrogate.attack}: task accuracy {before} before, {surrogate.accuracy_after:.4f} after"
    if surrogate.queries:
        text += f"; {surrogate.queries} queries"
    if surrogate.answers_right is not None:
        text += f", answered right at {surrogate.answers_right:.4f}"
    return text
