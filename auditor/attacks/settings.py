"""An attack's hyper-parameters as plain values: written for the record, read from a preset or configuration.

The settings of an attack are the fields of its dataclass. A field that is a training plan is spread out: its fields
stand beside the attack's own, and a plan that may be absent is absent when ``epochs`` is 0.
"""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Union, cast

from auditor.canonical import JsonValue, decimal_string
from auditor.errors import UsageError
from auditor.training import TrainingPlan

if TYPE_CHECKING:
    from auditor.attacks.base import Attack

Settings = Mapping[str, JsonValue | float]
"""Plain values by name; fractions are numbers or decimal strings."""

Presets = Mapping[str, Settings]
"""Settings by the preset's name."""

EPOCHS = "epochs"


def recorded(attack: "Attack") -> dict[str, JsonValue]:
    """Return the settings of an attack that is a dataclass, for the record."""
    found: dict[str, JsonValue] = {}
    if not dataclasses.is_dataclass(attack):
        return found
    for field in dataclasses.fields(attack):
        value = getattr(attack, field.name)
        if isinstance(value, TrainingPlan):
            found.update({f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)})
        elif value is None and _holds_plan(_types(type(attack))[field.name]):
            found[EPOCHS] = 0
        else:
            found[field.name] = _plain(value)
    return found


def setting_names(kind: "type[Attack]") -> tuple[str, ...]:
    """Return what can be set of an attack, in the order of its fields."""
    names: list[str] = []
    for name, annotation in _types(kind).items():
        names += [f.name for f in dataclasses.fields(TrainingPlan)] if _holds_plan(annotation) else [name]
    return tuple(names)


def from_settings(kind: "type[Attack]", settings: Settings) -> "Attack":
    """Return the attack with these settings; what is left out keeps the default.

    Raises:
        UsageError: an unknown setting, a value of a wrong type or out of range, or a needed one that is missing.
    """
    known = setting_names(kind)
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise UsageError(f"attack {kind.name!r} has no setting {unknown[0]!r}; it has: {', '.join(known)}")
    given: dict[str, object] = {}
    defaults = _defaults(kind)
    for name, annotation in _types(kind).items():
        if _holds_plan(annotation):
            given[name] = _plan(kind, settings, default=defaults.get(name), optional=_optional(annotation))
        elif name in settings:
            given[name] = _value(settings[name], annotation, name=name)
        elif name not in defaults:
            raise UsageError(f"attack {kind.name!r} needs the setting {name!r}")
    return kind(**given)


def _plan(kind: "type[Attack]", settings: Settings, *, default: object, optional: bool) -> TrainingPlan | None:
    fields = _types(TrainingPlan)
    given = {name: _value(settings[name], fields[name], name=name) for name in fields if name in settings}
    if given.get(EPOCHS) == 0 and optional:
        return None
    base = default if isinstance(default, TrainingPlan) else None
    if base is None and EPOCHS not in given:
        if optional:
            return None
        raise UsageError(f"attack {kind.name!r} needs the setting {EPOCHS!r}")
    plan = dataclasses.replace(base or DEFAULT_PLAN, **cast("Mapping[str, Any]", given))
    require_possible(plan)
    return plan


def require_possible(plan: TrainingPlan) -> None:
    """Refuse a plan that nothing can be trained with, before anything was paid for.

    Raises:
        UsageError: a plan without epochs, batches of two or a positive learning rate.
    """
    if plan.epochs < 1 or plan.batch_size < 2 or not plan.learning_rate > 0 or plan.seed < 0:
        raise UsageError("training needs at least one epoch, batches of two, a positive learning rate and a seed >= 0")


DEFAULT_PLAN = TrainingPlan(epochs=20, batch_size=64, learning_rate=0.01)
"""Training of an attack where nothing else is said."""


def _types(kind: type) -> dict[str, object]:
    """Return the type of every field; plug-ins that are no dataclass have no settings."""
    if not dataclasses.is_dataclass(kind):
        return {}
    # typing.get_type_hints would also resolve class variables, down to names of other modules.
    hints: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        hints.update(inspect.get_annotations(base, eval_str=True))
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _defaults(kind: type) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _alternatives(annotation: object) -> tuple[object, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _holds_plan(annotation: object) -> bool:
    return TrainingPlan in _alternatives(annotation)


def _optional(annotation: object) -> bool:
    return type(None) in _alternatives(annotation)


def _value(value: JsonValue | float, annotation: object, *, name: str) -> object:
    if value is None and _optional(annotation):
        return None
    (kind,) = (item for item in _alternatives(annotation) if item is not type(None))
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UsageError(f"setting {name!r} must be a list, not {value!r}")
        return tuple(_value(item, typing.get_args(kind)[0], name=name) for item in value)
    if kind is bool:
        return _checked(value, bool, name=name, what="true or false")
    if kind is int:
        return _checked(value, int, name=name, what="a whole number")
    if kind is float:
        return _number(value, name=name)
    if kind is str:
        return _checked(value, str, name=name, what="text")
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if not isinstance(value, str) or value not in set(kind):
            raise UsageError(f"setting {name!r} must be one of {', '.join(kind)}, not {value!r}")
        return kind(value)
    raise TypeError(f"setting {name!r} has a type that cannot be read")


def _checked(value: JsonValue | float, kind: type, *, name: str, what: str) -> object:
    # JSON's true is an int in Python.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"setting {name!r} must be {what}, not {value!r}")
    return value


def _number(value: JsonValue | float, *, name: str) -> float:
    # Records keep fractions as decimal strings, configuration files as numbers.
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float, str)) else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"setting {name!r} must be a number, not {value!r}")
    return number


def _plain(value: object) -> JsonValue:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float):
        return decimal_string(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    raise TypeError("a setting has a type that cannot be written")
