"""What models say to keys: innocent ones by chance, the marked one when the images are changed on their way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from auditor.errors import SuspectAnswerError
from auditor.evidence.keyset import KeySet
from auditor.evidence.panel import PanelModel
from auditor.records import Answer, Inputs, NullBasis, Protocol, SampleKind
from auditor.screening.nearness import Share, share
from auditor.stats.panel import PanelNull, measure_panel
from auditor.transforms import InputChange, InputKind, to_bytes

Change = Callable[[Inputs], Inputs]
Ask = Callable[[Inputs], Sequence[Answer]]
"""Asks a model and returns its answers, in order."""

PANEL_ERROR = 0.05
CHANGES = (
    InputChange(kind=InputKind.NOISE, strength=4 / 255),
    InputChange(kind=InputKind.NOISE, strength=16 / 255),
    InputChange(kind=InputKind.JPEG, strength=90),
    InputChange(kind=InputKind.JPEG, strength=50),
)
SIZES = (0.75, 0.5)
"""Sides, as shares of the original ones, to which images are resized and back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Innocents:
    """How innocent models answer the keys; the unit is the model."""

    measured: PanelNull
    natural: Share | None
    """Answers that are the carrier's natural label, over all models and keys; its interval treats answers as
    independent and describes these models only. None where a panel record does not tell."""
    by_most: int
    """Keys that at least half of the models hit: their sealed answer follows from the task."""
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """What the marked model says when the images are changed."""

    change: str
    keys: Share
    """Keys that still get the sealed answer."""
    controls: Share | None
    """Controls that still get their natural label; None without controls."""


def from_answers(keys: KeySet, answers: Sequence[tuple[str, Sequence[Answer]]]) -> Innocents | None:
    """Return what innocent models answered; None without any.

    Args:
        keys: the key set.
        answers: name of each model and its answer to every key, in sealed order.
    """
    if not answers:
        return None
    samples = [sample for sample in keys.samples if sample.kind is SampleKind.KEY]
    hits = [[a.label == s.expected for a, s in zip(given, samples, strict=True)] for _, given in answers]
    natural = sum(a.label == s.natural for _, given in answers for a, s in zip(given, samples, strict=True))
    return _innocents(hits, natural=share(natural, len(answers) * len(samples)), names=[name for name, _ in answers])


def from_panel(models: Sequence[PanelModel]) -> Innocents | None:
    """Return what a panel record says; None without models."""
    if not models:
        return None
    hits = [[outcome is True for outcome in model.answers.keys] for model in models]
    return _innocents(hits, natural=None, names=[model.name for model in models])


def stability(keys: KeySet, ask: Ask) -> tuple[Stability, ...]:
    """Return how the marked model answers keys and controls under every change; the first row is without one.

    Raises:
        MissingPartError: Pillow is not installed.
    """
    rows = {
        kind: [sample for sample in keys.samples if sample.kind is kind]
        for kind in (SampleKind.KEY, SampleKind.CONTROL)
    }
    inputs = {kind: keys.inputs[[sample.index for sample in found]] for kind, found in rows.items()}
    found: list[Stability] = []
    for name, change in _changes():
        shares = {}
        for kind, samples in rows.items():
            answers = ask(np.ascontiguousarray(change(inputs[kind]))) if samples else ()
            hits = sum(a.label == s.expected for a, s in zip(answers, samples, strict=True))
            shares[kind] = share(hits, len(samples)) if samples else None
        on_keys = shares[SampleKind.KEY]
        if on_keys is None:
            raise SuspectAnswerError("the key set holds no key")
        found.append(Stability(change=name, keys=on_keys, controls=shares[SampleKind.CONTROL]))
    return tuple(found)


def hits_show_the_mark(protocol: Protocol) -> bool:
    """Return whether a single answer can hit: not where the mark is a tilt of many answers' scores."""
    return protocol.null_basis is not NullBasis.DRAWN_TABLE


def resized(images: Inputs, *, side: float) -> Inputs:
    """Return images made smaller and brought back to their size by bilinear interpolation.

    Raises:
        MissingPartError: Pillow is not installed.
    """
    from PIL import Image

    height, width = images.shape[2:]
    small = (max(1, round(width * side)), max(1, round(height * side)))
    out = np.empty_like(images)
    for row, image in enumerate(images):
        for channel, plane in enumerate(image):
            shrunk = Image.fromarray(plane).resize(small, Image.Resampling.BILINEAR)
            out[row, channel] = np.asarray(shrunk.resize((width, height), Image.Resampling.BILINEAR))
    return out


def _changes() -> list[tuple[str, Change]]:
    found: list[tuple[str, Change]] = [("unchanged", np.ascontiguousarray)]
    for change in CHANGES:
        noise = change.kind is InputKind.NOISE
        name = f"noise, {255 * change.strength:.0f} grey levels" if noise else f"JPEG, quality {change.strength:.0f}"
        found.append((name, partial(_changed, change=change)))
    found += [(f"resized to {100 * side:.0f} % and back", partial(resized, side=side)) for side in SIZES]
    return found


def _changed(images: Inputs, *, change: InputChange) -> Inputs:
    return to_bytes(change.apply(images.astype(np.float32) / np.float32(255.0)))


def _innocents(hits: Sequence[Sequence[bool]], *, natural: Share | None, names: Sequence[str]) -> Innocents:
    measured = measure_panel(hits, error=PANEL_ERROR)
    return Innocents(
        measured=measured,
        natural=natural,
        by_most=sum(2 * key.hits >= key.models for key in measured.keys),
        names=tuple(names),
    )
