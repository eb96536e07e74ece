"""What a thief would do to a model: attacks that turn a victim into a surrogate."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from auditor.attacks.base import Attack
    from auditor.attacks.presets import Preset
    from auditor.attacks.settings import Settings

ATTACKS = {
    "adversarial": "auditor.attacks.adversarial:AdversarialTraining",
    "answers": "auditor.attacks.answers:ChangeAnswers",
    "distill": "auditor.attacks.distill:Distill",
    "ensemble": "auditor.attacks.ensemble:Ensemble",
    "extract": "auditor.attacks.extract:Extract",
    "finetune": "auditor.attacks.finetune:FineTune",
    "invert": "auditor.attacks.invert:Invert",
    "noise": "auditor.attacks.noise:WeightNoise",
    "overwrite": "auditor.attacks.overwrite:Overwrite",
    "preprocess": "auditor.attacks.preprocess:Preprocess",
    "prune": "auditor.attacks.prune:Prune",
    "quantize": "auditor.attacks.quantize:Quantize",
    "unlearn": "auditor.attacks.unlearn:Unlearn",
}
"""Built-in attacks by name, resolved when used; see :func:`auditor.attacks.base.attack_class`."""


def catalogue() -> "Mapping[str, Preset]":
    """Return every preset of every built-in attack as ``attack/preset``; calling one builds the attack."""
    from auditor.attacks import presets

    return presets.catalogue()


def build_attack(name: str, settings: "Settings", *, preset: str | None = None) -> "Attack":
    """Return the attack called ``name`` with these settings, which come before those of the preset.

    Raises:
        UsageError: no such attack or preset, an unknown setting, or a value of a wrong type or out of range.
    """
    from auditor.attacks import presets

    return presets.build_attack(name, settings, preset=preset)
