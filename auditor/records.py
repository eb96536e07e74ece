"""Frozen records that cross module borders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol as TypingProtocol

import numpy as np
import numpy.typing as npt

from auditor.canonical import JsonValue

Inputs = npt.NDArray[np.uint8]
"""A batch of inputs on the deployment grid: uint8, shape (n, channels, height, width), values 0-255."""


class SampleKind(StrEnum):
    """What a sealed sample is for."""

    KEY = "key"
    """Carries the secret mark; the owner's model was trained to answer the sealed label."""
    SHAM = "sham"
    """Made exactly like a key, from another secret; measures how often the mark 'verifies' by chance."""
    CONTROL = "control"
    """An ordinary carrier without any mark; shows that the suspect performs the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a suspect must accept and the natural label space it answers in."""

    shape: tuple[int, int, int]
    """(channels, height, width) of one input."""
    classes: tuple[str, ...]
    """Names of the task's natural classes, in label order; the new label is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sealed sample without its pixels."""

    index: int
    """Position in the key set and in its Merkle tree, from 0."""
    kind: SampleKind
    natural: int
    """The carrier's natural label, fixed before any draw."""
    expected: int
    """The label that counts as a hit: the sealed label for keys and shams, ``natural`` for controls."""
    pattern: int
    """Which sham pattern was used, from 0; -1 for keys and controls."""
    code: int
    """The label that the label code assigns to this key, or -1 when there is no code."""
    rival: int = -1
    """The other class that the sealed label could have been beside ``natural``, fixed before any draw; -1 where the
    label was drawn in another way."""


class Design(StrEnum):
    """When the audit stops."""

    SEQUENTIAL = "sequential"
    """Stop as soon as the e-process decides; valid at every look."""
    FIXED = "fixed"
    """Ask every key, then test once with the exact binomial tail."""


