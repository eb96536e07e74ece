"""The options of ``auditor attack``, one alias per setting; None leaves a setting at its preset or default."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer

T = TypeVar("T")

_TRAINING, _EXTRACTION, _TUNING = "Training", "Extraction and distillation", "Fine-tuning and adversarial training"
_WEIGHTS, _MARK, _SERVICE = (
    "Pruning, quantisation and noise",
    "Overwriting and ensembling",
    "Changed images and answers",
)

Epochs = Annotated[int | None, typer.Option(min=0, help="Epochs; 0 prunes only.", rich_help_panel=_TRAINING)]
BatchSize = Annotated[int | None, typer.Option(min=2, help="Images per step.", rich_help_panel=_TRAINING)]
LearningRate = Annotated[float | None, typer.Option(min=0.0, help="Peak rate.", rich_help_panel=_TRAINING)]
Seed = Annotated[int | None, typer.Option(min=0, help="Of everything drawn.", rich_help_panel=_TRAINING)]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_TRAINING)]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.", rich_help_panel=_TRAINING)]

Taught = Annotated[
    str | None, typer.Option("--taught", help="soft, hard, top-k or rounded answers.", rich_help_panel=_EXTRACTION)
]
K = Annotated[int | None, typer.Option("--k", help="Probabilities kept with top-k.", rich_help_panel=_EXTRACTION)]
Decimals = Annotated[int | None, typer.Option(help="Decimals kept with rounded.", rich_help_panel=_EXTRACTION)]
Budget = Annotated[
    int | None, typer.Option(min=1, help="Most queries; default: all images.", rich_help_panel=_EXTRACTION)
]
Architecture = Annotated[
    str | None, typer.Option("--arch", help="Of the surrogate; same: the victim's.", rich_help_panel=_EXTRACTION)
]
Temperature = Annotated[float | None, typer.Option(help="Of teacher and student.", rich_help_panel=_EXTRACTION)]
Mix = Annotated[float | None, typer.Option(help="Weight of the teacher in distillation.", rich_help_panel=_EXTRACTION)]
TemperatureSquared = Annotated[
    bool | None,
    typer.Option("--temperature-squared/--no-temperature-squared", help="Factor T².", rich_help_panel=_EXTRACTION),
]
Confident = Annotated[
    float | None, typer.Option(help="Learn only from answers at least so probable.", rich_help_panel=_EXTRACTION)
]
HideNewLabels = Annotated[
    bool | None,
    typer.Option(
        "--hide-new-labels/--keep-new-labels",
        help="Drop outputs beyond the natural classes.",
        rich_help_panel=_EXTRACTION,
    ),
]
AnswersFile = Annotated[
    Path | None,
    typer.Option("--answers-file", help="Keep bought answers here, or reuse them.", rich_help_panel=_EXTRACTION),
]

Layers = Annotated[str | None, typer.Option(help="all or last.", rich_help_panel=_TUNING)]
FreshHead = Annotated[
    bool | None, typer.Option("--fresh-head/--kept-head", help="Start the head anew.", rich_help_panel=_TUNING)
]
Radius = Annotated[float | None, typer.Option(help="Of moved images, pixels in [0, 1].", rich_help_panel=_TUNING)]
Step = Annotated[float | None, typer.Option(help="Of ascent, pixels in [0, 1].", rich_help_panel=_TUNING)]
Steps = Annotated[int | None, typer.Option(help="Of ascent per image.", rich_help_panel=_TUNING)]
CleanShare = Annotated[float | None, typer.Option(help="Weight of unmoved images.", rich_help_panel=_TUNING)]

Copies = Annotated[int | None, typer.Option(help="unlearn: noisy copies of each image.", rich_help_panel=_TUNING)]
DropOutputs = Annotated[
    bool | None,
    typer.Option("--drop-outputs/--keep-outputs", help="unlearn: cut off extra outputs.", rich_help_panel=_TUNING),
]
Rounds = Annotated[int | None, typer.Option(help="invert: patterns sought.", rich_help_panel=_TUNING)]
Weight = Annotated[float | None, typer.Option(help="invert: of the pattern's size.", rich_help_panel=_TUNING)]

Rate = Annotated[float | None, typer.Option(help="Share pruned, in [0, 0.99].", rich_help_panel=_WEIGHTS)]
Structure = Annotated[
    str | None, typer.Option(help="weights, channel-norm or channel-activation.", rich_help_panel=_WEIGHTS)
]
LastOnly = Annotated[
    bool | None,
    typer.Option("--last-only/--every-layer", help="Channels of the last convolution only.", rich_help_panel=_WEIGHTS),
]
Bits = Annotated[int | None, typer.Option(help="Per weight.", rich_help_panel=_WEIGHTS)]
ActivationBits = Annotated[int | None, typer.Option(help="Per activation; 0: floats.", rich_help_panel=_WEIGHTS)]
Scale = Annotated[
    float | None, typer.Option(help="Weight noise in standard deviations of the weights.", rich_help_panel=_WEIGHTS)
]

SecondMark = Annotated[str | None, typer.Option("--mark", help="wrong-label or new-label.", rich_help_panel=_MARK)]
Beta = Annotated[float | None, typer.Option(help="Amplitude of the second mark.", rich_help_panel=_MARK)]
KeyShare = Annotated[
    float | None, typer.Option(help="Keys of the second mark per ordinary image.", rich_help_panel=_MARK)
]
Others = Annotated[str | None, typer.Option(help="Further members: trained or extracted.", rich_help_panel=_MARK)]
NOthers = Annotated[int | None, typer.Option("--n-others", help="Number of further members.", rich_help_panel=_MARK)]
WithVictim = Annotated[
    bool | None, typer.Option("--with-victim/--without-victim", help="Victim is a member.", rich_help_panel=_MARK)
]
Combination = Annotated[str | None, typer.Option(help="mean or majority.", rich_help_panel=_MARK)]

Kind = Annotated[
    str | None,
    typer.Option(
        help="preprocess: noise, blur, median, jpeg, bits; answers: temperature, smooth, round, top-k, label.",
        rich_help_panel=_SERVICE,
    ),
]
Strength = Annotated[float | None, typer.Option(help="Of preprocess, by kind.", rich_help_panel=_SERVICE)]
Value = Annotated[float | None, typer.Option(help="Of answers, by kind.", rich_help_panel=_SERVICE)]

SETTINGS = (
    "epochs", "batch_size", "learning_rate", "seed", "device", "taught", "k", "decimals", "budget", "architecture",
    "temperature", "mix", "temperature_squared", "hide_new_labels", "layers", "fresh_head", "radius", "step", "steps",
    "clean_share", "rate", "structure", "last_only", "bits", "activation_bits", "scale", "mark", "beta", "key_share",
    "confident", "copies", "drop_outputs", "rounds", "weight",
    "others", "n_others", "with_victim", "combination", "kind", "strength", "value",
)  # fmt: skip
"""Options that are settings of an attack, by the setting's name."""
