"""``auditor train``: mark a model, measure the mark, seal the claim."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli.drawing import public_randomness, read_draft, write_draft
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.evidence.encryption import Locks
    from auditor.evidence.seal import RandomnessSource
    from auditor.evidence.signing import SigningKey
    from auditor.records import Progress
    from auditor.schemes.base import MarkSettings, TrainedScheme
    from auditor.schemes.embedding import EmbedRecord
    from auditor.schemes.owner import Committed
    from auditor.training import TrainingPlan

COMMITMENT_NAME = "k.commit.json"
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
    commit_only: Annotated[
        bool, typer.Option("--commit-only", help="Write k.commit.json and stop, until the randomness is known.")
    ] = False,
    commitment: Annotated[
        Path | None, typer.Option(help="Folder of an earlier --commit-only, to go on from with public randomness.")
    ] = None,
    beacon: Annotated[
        str | None, typer.Option(help="Value of a public beacon, drawn after the commitment: 16 to 64 bytes in hex.")
    ] = None,
    judge_nonce: Annotated[
        str | None, typer.Option(help="Value that a judge gave after receiving the commitment, in hex.")
    ] = None,
    randomness_file: Annotated[
        Path | None, typer.Option(help="RFC 3161 time-stamp token over k.commit.json, as a file.")
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(help="age recipient (age1…) that k.npz is encrypted to; repeatable [or AUDITOR_PASSPHRASE]."),
    ] = None,
    twin: Annotated[bool, typer.Option(help="Also write the unmarked twin.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print train.json on stdout and nothing else.")] = False,
) -> None:
    """Train a marked model, measure it against its unmarked twin, and seal keys and protocol.

    Carriers, generator, seed and plan are committed to first (k.commit.json); pattern, labels and order are drawn from
    the seed together with the public randomness. Without any, 2^64 tries are charged to the level.

    Writes model.safetensors, model.json, k.npz, k.seal.json (with its time stamps, k.seal.1.tsr ..., where --tsa names
    an authority), train.json, twin/ and, unless --owner-key is given,
    owner.key.pem. Exit code 8: everything was written, but the mark missed a target that train.json names.
    """
    from dataclasses import replace

    from auditor import casefile, datasets
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
    locks = casefile.locks(recipient or ())
    source, drawn = public_randomness(beacon=beacon, judge_nonce=judge_nonce, token=randomness_file)
    if commitment is not None and signing_key is None:
        signing_key = read_key(commitment / KEY_NAME)
    if (commit_only and (drawn or commitment is not None)) or (commitment is not None and not drawn):
        raise UsageError("--commit-only takes no randomness yet, and --commitment goes on with public randomness")
    settings = _settings(
        recipe.settings, alpha_keys=alpha_keys, beta=beta, sham_ratio=sham_ratio, label_code=label_code
    )
    folder = new_folder(out)
    with console.progress() as progress:
        chosen = _scheme(
            scheme.value, settings, calibrate=beta == AUTO, dataset=dataset, plan=plan, arch=arch, progress=progress
        )
        committed, key = _commit(
            folder, scheme=chosen, dataset=dataset, key=signing_key, draft=commitment, later=commit_only or bool(drawn)
        )
        if commit_only:
            write_draft(folder, committed)
            console.say(f"committed: {folder / COMMITMENT_NAME}")
            return
        record = _train_marked(
            folder,
            scheme=chosen,
            committed=committed,
            source=source,
            randomness=drawn,
            dataset=dataset,
            plan=plan,
            arch=arch,
            key=key,
            locks=locks,
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


def _scheme(
    name: str,
    settings: "MarkSettings",
    *,
    calibrate: bool,
    dataset: "Dataset",
    plan: "TrainingPlan",
    arch: str,
    progress: "Progress",
) -> "TrainedScheme":
    import os
    from dataclasses import replace

    from auditor.draws import Secret
    from auditor.schemes.base import scheme_class
    from auditor.schemes.embedding import calibrate_beta

    scheme: TrainedScheme = scheme_class(name)(settings)
    if not calibrate:
        return scheme
    # The amplitude is part of the commitment, so that it is found with a secret of its own, thrown away after.
    found = calibrate_beta(
        scheme=scheme,
        dataset=dataset,
        secret=Secret(os.urandom(32)),
        plan=plan,
        ladder=BETA_LADDER,
        architecture=arch,
        progress=progress,
    )
    return scheme_class(name)(replace(settings, beta=found))


def _commit(
    folder: Path,
    *,
    scheme: "TrainedScheme",
    dataset: "Dataset",
    key: "SigningKey | None",
    draft: Path | None,
    later: bool,
) -> "tuple[Committed, SigningKey]":
    """Write ``k.commit.json`` and the owner's keys; nothing has been drawn yet."""
    import os
    from datetime import UTC, datetime

    from auditor.evidence.signing import SigningKey
    from auditor.evidence.times import utc_text
    from auditor.schemes.owner import commit, default_sizes

    signing_key = key or SigningKey.generate()
    if draft is not None:
        committed = read_draft(draft, scheme=scheme, dataset=dataset, key=signing_key)
    else:
        committed = commit(
            scheme=scheme,
            dataset=dataset,
            seed=os.urandom(32),
            sizes=default_sizes(randomness=later),
            key=signing_key,
            committed_at=utc_text(datetime.now(UTC)),
        )
    if key is None:
        signing_key.write_pem(folder / KEY_NAME)
    (folder / PUBLIC_NAME).write_bytes(signing_key.public_pem())
    (folder / COMMITMENT_NAME).write_bytes(committed.envelope)
    return committed, signing_key


def _train_marked(
    folder: Path,
    *,
    scheme: "TrainedScheme",
    committed: "Committed",
    source: "RandomnessSource",
    randomness: bytes,
    dataset: "Dataset",
    plan: "TrainingPlan",
    arch: str,
    key: "SigningKey",
    locks: "Locks",
    keep_twin: bool,
    progress: "Progress",
) -> "EmbedRecord":
    from datetime import UTC, datetime

    from auditor.draws import Secret
    from auditor.evidence.generation import mixed_randomness, token_covers
    from auditor.evidence.seal import RandomnessSource
    from auditor.evidence.times import utc_text
    from auditor.schemes.delivery import deliver
    from auditor.schemes.owner import train_owner

    if source is RandomnessSource.TOKEN and not token_covers(randomness, committed.envelope):
        raise UsageError(f"the time-stamp token was not issued for {COMMITMENT_NAME}")
    result = train_owner(
        scheme=scheme,
        dataset=dataset,
        secret=Secret(committed.seed, mixed_randomness(source, randomness)),
        plan=plan,
        architecture=arch,
        committed=committed,
        randomness=randomness,
        progress=progress,
    )
    sealed_at = utc_text(datetime.now(UTC))
    deliver(
        folder, result=result, plan=plan, key=key, sealed_at=sealed_at, keep_twin=keep_twin, source=source, locks=locks
    )
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
