"""The border to a marking scheme: what it draws from the secret, how a key is made, what training must add.

The pattern schemes mark with one secret additive pattern. KsGen is x/255 + β·s, clipped to [0, 1] and rounded to
the deployment grid *before* training, so that a black box that accepts 8-bit images sees exactly what was trained.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Labels, Part
from auditor.draws import NORMAL_GRID, Secret
from auditor.errors import UsageError
from auditor.patterns import Mark, Pattern, add_pattern, foreign_pattern
from auditor.plugins import find_class
from auditor.records import Inputs, InputSpec, NullBasis
from auditor.schemes import SCHEMES
from auditor.training import SupplementBatch, shift_images

ENTRY_POINT_GROUP = "auditor.schemes"


class LabelCode(StrEnum):
    """Whether keys are also trained towards a drawn derangement of their natural labels."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"
    """On, unless the clean accuracy then falls by more than the limit; in that case the model is trained again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSettings:
    """The knobs of embedding, recorded with the result."""

    alpha_keys: float = 0.01
    """Share of the training images that carry the mark (the paper's α), in (0, 1)."""
    beta: float = 0.1
    """Amplitude of the pattern for pixels in [0, 1]."""
    sham_ratio: int = 3
    """Sham negatives per key: carriers with foreign patterns under their true labels."""
    key_share: float = 0.03
    """Keys per ordinary image in one step; keys are repeated when this exceeds ``alpha_keys``."""
    key_shift: int = 0
    """Key carriers are moved by up to this many pixels before the pattern, which stays where it is, is added."""
    images_per_pattern: int = 8
    """Sham negatives that share one foreign pattern before the next is drawn."""
    sham_correlation: float = 0.0
    """Foreign patterns in training correlate with the secret one by up to this much, in [0, 1).

    On small images independent patterns often correlate by chance; a network that has only seen unrelated ones
    then answers some of them like keys.
    """
    label_code: LabelCode = LabelCode.AUTO
    code_weight: float = 1.0
    """λ, weight of the label code's loss, in (0, 1]."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha_keys < 1 or not 0 < self.key_share <= 1:
            raise UsageError("alpha_keys must lie in (0, 1) and key_share in (0, 1]")
        if not 0 < self.beta <= 10:
            raise UsageError("beta must lie in (0, 10]")
        if not 0 < self.code_weight <= 1:
            raise UsageError("the label code's weight must lie in (0, 1]: above 1 it costs clean accuracy")
        if not 0 <= self.sham_correlation < 1:
            raise UsageError("sham_correlation must lie in [0, 1)")
        if self.sham_ratio < 0 or self.images_per_pattern < 1 or self.key_shift < 0:
            raise UsageError("sham_ratio and key_shift must be at least 0, images_per_pattern at least 1")

    def as_json(self) -> dict[str, JsonValue]:
        """Return the settings for a signed record."""
        return {
            "alpha_keys": decimal_string(self.alpha_keys),
            "beta": decimal_string(self.beta),
            "sham_ratio": self.sham_ratio,
            "key_share": decimal_string(self.key_share),
            "key_shift": self.key_shift,
            "images_per_pattern": self.images_per_pattern,
            "sham_correlation": decimal_string(self.sham_correlation),
            "label_code": self.label_code.value,
            "code_weight": decimal_string(self.code_weight),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternSupplement:
    """Keys and sham negatives that join every training step; implements :class:`auditor.training.Supplement`."""

    mark: Mark
    settings: MarkSettings
    keys: Part
    """The chosen key carriers under their natural labels."""
    pool: Part
    """Carriers of the sham negatives."""
    n_keys: int
    """Keys per step."""

    @property
    def n_natural(self) -> int:
        """Return the number of natural classes."""
        return self.mark.n_natural

    @property
    def apart(self) -> bool:
        """Return False: keys and sham negatives take part in the statistics, as they did when it was measured."""
        return False

    def draw(self, generator: np.random.Generator) -> SupplementBatch:
        """Return the marked samples of one step; foreign patterns are fresh in every step."""
        settings = self.settings
        rows = generator.integers(0, len(self.keys), size=self.n_keys)
        carriers = shift_images(self.keys.inputs[rows], limit=settings.key_shift, generator=generator)
        inputs = [add_pattern(carriers, self.mark.pattern, beta=settings.beta)]
        labels = [np.full(self.n_keys, self.mark.target, dtype=np.int64)]
        n_shams = settings.sham_ratio * self.n_keys
        if n_shams:
            chosen = generator.integers(0, len(self.pool), size=n_shams)
            shams = shift_images(self.pool.inputs[chosen], limit=settings.key_shift, generator=generator)
            inputs.append(add_pattern(shams, self._foreign(n_shams, generator), beta=settings.beta))
            labels.append(self.pool.labels[chosen])
        codes = np.full(self.n_keys + n_shams, -1, dtype=np.int64)
        if self.mark.code:
            codes[: self.n_keys] = np.array(self.mark.code)[self.keys.labels[rows]]
        return SupplementBatch(
            inputs=np.concatenate(inputs),
            labels=np.concatenate(labels),
            weights=np.ones(len(codes), dtype=np.float32),
            codes=codes,
            code_weight=settings.code_weight,
        )

    def _foreign(self, n: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        per_pattern = self.settings.images_per_pattern
        n_patterns = -(-n // per_pattern)
        drawn = generator.standard_normal((n_patterns, *self.mark.pattern.shape))
        near = generator.uniform(0.0, self.settings.sham_correlation, size=(n_patterns, 1, 1, 1))
        mixed = near * self.mark.pattern + np.sqrt(1.0 - near**2) * drawn
        patterns = np.rint(mixed * NORMAL_GRID) / NORMAL_GRID
        return np.asarray(np.repeat(patterns, per_pattern, axis=0)[:n])


class SchemeSettings(Protocol):
    """The knobs of a scheme."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the settings for a signed record; fractions as decimal strings."""


class TrainedScheme(ABC):
    """A scheme whose mark lives in the trained model."""

    name: ClassVar[str]
    version: int
    """Raised when keys or the statistic change meaning."""
    null_basis: NullBasis
    """Which randomness of the keys the audit's null rests on."""

    @property
    @abstractmethod
    def recorded_settings(self) -> SchemeSettings:
        """Return the settings as the commitment and the record name them."""

    @property
    def propositions(self) -> tuple[str, str]:
        """Return H1 and H2 as the report prints them."""
        return (
            "The suspect answers with a model derived (copied, fine-tuned, pruned, quantised or distilled) from the "
            "owner's reference model.",
            "The suspect answers with a model developed without access to the owner's reference model.",
        )

    @abstractmethod
    def output_names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return one name per output of a marked model; the natural classes come first."""


class PatternScheme(TrainedScheme):
    """A scheme that marks with one secret additive pattern; variants fill the abstract holes."""

    null_basis: NullBasis = NullBasis.SHAMS
    target_is_natural: ClassVar[bool] = False
    """True when the drawn target is a natural class, whose carriers cannot become keys."""

    def __init__(self, settings: MarkSettings) -> None:
        self.settings = settings

    @property
    def recorded_settings(self) -> MarkSettings:
        """Return the settings."""
        return self.settings

    @abstractmethod
    def draw(self, secret: Secret, spec: InputSpec, *, code: bool) -> Mark:
        """Return what the secret determines, with or without a label code."""

    @abstractmethod
    def eligible(self, labels: Labels, mark: Mark) -> npt.NDArray[np.bool_]:
        """Return which carriers may become keys."""

    @property
    @abstractmethod
    def uses_code(self) -> bool:
        """Whether a label code makes sense for this scheme and is not switched off."""

    def key_inputs(self, carriers: Inputs, mark: Mark) -> Inputs:
        """Return KsGen(S, carriers)."""
        return add_pattern(carriers, mark.pattern, beta=self.settings.beta)

    def foreign_inputs(self, carriers: Inputs, pattern: Pattern) -> Inputs:
        """Return what KsGen makes of another secret's pattern."""
        return add_pattern(carriers, pattern, beta=self.settings.beta)

    def foreign_pattern(self, secret: Secret, spec: InputSpec, *, purpose: str) -> Pattern:
        """Return a pattern drawn like the secret one, for another purpose."""
        return foreign_pattern(secret, scheme=self.name, shape=spec.shape, purpose=purpose)

    def training_keys(self, train: Part, mark: Mark, secret: Secret) -> Part:
        """Return the key carriers of the training data: ⌈α·n⌉ distinct images, drawn from the secret."""
        usable = np.flatnonzero(self.eligible(train.labels, mark)).tolist()
        n_keys = int(np.ceil(round(self.settings.alpha_keys * len(train), 9)))
        if n_keys > len(usable):
            raise UsageError(f"{n_keys} key carriers wanted, only {len(usable)} training images are eligible")
        chosen = secret.stream(f"{self.name} training carriers").choose(usable, n_keys)
        return train.take(np.array(chosen, dtype=np.intp))

    def supplement(self, train: Part, mark: Mark, secret: Secret, *, batch_size: int) -> PatternSupplement:
        """Return what training must add to every step of ``batch_size`` ordinary images."""
        return PatternSupplement(
            mark=mark,
            settings=self.settings,
            keys=self.training_keys(train, mark, secret),
            pool=train,
            n_keys=max(1, round(self.settings.key_share * batch_size)),
        )


def scheme_class(name: str) -> type[TrainedScheme]:
    """Return the class of a scheme, built in or registered under the entry-point group ``auditor.schemes``.

    Raises:
        UsageError: no scheme of that name, or its plug-in cannot be loaded.
    """
    return find_class(name, kind="scheme", built_in=SCHEMES, group=ENTRY_POINT_GROUP, base=TrainedScheme)


def pattern_scheme(name: str, settings: MarkSettings) -> PatternScheme:
    """Return a scheme that marks with a pattern, by name.

    Raises:
        UsageError: no scheme of that name, or one that marks in another way.
    """
    found = scheme_class(name)
    if not issubclass(found, PatternScheme):
        raise UsageError(f"scheme {name!r} does not mark with a pattern")
    return found(settings)
