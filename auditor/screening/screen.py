"""The whole screen of a key set, as one record, and the limits that an owner may set it."""

from collections.abc import Sequence
from dataclasses import dataclass

from auditor.analysis.capacity import Capacity, capacity
from auditor.canonical import JsonValue, decimal_string
from auditor.errors import SealError, UsageError
from auditor.evidence.generation import rederive
from auditor.evidence.keyset import KeySet
from auditor.evidence.panel import PanelModel
from auditor.evidence.seal import Seal, generation_problem
from auditor.records import Answer, Protocol, SampleKind
from auditor.screening.answers import (
    Ask,
    Innocents,
    Stability,
    from_answers,
    from_panel,
    hits_show_the_mark,
    stability,
)
from auditor.screening.detectors import BUDGET, Detection, Predict, detect
from auditor.screening.nearness import Nearness, Share, nearness
from auditor.screening.ordinary import Ordinary
from auditor.stats.exact import Interval

SCHEMA = "mlaudit.screen/1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """A key set with what its claim says; ``seal`` is None before sealing."""

    keys: KeySet
    protocol: Protocol
    seal: Seal | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screen:
    """What was found; None stands for what was not asked for or has no meaning for the scheme."""

    material: Material
    generation: str
    """What re-deriving the drawn material showed."""
    derivable: bool
    capacity: Capacity
    innocents: Innocents | None
    nearness: Nearness
    detections: tuple[Detection, ...]
    stability: tuple[Stability, ...]
    ordinary: Ordinary
    seed: int

    @property
    def broken(self) -> bool:
        """True where the material should re-derive and does not."""
        seal = self.material.seal
        return seal is not None and not generation_problem(seal) and not self.derivable

    @property
    def largest_area(self) -> float:
        """Largest area under the curve of a detector that was given no key."""
        return max(found.area.area for found in self.detections if not found.leaked)

    @property
    def smallest_stability(self) -> float | None:
        """Smallest share of keys that keep the sealed answer under a change; None where it was not measured."""
        return min((row.keys.hits / row.keys.trials for row in self.stability), default=None)

    def as_json(self) -> dict[str, JsonValue]:
        """Return the screen without anything that discloses a key."""
        keys = self.material.keys
        return {
            "schema": SCHEMA,
            "scheme": self.material.protocol.scheme,
            "keyset_id": keys.keyset_id,
            "sealed": self.material.seal is not None,
            "seed": self.seed,
            "keys": sum(sample.kind is SampleKind.KEY for sample in keys.samples),
            "generation": {"verified": self.derivable, "what": self.generation},
            "capacity": {
                "bits": decimal_string(self.capacity.bits),
                "drawn": self.capacity.drawn,
                "best_log10_p": decimal_string(self.capacity.best_log10_p),
                "level": decimal_string(self.material.protocol.alpha),
                "reaches_level": self.capacity.reaches_level,
            },
            "innocents": None if self.innocents is None else _innocents_object(self.innocents),
            "nearness": _nearness_object(self.nearness),
            "ordinary": {
                "source": self.ordinary.source,
                "known": len(self.ordinary.known),
                "fresh": len(self.ordinary.fresh),
            },
            "detectability": [_detection_object(found) for found in self.detections],
            "stability": [_stability_object(row) for row in self.stability],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a key set must keep to; None sets no limit."""

    max_area: float | None = None
    """Largest area under the curve of a detector that was given no key, in [½, 1]."""
    max_innocent_rate: float | None = None
    """Upper bound of the mean hit rate of innocent models, in [0, 1]."""
    min_stability: float | None = None
    """Smallest share of keys that keep the sealed answer under every change, in [0, 1]."""
    min_bits: float | None = None
    """Smallest capacity in bits."""

    def __post_init__(self) -> None:
        for name in ("max_area", "max_innocent_rate", "min_stability"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise UsageError(f"{name.replace('_', ' ')} must lie in [0, 1]")

    def missed(self, screen: Screen) -> tuple[str, ...]:
        """Return which limits a screen misses, in words.

        Raises:
            UsageError: a limit is set on something that was not measured.
        """
        missed: list[str] = []
        if self.max_area is not None and screen.largest_area > self.max_area:
            missed.append(
                f"a detector without keys reaches an area of {screen.largest_area:.3f}, limit {self.max_area:g}"
            )
        if self.max_innocent_rate is not None:
            if screen.innocents is None:
                raise UsageError("a limit on innocent models needs --innocent or --panel")
            found = screen.innocents.measured.mean_upper
            if found > self.max_innocent_rate:
                missed.append(f"innocent models may hit at {found:.3g}, limit {self.max_innocent_rate:g}")
        if self.min_stability is not None:
            kept = screen.smallest_stability
            if kept is None:
                raise UsageError("a limit on stability needs --model, and a mark that single answers show")
            if kept < self.min_stability:
                missed.append(
                    f"under one change {kept:.3f} of the keys keep their answer, limit {self.min_stability:g}"
                )
        if self.min_bits is not None and screen.capacity.bits < self.min_bits:
            missed.append(f"the draw has {screen.capacity.bits:.1f} bits, limit {self.min_bits:g}")
        return tuple(missed)


def screen(
    material: Material,
    *,
    ordinary: Ordinary,
    innocents: Sequence[tuple[str, Sequence[Answer]]] = (),
    panel: Sequence[PanelModel] = (),
    predict: Predict | None = None,
    marked: Ask | None = None,
    leaked: int = 0,
    seed: int = 0,
) -> Screen:
    """Return what a key set looks like before it is used.

    Args:
        material: the key set.
        ordinary: images to compare keys with.
        innocents: name of each independent model and its answers to every key in sealed order.
        panel: models of a panel record; used where ``innocents`` is empty.
        predict: an innocent model, for the detector that needs one.
        marked: asks the marked model.
        leaked: keys given to the detector that learns from some.
        seed: draws which keys are leaked.

    Raises:
        MissingPartError: a library is not installed.
        SuspectError: the marked model's answers cannot be used.
    """
    keys = material.keys
    generation, derivable = _generation(material)
    single = hits_show_the_mark(material.protocol)
    inputs = keys.inputs[[sample.index for sample in keys.samples if sample.kind is SampleKind.KEY]]
    generator = keys.generator if material.seal is None else material.seal.generator
    return Screen(
        material=material,
        generation=generation,
        derivable=derivable,
        capacity=capacity(material.protocol, keys.spec, generator),
        innocents=(from_answers(keys, innocents) or from_panel(panel)) if single else None,
        nearness=nearness(keys, ordinary),
        detections=detect(inputs, ordinary, innocent=predict, leaked=leaked, seed=seed),
        stability=stability(keys, marked) if marked is not None and single else (),
        ordinary=ordinary,
        seed=seed,
    )


def _generation(material: Material) -> tuple[str, bool]:
    if material.seal is None:
        return "foreign samples, not sealed yet: nobody can repeat their generation", False
    problem = generation_problem(material.seal)
    if problem:
        return problem, False
    try:
        return rederive(material.keys, material.seal).summary, True
    except SealError as error:
        return str(error), False


def _share_object(found: Share | None) -> JsonValue:
    if found is None:
        return None
    return {"hits": found.hits, "trials": found.trials, "interval": _interval_object(found.interval)}


def _interval_object(interval: Interval) -> dict[str, JsonValue]:
    return {
        "low": decimal_string(interval.low),
        "high": decimal_string(interval.high),
        "confidence": decimal_string(interval.confidence),
    }


def _innocents_object(found: Innocents) -> dict[str, JsonValue]:
    return {
        "models": found.measured.models,
        "names": list(found.names),
        "mean_rate": decimal_string(found.measured.mean_rate),
        "mean_rate_upper": decimal_string(found.measured.mean_upper),
        "error": decimal_string(found.measured.error),
        "worst_rate": decimal_string(found.measured.worst_rate),
        "keys_hit_by_half": found.by_most,
        "natural": _share_object(found.natural),
    }


def _nearness_object(found: Nearness) -> dict[str, JsonValue]:
    return {
        "key_distance": decimal_string(found.key_distance),
        "ordinary_distance": decimal_string(found.ordinary_distance),
        "far": _share_object(found.far),
        "nearest_is_natural": _share_object(found.nearest_is_natural),
        "nearest_is_sealed": _share_object(found.nearest_is_sealed),
    }


def _detection_object(found: Detection) -> dict[str, JsonValue]:
    budget: JsonValue = None
    if found.budget is not None:
        budget = {
            "budget": decimal_string(BUDGET),
            "keys": found.budget.hits,
            "of": found.budget.trials,
            "interval": _interval_object(found.budget.interval),
            "ordinary": found.budget.false_hits,
            "ordinary_of": found.budget.false_trials,
        }
    return {
        "detector": found.detector.value,
        "leaked": found.leaked,
        "low_side": found.low_side,
        "area": decimal_string(found.area.area),
        "keys": found.area.first,
        "ordinary": found.area.second,
        "delong": _interval_object(found.area.delong),
        "exact": _interval_object(found.area.exact),
        "at_budget": budget,
    }


def _stability_object(row: Stability) -> dict[str, JsonValue]:
    return {"change": row.change, "keys": _share_object(row.keys), "controls": _share_object(row.controls)}
