"""``auditor train``: mark a model, measure the mark, seal the claim."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.evidence.signing import SigningKey
    from auditor.records import Progress
    from auditor.schemes.base import MarkSettings, TrainedScheme
    from auditor.schemes.embedding import EmbedRecord
    from auditor.training import TrainingPlan

KEY_NAME = "owner.key.pem"
PUBLIC_NAME = "owner.pub.pem"
BETA_LADDER = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
AUTO = "auto"


class TrainScheme(StrEnum):
    """What is trained."""

    NEW_LABEL = "new-label"
    WRONG_LABEL = "wrong-label"
    NONE = "none"


class LabelCodeOption(StrEnum):
    """The label code on the command line."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class DeviceOption(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def train(
    scheme: Annotated[TrainScheme, typer.Argument(help="Mark to embed; 'none' trains an innocent reference.")],
    data: Annotated[str, typer.Option("--data", help="Data set: digits or fashion-mnist.")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for the results.")],
    arch: Annotated[str, typer.Option(help="Architecture: small-cnn or mlp.")] = "small-cnn",
    device: Annotated[DeviceOption, typer.Option(help="Where to compute.")] = DeviceOption.AUTO,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of weights and batches only; the secret always comes from the system.")
    ] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data [default: per data set].")] = None,
    alpha_keys: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the training images that carry the mark.")
    ] = 0.01,
    beta: Annotated[
        str | None,
        typer.Option(help="Amplitude of the pattern on the [0, 1] scale, or 'auto' [default: per data set]."),
    ] = None,
    sham_ratio: Annotated[
        int | None, typer.Option(min=0, help="Sham negatives per key; 0 is the published recipe [default: 3].")
    ] = None,
    label_code: Annotated[
        LabelCodeOption, typer.Option(help="Also train keys towards a drawn derangement of their labels.")
    ] = LabelCodeOption.AUTO,
    owner_key: Annotated[
        Path | None, typer.Option(help="Ed25519 key that signs the seal, PEM or PKCS#12 [default: a new one in --out].")
    ] = None,
    tsa: Annotated[
        list[str] | None,
        typer.Option("--tsa", help="Address of a time authority that stamps the seal; repeatable."),
    ] = None,
    twin: Annotated[bool, typer.Option(help="Also write the unmarked twin.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print train.json on stdout and nothing else.")] = False,
) -> None:
    """Train a marked model, measure it against its unmarked twin, and seal keys and protocol.

    Writes model.safetensors, model.json, k.npz, k.seal.json (with its time stamps, k.seal.1.tsr ..., where --tsa names
    an authority), train.json, twin/ and, unless --owner-key is given,
    owner.key.pem. Exit code 8: everything was written, but the mark missed a target that train.json names.
    """
    from dataclasses import replace

    from auditor import datasets
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.evidence.token_files import add_beside
    from auditor.schemes.delivery import SEAL_NAME, new_folder
    from auditor.schemes.embedding import RECIPES
    from auditor.time_authority import TimeAuthorities
    from auditor.training import Device, resolve_device

    dataset = datasets.load(data)
    recipe = RECIPES[data]
    plan = replace(recipe.plan, seed=seed, device=Device(device.value), threads=threads)
    if epochs is not None:
        plan = replace(plan, epochs=epochs)
    resolve_device(plan.device)
    _check_architecture(arch, dataset)
    signing_key = None if owner_key is None else read_key(owner_key)
    authorities = TimeAuthorities(tsa or ())
    if scheme is TrainScheme.NONE:
        _train_unmarked(new_folder(out), dataset=dataset, plan=plan, arch=arch, as_json=as_json)
        return
    settings = _settings(
        recipe.settings, alpha_keys=alpha_keys, beta=beta, sham_ratio=sham_ratio, label_code=label_code
    )
    folder = new_folder(out)
    with console.progress() as progress:
        record = _train_marked(
            folder,
            name=scheme.value,
            settings=settings,
            calibrate=beta == AUTO,
            dataset=dataset,
            plan=plan,
            arch=arch,
            key=signing_key,
            keep_twin=twin,
            progress=progress,
        )
    add_beside(folder / SEAL_NAME, authorities.stamp((folder / SEAL_NAME).read_bytes()))
    _show(folder, record, as_json=as_json)
    from auditor.schemes.embedding import require_targets

    require_targets(record)


def _check_architecture(arch: str, dataset: "Dataset") -> None:
    from auditor.models import default_options

    default_options(arch, input_shape=dataset.spec.shape)


