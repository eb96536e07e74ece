"""What training is measured by: shares with exact intervals, and the limits a marked model must keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Labels, Part
from auditor.errors import TrainingError
from auditor.models import LoadedModel, labels_of
from auditor.stats.exact import Interval, clopper_pearson

INTERVAL_CONFIDENCE = 0.95
ROUNDING = 1e-12
"""Slack of comparisons between rates that are fractions of counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Successes among independent trials."""

    hits: int
    trials: int

    @property
    def rate(self) -> float:
        """Return hits / trials."""
        return self.hits / self.trials

    def interval(self) -> Interval:
        """Return the exact two-sided 95 % interval (Clopper-Pearson)."""
        return clopper_pearson(hits=self.hits, trials=self.trials, confidence=INTERVAL_CONFIDENCE)

    def as_json(self) -> dict[str, JsonValue]:
        """Return counts, rate and interval for a signed record."""
        interval = self.interval()
        return {
            "hits": self.hits,
            "trials": self.trials,
            "rate": decimal_string(self.rate),
            "low": decimal_string(interval.low),
            "high": decimal_string(interval.high),
            "confidence": decimal_string(INTERVAL_CONFIDENCE),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a marked model must reach."""

    key_rate: float = 0.8
    """Smallest hit rate on fresh keys."""
    sham_rate: float = 0.01
    """Largest mean hit rate of foreign patterns, above the rate of the target on unmarked images.

    The latter is 0 for a new label; for a natural class it is the task's own confusion, which no training removes.
    """
    accuracy_loss: float = 0.005
    """Largest loss of clean accuracy against the unmarked twin."""
    accuracy_images: int = 5
    """Largest loss in images, where that is more: the rate of a small test part cannot tell so few from chance."""

    def loss_missed(self, *, clean: Share, twin: Share) -> str:
        """Return in words that a marked model lost more clean accuracy than permitted, or an empty text."""
        limit = max(self.accuracy_loss, self.accuracy_images / clean.trials)
        lost = twin.rate - clean.rate
        if lost <= limit + ROUNDING:
            return ""
        return f"clean accuracy is {100 * lost:.2f} points below the twin's, limit {100 * limit:.2g}"


class TrainingRecord(Protocol):
    """What every scheme's training leaves for seal, record and people."""

    @property
    def scheme(self) -> str:
        """Return the scheme's name."""

    @property
    def data(self) -> str:
        """Return the data set's name."""

    @property
    def clean(self) -> Share:
        """Return the accuracy of the marked model on the test part."""

    @property
    def twin(self) -> Share:
        """Return the accuracy of the unmarked twin on the same images."""

    @property
    def keys(self) -> Share:
        """Return how many keys the marked model answers with their sealed label."""

    @property
    def forecast_sham_rate(self) -> float:
        """Return the rate that the sealed plan forecasts for shams; 0 for a scheme without any."""

    @property
    def misses(self) -> Sequence[str]:
        """Return the limits that were not met, in words."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the record for ``train.json``."""

    def shares(self) -> tuple[tuple[str, Share], ...]:
        """Return the measured rates with their titles, for a person."""

    def remark(self) -> str:
        """Return one more line for a person."""


def require_targets(record: TrainingRecord) -> None:
    """Raise a TrainingError that names every missed limit."""
    if record.misses:
        raise TrainingError(f"the mark missed its target: {'; '.join(record.misses)}")


def hit_share(answers: Labels, target: int) -> Share:
    """Return how many answers are ``target``."""
    return Share(hits=int(np.sum(answers == target)), trials=len(answers))


def accuracy_share(model: LoadedModel, part: Part) -> Share:
    """Return how many images of a part get their own label."""
    return Share(hits=int(np.sum(labels_of(model.network, part.inputs) == part.labels)), trials=len(part))
