"""``auditor train margin`` and its baseline ``auditor train plain-trigger``."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.cli import train_options as opt
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.schemes.base import TrainedScheme
    from auditor.schemes.carriers import KeySizes
    from auditor.schemes.margin import TriggerRecipe
    from auditor.schemes.triggers import TriggerSettings

TEXTS = {
    "margin": "Train a model whose triggers keep drawn labels within a ball, and seal the claim.",
    "plain-trigger": "Train the baseline of the margin scheme: the same triggers and visits without the ball.",
}


class ChoiceOption(StrEnum):
    """Which held-out images become triggers."""

    RANDOM = "random"
    AMBIGUOUS = "ambiguous"


class DrawOption(StrEnum):
    """What the label of a trigger is drawn from."""

    WRONG = "wrong"
    RIVAL = "rival"


class PresetOption(StrEnum):
    """Published settings."""

    KIM2023 = "kim2023"


def trigger_command(name: str) -> Callable[..., None]:
    """Return the command that trains the trigger scheme called ``name``."""

    def command(
        data: opt.Data,
        out: opt.Out,
        preset: Annotated[
            PresetOption | None, typer.Option(help="Published setting: CIFAR-10, ResNet-34, 200 epochs.")
        ] = None,
        arch: Annotated[str | None, typer.Option(help="Architecture.", show_default="per data set or preset")] = None,
        width: opt.Width = None,
        device: opt.DeviceChoice = opt.DeviceOption.AUTO,
        seed: opt.Seed = 0,
        owner_share: opt.OwnerShare = None,
        split_seed: opt.SplitSeed = 0,
        epochs: opt.Epochs = None,
        batch_size: opt.BatchSize = None,
        keys: Annotated[int | None, typer.Option(min=1, help="Triggers, all trained and sealed.")] = None,
        radius: Annotated[
            float | None, typer.Option(help="Largest change of a pixel in levels of 255; 0 is the plain baseline.")
        ] = None,
        steps: Annotated[int | None, typer.Option(min=0, help="Steps of the ascent before each training step.")] = None,
        step_size: Annotated[
            float | None, typer.Option(help="Its step in levels.", show_default="radius / steps")
        ] = None,
        random_start: Annotated[
            bool | None, typer.Option("--random-start/--no-random-start", help="Begin at a random point of the ball.")
        ] = None,
        ramp: Annotated[float | None, typer.Option(help="Share of the training over which the radius grows.")] = None,
        weight: Annotated[
            float | None, typer.Option(help="Weight of a trigger's loss; ordinary images weigh 1.")
        ] = None,
        per_step: Annotated[int | None, typer.Option(min=1, help="Triggers in every training step.")] = None,
        choice: Annotated[
            ChoiceOption | None,
            typer.Option(help="Random held-out images, or those the unmarked twin finds ambiguous."),
        ] = None,
        draw: Annotated[
            DrawOption | None,
            typer.Option(help="Labels: any wrong class, or a coin between the natural class and its likeliest rival."),
        ] = None,
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
        checkpoint_every: opt.CheckpointEvery = None,
        resume: opt.Resume = False,
        as_json: opt.AsJson = False,
    ) -> None:
        from auditor.cli.train_owner import Job, train_and_seal
        from auditor.schemes.margin import Margin, PlainTrigger
        from auditor.schemes.triggers import Choice, LabelDraw

        if resume and checkpoint_every is None:
            raise UsageError("--resume takes the --checkpoint-every of the training it goes on with")
        dataset = opt.owned(data, share=owner_share, split_seed=split_seed)
        recipe = _recipe(preset, dataset)
        plan = opt.planned(
            recipe.plan, seed=seed, device=device, threads=threads, epochs=epochs, batch_size=batch_size,
            bfloat16=bf16, compiled=compiled,
        )  # fmt: skip
        given: dict[str, Any] = {
            "radius": radius, "steps": steps, "step_size": step_size, "random_start": random_start, "ramp": ramp,
            "weight": weight, "per_step": per_step, "choice": None if choice is None else Choice(choice.value),
            "draw": None if draw is None else LabelDraw(draw.value),
        }  # fmt: skip
        settings = _changed(recipe.settings, given)
        scheme = PlainTrigger(settings) if name == PlainTrigger.name else Margin(settings)
        chosen_arch = recipe.architecture if arch is None else arch
        arch_options = opt.architecture(chosen_arch, width, dataset)
        if chosen_arch == recipe.architecture:
            arch_options |= {option: value for option, value in recipe.options if option in arch_options}
        options = opt.OwnerOptions(
            out=out, owner_key=owner_key, tsa=tuple(tsa or ()), commit_only=commit_only, commitment=commitment,
            beacon=beacon, judge_nonce=judge_nonce, randomness_file=randomness_file,
            recipients=tuple(recipient or ()), twin=twin, as_json=as_json, checkpoint_every=checkpoint_every,
            resume=resume,
        )  # fmt: skip
        division = opt.division(owner_share, split_seed)
        train_and_seal(
            Job(
                make_scheme=lambda _: scheme, sizes=_sizes(recipe.n_keys if keys is None else keys), dataset=dataset,
                plan=plan, arch=chosen_arch, arch_options=arch_options, options=options,
                division=division,
                twin_first=settings.needs_twin,
            )
        )  # fmt: skip

    command.__doc__ = f"""{TEXTS[name]}

    Triggers are held-out images. They are committed to first (k.commit.json); then a label is drawn for each from the
    seed together with the public randomness. Without any, 2^64 tries are charged to the level.

    Writes what the other marked trainings write. Exit code 8: everything was written, but a target was missed.
    """
    return command


def _recipe(preset: PresetOption | None, dataset: "Dataset") -> "TriggerRecipe":
    from auditor.schemes.margin import PRESETS, recipe_for

    return recipe_for(dataset) if preset is None else PRESETS[preset.value]


def _changed(settings: "TriggerSettings", given: Mapping[str, Any]) -> "TriggerSettings":
    """Return the settings with everything that is not None; a radius alone is walked in equal steps."""
    from dataclasses import replace

    changed = {name: value for name, value in given.items() if value is not None}
    if "radius" in changed and "step_size" not in changed:
        changed["step_size"] = None
    return replace(settings, **changed)


def _sizes(n_keys: int) -> "Callable[[TrainedScheme, bool], KeySizes]":
    from auditor.schemes.carriers import default_sizes

    return lambda scheme, randomness: default_sizes(randomness=randomness, scheme=scheme, n_keys=n_keys)
