"""From the names and numbers of a configuration to schemes, plans and data that can be trained with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from auditor.errors import UsageError
from auditor.study.config import StudyConfig, Value

if TYPE_CHECKING:
    from auditor.attacks.base import AttackData
    from auditor.datasets import Dataset
    from auditor.schemes.base import MarkSettings, TrainedScheme
    from auditor.schemes.triggers import TriggerSettings
    from auditor.training import TrainingPlan

T = TypeVar("T", "MarkSettings", "TriggerSettings")

DIVISION_SEED = 0
"""Which division of the training images a dry run uses, where owner and attacker have images of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRecipe:
    """How an owner of a dry run marks."""

    scheme: "TrainedScheme"
    plan: "TrainingPlan"
    n_keys: int
    """Triggers of a scheme that trains its sealed keys; other schemes have sizes of their own."""


def owner_recipe(
    name: str, dataset: "Dataset", *, changes: Mapping[str, Value], keys: int | None, epochs: int | None
) -> OwnerRecipe:
    """Return the scheme called ``name`` with the data set's recipe and what differs from it.

    Raises:
        UsageError: no such scheme, an unknown setting, or a value of a wrong type or out of range.
    """
    from auditor.schemes import embedding, margin
    from auditor.schemes.base import PatternScheme, scheme_class
    from auditor.schemes.triggers import TriggerScheme

    kind = scheme_class(name)
    if issubclass(kind, TriggerScheme):
        triggers = margin.recipe_for(dataset)
        plan = triggers.plan if epochs is None else replace(triggers.plan, epochs=epochs)
        return OwnerRecipe(scheme=kind(_changed(triggers.settings, changes)), plan=plan, n_keys=keys or triggers.n_keys)
    if issubclass(kind, PatternScheme):
        recipe = embedding.recipe_for(dataset)
        if keys is not None:
            raise UsageError(f"the number of keys of scheme {name!r} is not chosen by a dry run")
        plan = recipe.plan if epochs is None else replace(recipe.plan, epochs=epochs)
        return OwnerRecipe(scheme=kind(_changed(recipe.settings, changes)), plan=plan, n_keys=0)
    raise UsageError(f"scheme {name!r} has no way to be embedded")


def require_possible(config: StudyConfig) -> None:
    """Refuse what could not be run, before anything is trained.

    Raises:
        UsageError: an unknown data set, scheme, architecture, attack or setting.
        MissingPartError: a data set is not on this machine.
    """
    from auditor.attacks import build_attack
    from auditor.models import describe

    shared = config.study
    dataset = owner_data(shared.data, shared.owner_share)
    for scheme in config.scheme:
        owner_recipe(scheme.name, dataset, changes=scheme.settings, keys=scheme.keys, epochs=scheme.epochs)
    for attack in config.attack:
        build_attack(attack.name, attack.settings)
        thief_data(shared.data, shared.owner_share, source=attack.data, foreign=attack.foreign)
    for architecture in {shared.architecture, *config.innocents.architectures}:
        describe(architecture, input_shape=dataset.spec.shape, classes=dataset.classes)


def innocent_plan(dataset: "Dataset", *, epochs: int | None, seed: int) -> "TrainingPlan":
    """Return how an innocent model is trained."""
    from auditor.schemes.embedding import recipe_for

    plan = replace(recipe_for(dataset).plan, seed=seed, threads=1)
    return plan if epochs is None else replace(plan, epochs=epochs)


def owner_data(name: str, share: float | None) -> "Dataset":
    """Return what an owner trains on: all training images, or a share of them."""
    from auditor import datasets
    from auditor.data_parts import split

    dataset = datasets.load(name)
    return dataset if share is None else split(dataset, share=share, seed=DIVISION_SEED).owner


def thief_data(name: str, share: float | None, *, source: str, foreign: str) -> "AttackData":
    """Return what an attacker trains on and what it is judged on.

    Raises:
        UsageError: an unknown source, the owner's rest without a division, or foreign images without a name.
    """
    from auditor import datasets
    from auditor.attacks.data import Source, attacker_data

    if source not in set(Source):
        raise UsageError(f"an attacker's data is one of {', '.join(Source)}, not {source!r}")
    if source == Source.REST and share is None:
        raise UsageError("study.owner_share is missing: without a division the owner has all images")
    return attacker_data(
        owner_data(name, share) if source == Source.OWNER else datasets.load(name),
        source=Source(source),
        owner_share=0.5 if share is None else share,
        split_seed=DIVISION_SEED,
        foreign=datasets.load(foreign) if foreign else None,
    )


def _changed(settings: T, changes: Mapping[str, Value]) -> T:
    known = [field.name for field in fields(settings)]
    unknown = next((name for name in changes if name not in known), None)
    if unknown is not None:
        raise UsageError(f"no setting {unknown!r}; there are: {', '.join(known)}")
    try:
        return TypeAdapter(type(settings)).validate_python({**asdict(settings), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"setting {first['loc'][0]!r}: {first['msg']}") from error
