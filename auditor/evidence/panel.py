"""The panel record: how independently trained models answered the same key set, for the audit of one suspect.

``panel.json`` is canonical JSON. For each model it states what it is and, per key in sealed order, one letter: ``h``
hit, ``m`` an answer that counted as a miss, ``n`` an answer that nothing is bet on (see ``auditor.analysis``); and the
hits among the foreign patterns. Labels are not stated, so that the record does not disclose keys that were not asked.

The record enters the transcript's first line, before the first question to the suspect, and is covered by the
examiner's signature over the transcript's head. Whether the models are independent of the owner and of one another,
and which population they stand for, no record can show; it says who they are, by the digest of their weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from auditor.analysis import PanelMember, sort_replies
from auditor.analysis.base import Basis
from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_canonical_object
from auditor.errors import MalformedError, SealError, UsageError
from auditor.evidence.seal import Seal
from auditor.records import Answer, Probe, Reply, Sample, SampleKind

SCHEMA = "mlaudit.panel/1"
WHAT = "panel.json"
MAX_MODELS = 1000
MAX_TEXT = 200
_LETTERS = {True: "h", False: "m", None: "n"}
_OUTCOMES = {letter: outcome for outcome, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelModel:
    """One independently trained model and how it answered."""

    name: str
    architecture: str
    seed: str
    """Seed of its training, as its trainer states it; may be empty."""
    weights_sha256: str
    answers: PanelMember


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel of independently trained models that were asked one key set."""

    keyset_id: str
    models: tuple[PanelModel, ...]

    @property
    def members(self) -> tuple[PanelMember, ...]:
        """How each model answered."""
        return tuple(model.answers for model in self.models)


def member(basis: Basis, samples: Sequence[Sample], answers: Sequence[Answer]) -> PanelMember:
    """Return how a model answered, from its answer to every sample of the key set in sealed order."""
    replies = [
        Reply(probe=Probe(position=sample.index, index=sample.index, kind=sample.kind, repeat=False), answer=answer)
        for sample, answer in zip(samples, answers, strict=True)
    ]
    grouped, by_index = sort_replies(replies), {sample.index: sample for sample in samples}
    return PanelMember(
        keys=basis.key_outcomes(grouped, by_index),
        sham_hits=sum(
            answer.label == sample.expected
            for sample, answer in zip(samples, answers, strict=True)
            if sample.kind is SampleKind.SHAM
        ),
    )


def panel_object(panel: Panel) -> dict[str, JsonValue]:
    """Return a panel as JSON."""
    return {
        "schema": SCHEMA,
        "keyset_id": panel.keyset_id,
        "models": [
            {
                "name": model.name,
                "architecture": model.architecture,
                "seed": model.seed,
                "weights_sha256": model.weights_sha256,
                "keys": "".join(_LETTERS[outcome] for outcome in model.answers.keys),
                "sham_hits": model.answers.sham_hits,
            }
            for model in panel.models
        ],
    }


def panel_bytes(panel: Panel) -> bytes:
    """Return the bytes of ``panel.json``."""
    return canonical_bytes(panel_object(panel)) + b"\n"


def parse_panel(data: bytes, *, seal: Seal) -> Panel:
    """Read ``panel.json``; see :func:`panel_from`."""
    return panel_from(parse_canonical_object(data.removesuffix(b"\n"), what=WHAT), seal=seal)


def panel_from(value: JsonValue, *, seal: Seal) -> Panel:
    """Read a panel record.

    Raises:
        MalformedError: a field is missing, unknown or out of range, or a model stands in it twice.
        SealError: it was made with another key set.
    """
    fields = Fields(value, what=WHAT)
    if fields.text("schema") != SCHEMA:
        raise MalformedError(f"{WHAT}: unknown schema")
    keyset_id = fields.hex("keyset_id", n_bytes=16)
    models = tuple(_model(item, seal=seal) for item in fields.items("models", max_items=MAX_MODELS))
    fields.finish()
    if keyset_id != seal.keyset_id:
        raise SealError(f"{WHAT}: made with another key set")
    digests = {model.weights_sha256 for model in models}
    if not models or len(digests) != len(models):
        raise MalformedError(f"{WHAT}: a panel names at least one model, and each model once")
    return Panel(keyset_id=keyset_id, models=models)


def require_foreign(panel: Panel, *, artefact_sha256: str, owner_model_sha256: str) -> None:
    """Refuse a panel that contains the suspect or the owner's model.

    Raises:
        UsageError: it does.
    """
    digests = {model.weights_sha256 for model in panel.models}
    if artefact_sha256 in digests or owner_model_sha256 in digests:
        raise UsageError(f"{WHAT}: the suspect and the owner's model cannot be members of the panel")


def _model(item: JsonValue, *, seal: Seal) -> PanelModel:
    fields = Fields(item, what=f"{WHAT} model")
    letters = fields.text("keys", max_length=seal.protocol.n_keys)
    model = PanelModel(
        name=fields.text("name", max_length=MAX_TEXT),
        architecture=fields.text("architecture", max_length=MAX_TEXT),
        seed=fields.text("seed", max_length=MAX_TEXT),
        weights_sha256=fields.hex("weights_sha256", n_bytes=32),
        answers=PanelMember(
            keys=tuple(_OUTCOMES[letter] for letter in letters if letter in _OUTCOMES),
            sham_hits=fields.integer("sham_hits", high=seal.protocol.n_shams),
        ),
    )
    fields.finish()
    if len(model.answers.keys) != seal.protocol.n_keys:
        raise MalformedError(f"{WHAT}: every model answers every key of the key set with h, m or n")
    return model
