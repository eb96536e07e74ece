"""Options that several ``train`` commands share."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.canonical import JsonValue, decimal_string
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.training import TrainingPlan


class DeviceOption(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


Data = Annotated[
    str,
    typer.Option(
        "--data", help="Data set: digits, fashion-mnist, mnist, cifar10, cifar100, svhn, npz:FILE, folder:DIR."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="New or empty folder for the results.")]
Arch = Annotated[str, typer.Option(help="Architecture: small-cnn, mlp, resnet18, resnet34 or resnet50.")]
Width = Annotated[
    int | None, typer.Option(min=1, help="Channels of its first block.", show_default="the architecture's")
]
DeviceChoice = Annotated[DeviceOption, typer.Option(help="Where to compute.")]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of weights and batches only; the secret always comes from the system.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the data.", show_default="per data set")]
BatchSize = Annotated[
    int | None, typer.Option(min=2, help="Ordinary images in a training step.", show_default="per data set")
]
Bfloat16 = Annotated[
    bool | None, typer.Option("--bf16/--no-bf16", help="Compute activations in bfloat16.", show_default="per data set")
]
Compiled = Annotated[
    bool,
    typer.Option("--compile", help="Run the network through torch.compile: minutes at first, needs a C++ compiler."),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print train.json on stdout and nothing else.")]
OwnerKey = Annotated[
    Path | None,
    typer.Option(help="Ed25519 key that signs the seal, PEM or PKCS#12.", show_default="a new one in --out"),
]
Tsa = Annotated[
    list[str] | None, typer.Option("--tsa", help="Address of a time authority that stamps the seal; repeatable.")
]
CommitOnly = Annotated[
    bool, typer.Option("--commit-only", help="Write k.commit.json and stop, until the randomness is known.")
]
CommitmentFolder = Annotated[
    Path | None, typer.Option(help="Folder of an earlier --commit-only, to go on from with public randomness.")
]
Beacon = Annotated[
    str | None, typer.Option(help="Value of a public beacon, drawn after the commitment: 16 to 64 bytes in hex.")
]
JudgeNonce = Annotated[str | None, typer.Option(help="Value that a judge gave after receiving the commitment, in hex.")]
RandomnessFile = Annotated[Path | None, typer.Option(help="RFC 3161 time-stamp token over k.commit.json, as a file.")]
Recipients = Annotated[
    list[str] | None,
    typer.Option("--recipient", help="age recipient (age1…) for k.npz; repeatable, or AUDITOR_PASSPHRASE."),
]
OwnerShare = Annotated[
    float | None,
    typer.Option(help="Train on this share of the training images; `attack --attacker-data rest` has the others."),
]
SplitSeed = Annotated[int, typer.Option(min=0, help="With --owner-share: which of the possible divisions.")]
Twin = Annotated[bool, typer.Option("--twin/--no-twin", help="Also write the unmarked twin.")]
CheckpointEvery = Annotated[
    int | None, typer.Option(min=1, help="Keep the state of the training every so many steps, for --resume.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on in --out after a kill; everything else as in the first command.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerOptions:
    """What every marked training takes beside scheme, data and plan."""

    out: Path
    owner_key: Path | None
    tsa: tuple[str, ...]
    commit_only: bool
    commitment: Path | None
    beacon: str | None
    judge_nonce: str | None
    randomness_file: Path | None
    recipients: tuple[str, ...]
    twin: bool
    as_json: bool
    checkpoint_every: int | None = None
    resume: bool = False


def planned(
    plan: "TrainingPlan",
    *,
    seed: int,
    device: DeviceOption,
    threads: int,
    epochs: int | None,
    batch_size: int | None = None,
    bfloat16: bool | None = None,
    compiled: bool = False,
) -> "TrainingPlan":
    """Return a recipe's plan with what the command line changes.

    Raises:
        UsageError: the device is not there, or the plan cannot be followed.
    """
    from dataclasses import replace

    from auditor.training import Device, resolve_device

    changed = replace(plan, seed=seed, device=Device(device.value), threads=threads, compiled=compiled)
    if epochs is not None:
        # A schedule in steps keeps its shape when the training gets shorter or longer.
        drops = tuple(drop * epochs // plan.epochs for drop in plan.drops)
        changed = replace(changed, epochs=epochs, drops=tuple(sorted({d for d in drops if 0 < d < epochs})))
    if batch_size is not None:
        changed = replace(changed, batch_size=batch_size)
    if bfloat16 is not None:
        changed = replace(changed, bfloat16=bfloat16)
    if changed.problem():
        raise UsageError(changed.problem())
    resolve_device(changed.device)
    return changed


def architecture(arch: str, width: int | None, dataset: "Dataset") -> dict[str, int]:
    """Return the architecture's settings, after checking that it fits the data.

    Raises:
        UsageError: it is not known or does not fit.
    """
    from auditor.models import describe, width_options

    options = {} if width is None else width_options(arch, width)
    return dict(describe(arch, input_shape=dataset.spec.shape, classes=dataset.classes, options=options).options)


def owned(data: str, *, share: float | None, split_seed: int) -> "Dataset":
    """Return a data set with the owner's share of the training images, or with all of them.

    Raises:
        UsageError: no such data set, or a share that leaves somebody without images.
        MissingPartError: its files are not on this machine.
    """
    from auditor import datasets
    from auditor.data_parts import split

    dataset = datasets.load(data)
    return dataset if share is None else split(dataset, share=share, seed=split_seed).owner


def division(share: float | None, split_seed: int) -> dict[str, JsonValue]:
    """Return what the record says about the division of the training images; nothing where there was none."""
    return {} if share is None else {"owner_share": decimal_string(share), "split_seed": split_seed}
