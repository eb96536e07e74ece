"""Suspects that are more than one network: several models that vote, changed images, changed answers, coarse numbers.

Such a suspect is a folder with ``wrapped.json`` and one model folder per member (``member-0``, …). Like a model
folder it holds JSON and safetensors only, is read within limits, and names the digest of every member, so that the
digest of ``wrapped.json`` fixes all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from auditor.canonical import Fields, JsonValue, canonical_bytes, decimal_string, parse_object, sha256_hex
from auditor.errors import EvidenceError, SuspectLoadError, UsageError
from auditor.models import MAX_WEIGHTS_BYTES, WEIGHTS_NAME, LoadedModel, load_model, save_model
from auditor.transforms import AnswerChange, InputChange, read_answer_change, read_input_change

SCHEMA = "mlaudit.wrapped/1"
WRAPPED_NAME = "wrapped.json"
MAX_WRAPPED_BYTES = 1 << 20
MAX_MEMBERS = 64
MAX_CHANGES = 16
MAX_RANGES = 10_000
MAX_BITS = 16


class Combination(StrEnum):
    """How several members become one answer."""

    MEAN = "mean"
    """The mean of their probabilities."""
    MAJORITY = "majority"
    """Each member's label is one vote; the mean probability decides ties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Range in which the outputs of one layer are represented."""

    low: float
    """At most 0."""
    high: float
    """Above ``low``, at least 0."""

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high or self.low == self.high:
            raise UsageError("a range of activations holds 0 and is not a single point")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """What happens around the members."""

    inputs: tuple[InputChange, ...] = ()
    answers: tuple[AnswerChange, ...] = ()
    combination: Combination = Combination.MEAN
    activation_bits: int = 8
    """Bits of each activation where ``activations`` names its layer."""
    activations: Mapping[str, ActivationRange] = field(default_factory=dict)
    """Layers of the only member whose outputs are rounded to a grid, by module name."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the wrapping for a description."""
        return {
            "inputs": [change.as_json() for change in self.inputs],
            "answers": [change.as_json() for change in self.answers],
            "combination": self.combination.value,
            "activation_bits": self.activation_bits,
            "activations": [
                {"module": name, "low": decimal_string(r.low), "high": decimal_string(r.high)}
                for name, r in sorted(self.activations.items())
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedModel(LoadedModel):
    """A model that answers for its members; it can be served and audited, but not trained."""

    members: tuple[LoadedModel, ...]
    wrapping: Wrapping


def wrap(members: Sequence[LoadedModel], wrapping: Wrapping) -> WrappedModel:
    """Return one model that answers as the wrapped members do; their networks belong to it from now on.

    Raises:
        UsageError: no members or too many, members of different tasks, or activations of a layer that is not there.
    """
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise UsageError(f"a suspect has between 1 and {MAX_MEMBERS} members")
    first = members[0].description
    for other in members[1:]:
        if other.description.input_shape != first.input_shape or other.description.n_outputs != first.n_outputs:
            raise UsageError("models that answer together must take the same images and have the same outputs")
    if any(isinstance(member, WrappedModel) for member in members):
        raise UsageError("a wrapped suspect cannot be wrapped again")
    layers = dict(members[0].network.named_modules())
    if wrapping.activations and (len(members) > 1 or not set(wrapping.activations) <= set(layers)):
        raise UsageError("ranges of activations belong to layers of a single member")
    from auditor.wrapped_network import ActivationGrid, WrappedNetwork

    for name, scope in wrapping.activations.items():
        layers[name].register_forward_hook(
            ActivationGrid(low=scope.low, high=scope.high, bits=wrapping.activation_bits)
        )
    network = WrappedNetwork(
        [member.network for member in members],
        inputs=wrapping.inputs,
        answers=wrapping.answers,
        majority=wrapping.combination is Combination.MAJORITY,
    )
    return WrappedModel(
        network=network.eval(),
        description=replace(first, weights_sha256=""),
        members=tuple(members),
        wrapping=wrapping,
    )


def save(folder: Path, model: LoadedModel) -> LoadedModel:
    """Write a model of either kind into ``folder`` and return it with the digest that names it."""
    if not isinstance(model, WrappedModel):
        return replace(model, description=save_model(folder, model.network, model.description))
    digests: list[JsonValue] = []
    for number, member in enumerate(model.members):
        description = save_model(folder / _member_name(number), member.network, member.description)
        digests.append(description.weights_sha256)
    data = canonical_bytes({"schema": SCHEMA, "members": digests, **model.wrapping.as_json()}) + b"\n"
    (folder / WRAPPED_NAME).write_bytes(data)
    return replace(model, description=replace(model.description, weights_sha256=sha256_hex(data)))


def load(path: Path) -> LoadedModel:
    """Return the model of a folder of either kind, or of a ``.safetensors`` file.

    Raises:
        SuspectLoadError: a file is missing, too large, not what it says it is, or does not fit its description.
    """
    file = path / WRAPPED_NAME
    if not file.is_file():
        return load_model(path)
    try:
        if file.stat().st_size > MAX_WRAPPED_BYTES:
            raise SuspectLoadError(f"{WRAPPED_NAME}: larger than {MAX_WRAPPED_BYTES} bytes")
        data = file.read_bytes()
    except OSError as error:
        raise SuspectLoadError(f"{WRAPPED_NAME}: cannot be read ({type(error).__name__})") from error
    try:
        digests, wrapping = _read(data)
        _check_size(path, n_members=len(digests))
        members = []
        for number, digest in enumerate(digests):
            member = load_model(path / _member_name(number))
            if member.description.weights_sha256 != digest:
                raise SuspectLoadError(f"{WRAPPED_NAME}: {_member_name(number)} is another model than it names")
            members.append(member)
        whole = wrap(members, wrapping)
    except (EvidenceError, UsageError) as error:
        raise SuspectLoadError(f"{WRAPPED_NAME}: {str(error).removeprefix(f'{WRAPPED_NAME}: ')}") from error
    return replace(whole, description=replace(whole.description, weights_sha256=sha256_hex(data)))


def _read(data: bytes) -> tuple[tuple[str, ...], Wrapping]:
    fields = Fields(parse_object(data, what=WRAPPED_NAME, max_bytes=MAX_WRAPPED_BYTES), what=WRAPPED_NAME)
    if fields.text("schema") != SCHEMA:
        raise SuspectLoadError(f"{WRAPPED_NAME}: unknown schema")
    digests = fields.texts("members", max_items=MAX_MEMBERS)
    ranges: dict[str, ActivationRange] = {}
    for item in fields.items("activations", max_items=MAX_RANGES):
        entry = Fields(item, what=f"{WRAPPED_NAME}.activations")
        ranges[entry.text("module", max_length=256)] = ActivationRange(
            low=entry.decimal("low"), high=entry.decimal("high")
        )
        entry.finish()
    combination = fields.text("combination", max_length=32)
    if combination not in set(Combination):
        raise UsageError(f"unknown combination {combination!r}; known: {', '.join(Combination)}")
    wrapping = Wrapping(
        inputs=tuple(
            read_input_change(Fields(item, what=f"{WRAPPED_NAME}.inputs"))
            for item in fields.items("inputs", max_items=MAX_CHANGES)
        ),
        answers=tuple(
            read_answer_change(Fields(item, what=f"{WRAPPED_NAME}.answers"))
            for item in fields.items("answers", max_items=MAX_CHANGES)
        ),
        combination=Combination(combination),
        activation_bits=fields.integer("activation_bits", low=1, high=MAX_BITS),
        activations=ranges,
    )
    fields.finish()
    return digests, wrapping


def _check_size(path: Path, *, n_members: int) -> None:
    try:
        sizes = [(path / _member_name(number) / WEIGHTS_NAME).stat().st_size for number in range(n_members)]
    except OSError as error:
        raise SuspectLoadError(f"{WRAPPED_NAME}: a member's {WEIGHTS_NAME} is missing") from error
    if sum(sizes) > MAX_WEIGHTS_BYTES:
        raise SuspectLoadError(f"{WRAPPED_NAME}: its members are larger than {MAX_WEIGHTS_BYTES} bytes together")


def _member_name(number: int) -> str:
    return f"member-{number}"