def _settings(
    defaults: "MarkSettings",
    *,
    alpha_keys: float,
    beta: str | None,
    sham_ratio: int | None,
    label_code: LabelCodeOption,
) -> "MarkSettings":
    from dataclasses import replace

    from auditor.schemes.base import LabelCode

    chosen = replace(defaults, alpha_keys=alpha_keys, label_code=LabelCode(label_code.value))
    if sham_ratio is not None:
        chosen = replace(chosen, sham_ratio=sham_ratio)
    if beta is None or beta == AUTO:
        return chosen
    try:
        return replace(chosen, beta=float(beta))
    except ValueError as error:
        raise UsageError("--beta must be a number or 'auto'") from error


def _train_unmarked(folder: Path, *, dataset: "Dataset", plan: "TrainingPlan", arch: str, as_json: bool) -> None:
    from auditor import __version__
    from auditor.canonical import JsonValue, canonical_bytes
    from auditor.cli import console
    from auditor.models import labels_of, save_model
    from auditor.schemes.delivery import RECORD_NAME, TRAIN_SCHEMA, plan_object
    from auditor.schemes.embedding import Share
    from auditor.training import train_unmarked

    with console.progress() as progress:
        model = train_unmarked(
            architecture=arch,
            spec=dataset.spec,
            inputs=dataset.train.inputs,
            labels=dataset.train.labels,
            plan=plan,
            progress=progress,
        )
    description = save_model(folder, model.network, model.description)
    correct = int((labels_of(model.network, dataset.test.inputs) == dataset.test.labels).sum())
    share = Share(hits=correct, trials=len(dataset.test))
    record: dict[str, JsonValue] = {
        "schema": TRAIN_SCHEMA,
        "tool_version": __version__,
        "model_sha256": description.weights_sha256,
        "architecture": description.architecture,
        "plan": plan_object(plan),
        "measured": {"scheme": "none", "data": dataset.name, "seed": plan.seed, "clean_accuracy": share.as_json()},
    }
    (folder / RECORD_NAME).write_bytes(canonical_bytes(record) + b"\n")
    if as_json:
        console.print_json(record)
        return
    console.say(f"unmarked model: accuracy {share.rate:.4f} on {share.trials} test images")
    console.say(f"written: {folder}")


def _train_marked(
    folder: Path,
    *,
    name: str,
    settings: "MarkSettings",
    calibrate: bool,
    dataset: "Dataset",
    plan: "TrainingPlan",
    arch: str,
    key: "SigningKey | None",
    keep_twin: bool,
    progress: "Progress",
) -> "EmbedRecord":
    import os
    from dataclasses import replace
    from datetime import UTC, datetime

    from auditor.draws import Secret
    from auditor.evidence.signing import SigningKey
    from auditor.evidence.times import utc_text
    from auditor.schemes.base import scheme_class
    from auditor.schemes.delivery import deliver
    from auditor.schemes.embedding import calibrate_beta
    from auditor.schemes.owner import train_owner

    secret = Secret(os.urandom(32))
    scheme: TrainedScheme = scheme_class(name)(settings)
    if calibrate:
        found = calibrate_beta(
            scheme=scheme,
            dataset=dataset,
            secret=secret,
            plan=plan,
            ladder=BETA_LADDER,
            architecture=arch,
            progress=progress,
        )
        scheme = scheme_class(name)(replace(settings, beta=found))
    result = train_owner(scheme=scheme, dataset=dataset, secret=secret, plan=plan, architecture=arch, progress=progress)
    signing_key = key
    if signing_key is None:
        signing_key = SigningKey.generate()
        signing_key.write_pem(folder / KEY_NAME)
    (folder / PUBLIC_NAME).write_bytes(signing_key.public_pem())
    sealed_at = utc_text(datetime.now(UTC))
    deliver(folder, result=result, plan=plan, key=signing_key, sealed_at=sealed_at, keep_twin=keep_twin)
    return result.record


def _show(folder: Path, record: "EmbedRecord", *, as_json: bool) -> None:
    from auditor.canonical import parse_object
    from auditor.cli import console
    from auditor.schemes.delivery import RECORD_NAME

    if as_json:
        console.print_json(parse_object((folder / RECORD_NAME).read_bytes(), what=RECORD_NAME))
        return
    rows = [
        ("clean accuracy, marked", record.clean),
        ("clean accuracy, unmarked twin", record.twin),
        ("fresh keys that hit", record.keys),
        ("foreign patterns that hit", record.shams),
        ("unmarked images answered with the target", record.target_on_clean),
    ]
    if record.code_when_masked is not None:
        rows.append(("label code, new label hidden", record.code_when_masked))
    cells = []
    for title, share in rows:
        interval = share.interval()
        cells.append((title, f"{share.rate:.4f}", f"{interval.low:.4f}-{interval.high:.4f}", str(share.trials)))
    console.table(f"{record.scheme} on {record.data}", ("figure", "rate", "95 % interval", "trials"), cells)
    console.say(f"worst foreign pattern: {record.worst_sham_rate:.4f}; key carriers: {record.n_key_carriers}")
    console.say(f"written: {folder}")
