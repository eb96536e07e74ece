"""Attacks by name, preset and settings: what a command line or a study's configuration asks for."""

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.attacks import ATTACKS
from auditor.attacks.base import Attack, attack_class
from auditor.attacks.settings import Settings, from_settings
from auditor.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Named settings of one attack."""

    attack: str
    name: str
    settings: Settings

    def __call__(self, settings: Settings | None = None) -> Attack:
        """Return the attack; ``settings`` come before those of the preset.

        Raises:
            UsageError: an unknown setting, or a value of a wrong type or out of range.
        """
        return build_attack(self.attack, settings or {}, preset=self.name)


def catalogue() -> Mapping[str, Preset]:
    """Return every preset of every built-in attack as ``attack/preset``, sorted by attack."""
    found: dict[str, Preset] = {}
    for attack in sorted(ATTACKS):
        for name, settings in attack_class(attack).presets.items():
            found[f"{attack}/{name}"] = Preset(attack=attack, name=name, settings=settings)
    return found


def build_attack(name: str, settings: Settings, *, preset: str | None = None) -> Attack:
    """Return the attack called ``name`` with these settings, which come before those of the preset.

    Raises:
        UsageError: no such attack or preset, an unknown setting, or a value of a wrong type or out of range.
    """
    kind = attack_class(name)
    if preset is None:
        return from_settings(kind, settings)
    if preset not in kind.presets:
        known = ", ".join(kind.presets) or "none"
        raise UsageError(f"attack {name!r} has no preset {preset!r}; it has: {known}")
    return from_settings(kind, {**kind.presets[preset], **settings})
