"""``auditor train new-label`` and ``auditor train wrong-label``: one secret pattern, one answer."""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli import train_options as opt
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.records import Progress
    from auditor.schemes.base import MarkSettings, PatternScheme, TrainedScheme
    from auditor.schemes.carriers import KeySizes
    from auditor.training import TrainingPlan

BETA_LADDER = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
AUTO = "auto"


class LabelCodeOption(StrEnum):
    """The label code on the command line."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


def pattern_command(name: str) -> Callable[..., None]:
    """Return the command that trains the pattern scheme called ``name``."""

    def command(
        data: opt.Data,
        out: opt.Out,
        arch: opt.Arch = "small-cnn",
        device: opt.DeviceChoice = opt.DeviceOption.AUTO,
        seed: opt.Seed = 0,
        owner_share: opt.OwnerShare = None,
        split_seed: opt.SplitSeed = 0,
        epochs: opt.Epochs = None,
        batch_size: opt.BatchSize = None,
        alpha_keys: Annotated[
            float, typer.Option(min=0.0, max=1.0, help="Share of the training images that carry the mark.")
        ] = 0.01,
        beta: Annotated[
            str | None,
            typer.Option(help="Amplitude of the pattern on the [0, 1] scale, or 'auto'.", show_default="per data set"),
        ] = None,
        sham_ratio: Annotated[
            int | None, typer.Option(min=0, help="Sham negatives per key; 0 is the published recipe.", show_default="3")
        ] = None,
        label_code: Annotated[
            LabelCodeOption, typer.Option(help="Also train keys towards a drawn derangement of their labels.")
        ] = LabelCodeOption.AUTO,
        bf16: opt.Bfloat16 = None,
        compiled: opt.Compiled = False,
        owner_key: opt.OwnerKey = None,
        tsa: opt.Tsa = None,
        commit_only: opt.CommitOnly = False,
        commitment: opt.CommitmentFolder = None,
        beacon: opt.Beacon = None,
        judge_nonce: opt.JudgeNonce = None,
        randomness_file: opt.RandomnessFile = None,
        recipient: opt.Recipients = None,
        twin: opt.Twin = True,
        threads: opt.Threads = 1,
        as_json: opt.AsJson = False,
    ) -> None:
        from auditor.cli.train_owner import Job, train_and_seal
        from auditor.schemes.embedding import recipe_for

        dataset = opt.owned(data, share=owner_share, split_seed=split_seed)
        recipe = recipe_for(dataset)
        plan = opt.planned(
            recipe.plan, seed=seed, device=device, threads=threads, epochs=epochs, batch_size=batch_size,
            bfloat16=bf16, compiled=compiled,
        )  # fmt: skip
        settings = _settings(
            recipe.settings, alpha_keys=alpha_keys, beta=beta, sham_ratio=sham_ratio, label_code=label_code
        )
        options = opt.OwnerOptions(
            out=out, owner_key=owner_key, tsa=tuple(tsa or ()), commit_only=commit_only, commitment=commitment,
            beacon=beacon, judge_nonce=judge_nonce, randomness_file=randomness_file,
            recipients=tuple(recipient or ()), twin=twin, as_json=as_json,
        )  # fmt: skip
        arch_options = opt.architecture(arch, None, dataset)

        def make(progress: "Progress") -> "TrainedScheme":
            return _scheme(name, settings, calibrate=beta == AUTO, data=dataset, plan=plan, arch=arch, watcher=progress)

        division = opt.division(owner_share, split_seed)
        train_and_seal(
            Job(
                make_scheme=make, sizes=_sizes, dataset=dataset, plan=plan, arch=arch, arch_options=arch_options,
                options=options, division=division,
            )
        )  # fmt: skip

    command.__doc__ = f"""Train a model with the {name} mark, measure it against its unmarked twin, and seal the claim.

    Carriers, generator, seed and plan are committed to first (k.commit.json); pattern, labels and order are drawn from
    the seed together with the public randomness. Without any, 2^64 tries are charged to the level.

    Writes model.safetensors, model.json, k.npz, k.seal.json (with its time stamps, k.seal.1.tsr ..., where --tsa names
    an authority), train.json, twin/ and, unless --owner-key is given, owner.key.pem. Exit code 8: everything was
    written, but the mark missed a target that train.json names.
    """
    return command


def _sizes(scheme: "TrainedScheme", randomness: bool) -> "KeySizes":
    from auditor.schemes.carriers import default_sizes

    return default_sizes(randomness=randomness, scheme=scheme)


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


def _scheme(
    name: str,
    settings: "MarkSettings",
    *,
    calibrate: bool,
    data: "Dataset",
    plan: "TrainingPlan",
    arch: str,
    watcher: "Progress",
) -> "PatternScheme":
    import os
    from dataclasses import replace

    from auditor.draws import Secret
    from auditor.schemes.base import pattern_scheme
    from auditor.schemes.embedding import calibrate_beta

    scheme = pattern_scheme(name, settings)
    if not calibrate:
        return scheme
    # The amplitude is part of the commitment, so that it is found with a secret of its own, thrown away after.
    found = calibrate_beta(
        scheme=scheme,
        dataset=data,
        secret=Secret(os.urandom(32)),
        plan=plan,
        ladder=BETA_LADDER,
        architecture=arch,
        progress=watcher,
    )
    return pattern_scheme(name, replace(settings, beta=found))