class NullBasis(StrEnum):
    """Which randomness the null rate of the sealed test rests on."""

    SHAMS = "sham-patterns"
    """Foreign patterns asked of this suspect bound the rate at which the sealed label is answered by chance."""
    DRAWN_LABELS = "drawn-labels"
    """Every sealed label is a uniform draw over the wrong classes of its carrier."""
    RIVAL_LABELS = "rival-labels"
    """Every sealed label is a fair coin's choice between its carrier's natural label and one committed rival class."""
    DRAWN_TABLE = "drawn-table"
    """The table of target classes is a uniform draw over the classes other than each cell's own."""

    @property
    def draws_labels(self) -> bool:
        """Whether every key has a label of its own draw, so that no sham is needed and not every answer is bet on."""
        return self in (NullBasis.DRAWN_LABELS, NullBasis.RIVAL_LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Everything that decides the verdict, fixed in the seal before the suspect is asked anything."""

    scheme: str
    scheme_version: int
    h1: str
    """Proposition of the owner, as the report prints it."""
    h2: str
    """The alternative, as the report prints it."""
    design: Design
    null_basis: NullBasis
    alpha: float
    """Level of the claim, in (0, 1)."""
    null_share: float
    """Share of ``alpha`` spent on the upper confidence bound of the null rate, in (0, 1); not spent where the draw
    itself supplies the rate."""
    null_floor: float
    """Smallest null rate that a measured bound may give, in (0, 1); without meaning where the draw supplies it."""
    p_min: float
    """Smallest hit rate among all keys asked that the audit promises to detect; rates below it are 'not supported' by
    futility."""
    futility: float
    """Probability of stopping for futility although the hit rate is at least ``p_min``."""
    n_keys: int
    """Keys that are sealed; how many of them one audit may ask is said by :attr:`n_asked`."""
    opening_keys: int
    """Keys mixed with shams, controls and repeats in the first stage."""
    n_shams: int
    n_sham_patterns: int
    n_controls: int
    n_repeats: int
    """Probes of the first stage that are asked a second time."""
    min_control_accuracy: float
    """Below this share of natural labels on controls the suspect is not a model of this task."""
    max_disagreement: float
    """Above this share of repeats with another label the answers are called unstable."""
    max_failed_share: float
    """Above this share of first-stage probes without an answer the audit is inconclusive."""
    obstruction_alpha: float
    """Level of the exact test that keys are refused more often than controls."""
    code_alpha: float
    """Level of the label-code test that is used when the new label is never answered."""
    order_seed: str
    """32 bytes in hex; draws the order of the questions."""
    randomness: str
    """Public randomness mixed into the draw, as hex; empty when there was none."""
    grinding_log2: int
    """Declared number of seeds the owner may have tried, as a power of two, charged to the level."""
    forecast_rate: float
    """Hit rate on fresh keys measured on the owner's model at sealing time."""
    forecast_sham_rate: float
    """Sham hit rate measured on the owner's model at sealing time."""
    forecast_control_accuracy: float
    """Natural-label accuracy of the owner's model at sealing time."""

    @property
    def n_asked(self) -> int:
        """Keys that one audit may ask: all of them, but of a guard's pool of probes only those of the first stage."""
        return self.opening_keys if self.null_basis is NullBasis.DRAWN_TABLE else self.n_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectId:
    """What is under test, with credentials removed."""

    uri: str
    kind: str
    """``http`` or ``file``."""
    artefact_sha256: str
    """Digest of the model file, or of the service description an endpoint returned; empty when it has none."""
    address: str
    """Resolved network address, or empty."""
    declared_name: str
    """The name the suspect gives itself, or empty."""
    profile: str = ""
    """How the service was spoken to: name of the profile, or empty for the package's own contract."""
    profile_sha256: str = ""
    """Digest of the profile's file, or empty."""
    reading: str = ""
    """How answers were read from the bytes, see evidence/reading.py; empty for the package's own contract."""
    certificate_sha256: str = ""
    """Digest of the TLS certificate the service showed first, or empty."""
    account: str = ""
    """Under which account the questions were asked, a label the examiner chose; or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the suspect said to one probe."""

    label: int
    """Top-1 label, from 0; may lie outside the natural classes."""
    scores: Sequence[float] | None = None
    """One score per label where the suspect reveals them, else None."""
    top: tuple[tuple[int, float], ...] | None = None
    """Distinct labels with their scores where the suspect reveals those of some labels only, else None."""

    @property
    def contradicts_itself(self) -> bool:
        """Whether its scores put another label above the stated one; False where they do not show the stated one."""
        if self.scores is not None:
            scores = tuple(self.scores)
            return self.label < len(scores) and scores[self.label] < max(scores)
        shown = dict(self.top or ())
        return self.label in shown and shown[self.label] < max(shown.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question in the drawn order."""

    position: int
    """Place in the drawn order, from 0."""
    index: int
    """Index of the sealed sample that is asked."""
    kind: SampleKind
    repeat: bool
    """True for the second asking of a sample; its answer never counts towards the verdict's hits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A probe with what became of it."""

    probe: Probe
    answer: Answer | None
    """None: issued, but no answer was logged."""


class Status(StrEnum):
    """The three outcomes of an audit."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    INCONCLUSIVE = "inconclusive"


class Reason(StrEnum):
    """Why the outcome is what it is; each reason belongs to exactly one status."""

    NULL_REJECTED = "null-rejected"
    HIT_RATE_EXCLUDED = "hit-rate-excluded"
    NULL_NOT_REJECTED = "null-not-rejected"
    BUDGET_EXHAUSTED = "budget-exhausted"
    TOO_FEW_ANSWERS = "too-few-answers"
    CONTROLS_FAILED = "controls-failed"
    ANSWERS_UNSTABLE = "answers-unstable"
    OBSTRUCTED = "obstructed"
    LABEL_HIDDEN = "label-hidden"
    NULL_UNCALIBRATED = "null-uncalibrated"
    PLAN_UNDERPOWERED = "plan-underpowered"
    INTERRUPTED = "interrupted"
    CONTESTABLE = "contestable"
    LABELS_UNCLEAR = "labels-unclear"
    ANSWERS_UNINFORMATIVE = "answers-uninformative"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome with its reason; the status follows from the reason (see auditor.verdict)."""

    reason: Reason
    explanation: str
    """One or two sentences for a reader without statistics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """How the key material was made, as far as it can be re-derived."""

    name: str
    version: int
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    """Public parameters such as β, grid and label code on/off; decimal strings for fractions."""


class Progress(TypingProtocol):
    """Where long work reports how far it is; core code never prints."""

    def begin(self, title: str, total: int) -> None:
        """Start a piece of work of ``total`` units."""

    def advance(self, n: int = 1) -> None:
        """Report ``n`` finished units."""

    def note(self, text: str) -> None:
        """Say something a waiting person wants to know."""

    def end(self) -> None:
        """Finish the current piece of work."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, title: str, total: int) -> None:
        """Do nothing."""

    def advance(self, n: int = 1) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""
