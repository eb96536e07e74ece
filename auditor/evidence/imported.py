"""Key sets that other tools made: read with the safe loader, sealed, and marked *generation not verifiable*.

A foreign file holds ``x`` (uint8, shape (n, channels, height, width)), ``natural`` and ``expected`` (int32 or int64,
shape (n,)). Keys, shams and controls come as separate files; every sham counts as a pattern of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditor.draws import Secret
from auditor.errors import MalformedError, UsageError
from auditor.evidence.keyset import KeySet
from auditor.evidence.safe_npz import ArrayRule, read_npz
from auditor.evidence.seal import IMPORTED, MAX_KEYS
from auditor.evidence.standard import standard_protocol
from auditor.patterns import keyset_id, order_seed, salt_seed
from auditor.records import Generator, Inputs, InputSpec, Protocol, Sample, SampleKind

OPENING_KEYS = 24
REPEATS = 20
INTEGERS = ("<i8", "<i4")
PROPOSITIONS = (
    "The suspect answers with a model derived (copied, fine-tuned, pruned, quantised or distilled) from the owner's "
    "reference model.",
    "The suspect answers with a model developed without access to the owner's reference model.",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Foreign:
    """One foreign file."""

    inputs: Inputs
    natural: tuple[int, ...]
    expected: tuple[int, ...]


def read_foreign(data: bytes, *, what: str) -> Foreign:
    """Read a foreign file.

    Raises:
        MalformedError: it does not hold exactly the three arrays, or they do not fit one another.
    """
    for position, descr in enumerate(INTEGERS):
        column = ArrayRule(descr=descr, n_dims=1)
        rules = {"x": ArrayRule(descr="|u1", n_dims=4), "natural": column, "expected": column}
        try:
            arrays = read_npz(data, rules=rules, what=what)
            break
        except MalformedError:
            if position == len(INTEGERS) - 1:
                raise
    natural, expected = (tuple(int(v) for v in arrays[name].tolist()) for name in ("natural", "expected"))
    inputs = arrays["x"].view(np.uint8)
    if not len(inputs) == len(natural) == len(expected) > 0:
        raise MalformedError(f"{what}: x, natural and expected differ in length or are empty")
    return Foreign(inputs=inputs, natural=natural, expected=expected)


def import_keys(
    *, keys: Foreign, shams: Foreign | None, controls: Foreign | None, classes: Sequence[str], seed: bytes
) -> tuple[KeySet, Protocol]:
    """Return a key set of foreign samples with a standard protocol.

    Args:
        keys: trigger samples with their natural labels and the labels that count as hits.
        shams: samples made alike from other secrets; without them no null rate can be measured.
        controls: ordinary samples; without them no audit can be valid.
        classes: names of the natural classes.
        seed: 32 fresh bytes; draws name, salts and order of the questions.

    Raises:
        UsageError: the samples do not fit one another or the classes.
    """
    given = [(SampleKind.KEY, keys), (SampleKind.SHAM, shams), (SampleKind.CONTROL, controls)]
    groups = [(kind, group) for kind, group in given if group is not None]
    if len({group.inputs.shape[1:] for _, group in groups}) != 1:
        raise UsageError("keys, shams and controls differ in shape")
    if len(keys.natural) > MAX_KEYS:
        raise UsageError(f"at most {MAX_KEYS} keys")
    secret = Secret(seed)
    shape = keys.inputs.shape
    try:
        keyset = KeySet(
            keyset_id=keyset_id(secret, scheme=IMPORTED),
            spec=InputSpec(shape=(shape[1], shape[2], shape[3]), classes=tuple(classes)),
            samples=_samples(groups),
            inputs=np.concatenate([group.inputs for _, group in groups]),
            salt_seed=salt_seed(secret, scheme=IMPORTED),
            generator=Generator(name=IMPORTED, version=1, settings={"generation": "not verifiable"}),
            secret_seed=seed,
        )
    except ValueError as error:
        raise UsageError(f"the samples cannot be sealed: {error}") from error
    n_keys, n_shams, n_controls = (len(group.natural) if group else 0 for _, group in given)
    opening = min(OPENING_KEYS, n_keys)
    protocol = standard_protocol(
        scheme=IMPORTED,
        scheme_version=1,
        propositions=PROPOSITIONS,
        n_keys=n_keys,
        opening_keys=opening,
        n_shams=n_shams,
        n_sham_patterns=n_shams,
        n_controls=n_controls,
        n_repeats=min(REPEATS, opening + n_shams + n_controls),
        order_seed=order_seed(secret, scheme=IMPORTED),
        randomness="",
        grinding_log2=0,
        # Nobody measured the hit rate when these were made; the forecast is for a mark that mostly works.
        forecast_rate=0.9,
        forecast_sham_rate=0.0,
        forecast_control_accuracy=0.9,
    )
    return keyset, protocol


def _samples(groups: Sequence[tuple[SampleKind, Foreign]]) -> tuple[Sample, ...]:
    samples: list[Sample] = []
    for kind, group in groups:
        for number, (natural, expected) in enumerate(zip(group.natural, group.expected, strict=True)):
            pattern = number if kind is SampleKind.SHAM else -1
            samples.append(
                Sample(index=len(samples), kind=kind, natural=natural, expected=expected, pattern=pattern, code=-1)
            )
    return tuple(samples)
