"""What a dry run is made of, read from a TOML file; every unknown or ill-typed field is named."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from auditor.errors import UsageError

Value = bool | int | float | str
"""A setting as TOML spells it."""

MAX_SEEDS = 1000


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StudySection(_Section):
    """What all trials share."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    data: Annotated[str, Field(min_length=1)]
    """Name of a data set, see auditor.datasets."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1, max_length=MAX_SEEDS, strict=False)]
    """Seeds of the owners' training; each scheme is embedded once per seed."""
    architecture: str = "small-cnn"
    owner_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The owners' share of the training images; attackers with ``data = "rest"`` have the others."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of every owner and innocent; None takes the recipes of data set and scheme."""
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Level of the audits, at most the sealed default; None takes the sealed one."""
    power: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Power that the recommendation is made for."""


class SchemeSection(_Section):
    """One scheme with the settings that differ from the data set's recipe."""

    name: Annotated[str, Field(min_length=1)]
    label: str = ""
    """What tables call it; empty takes ``name``."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of this scheme's owners; None takes those of the study."""
    keys: Annotated[int, Field(ge=1)] | None = None
    """Triggers of a scheme that trains its sealed keys; None takes the recipe's."""
    settings: dict[str, Value] = {}

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.label or self.name


class AttackSection(_Section):
    """One attack with its settings."""

    name: Annotated[str, Field(min_length=1)]
    label: str = ""
    """What tables call it; empty takes ``name``."""
    data: str = "half-test"
    """Whose images the attacker has: half-test, owner, rest or foreign."""
    foreign: str = ""
    """Name of another data set, for foreign images."""
    strength: float | None = None
    """Place on the axis of the plot of hit rate against strength, shared by attacks of one name."""
    settings: dict[str, Value] = {}

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.label or self.name


class InnocentSection(_Section):
    """Models that never saw a mark; every owner's keys are asked of each of them."""

    seeds: Annotated[tuple[int, ...], Field(max_length=MAX_SEEDS, strict=False)] = ()
    architectures: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("small-cnn",)


class StudyConfig(_Section):
    """A whole dry run."""

    study: StudySection
    scheme: Annotated[tuple[SchemeSection, ...], Field(min_length=1, strict=False)]
    attack: Annotated[tuple[AttackSection, ...], Field(strict=False)] = ()
    innocents: InnocentSection = InnocentSection()

    @model_validator(mode="after")
    def _names_differ(self) -> "StudyConfig":
        for what, titles in (
            ("scheme", [entry.title for entry in self.scheme]),
            ("attack", [entry.title for entry in self.attack]),
        ):
            twice = next((title for title in titles if titles.count(title) > 1), None)
            if twice is not None:
                raise ValueError(f"two entries of [[{what}]] are called {twice!r}; give one a label")
        if set(self.study.seeds) & set(self.innocents.seeds):
            raise ValueError("an innocent model shares its training seed with an owner; choose other innocents.seeds")
        return self


def read_config(path: Path) -> StudyConfig:
    """Return the dry run that a TOML file describes.

    Raises:
        UsageError: no such file, not TOML, or a field that is missing, unknown or of the wrong type.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name}: not TOML: {error}") from error
    try:
        return StudyConfig.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path.name}: {place + ': ' if place else ''}{message}") from error
