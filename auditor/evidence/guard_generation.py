"""What a guard's key set is made of, for the owner who builds it and the judge who derives it again.

Everything that decides the statistic but the tables is fixed by the commitment: probes, projections, thresholds, the
clean model's answers and the client ids. The tables follow from seed and public randomness, which comes later.
"""

from dataclasses import replace
from typing import NoReturn

import numpy as np

from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.errors import EvidenceError, SealError
from auditor.evidence.commitment import Carriers, Commitment
from auditor.guard_keys import (
    GUARD_SETTING,
    MEASURED_SETTING,
    GuardKeys,
    Integers,
    client_keys,
    pack,
    projection_key,
    unpack,
)
from auditor.records import Inputs, InputSpec, Sample, SampleKind


def draw_guard(measured: GuardKeys, secret: Secret) -> GuardKeys:
    """Return the guard with the client keys that follow from seed and randomness."""
    return replace(measured, client_keys=client_keys(secret, measured.clients))


def guard_samples(carriers: Carriers, reference: Integers) -> tuple[tuple[Sample, ...], Inputs]:
    """Return probes and controls as sealed samples; a probe's expected label is the clean model's first class.

    Raises:
        SealError: there are not as many probes as reference answers.
    """
    probes, controls = carriers.rows(SampleKind.KEY), carriers.rows(SampleKind.CONTROL)
    if len(probes) != len(reference):
        _fail("carriers", "there must be one reference answer per probe")
    first = np.argmax(reference, axis=1).tolist()
    samples = [
        Sample(
            index=index, kind=SampleKind.KEY, natural=carriers.items[row].natural, expected=first[index], pattern=-1,
            code=-1,
        )
        for index, row in enumerate(probes)
    ]  # fmt: skip
    for row in controls:
        natural = carriers.items[row].natural
        samples.append(
            Sample(
                index=len(samples), kind=SampleKind.CONTROL, natural=natural, expected=natural, pattern=-1, code=-1
            )
        )  # fmt: skip
    return tuple(samples), carriers.inputs[[*probes, *controls]]


def rederive_guard(
    guard: bytes, *, commitment: Commitment, secret: Secret, carriers: Carriers, spec: InputSpec, model_sha256: str
) -> tuple[tuple[Sample, ...], Inputs]:
    """Derive the guard anew, compare it with the sealed one, and return the samples that follow.

    Raises:
        SealError: something differs; the message names the step.
    """
    try:
        keys = unpack(guard)
    except EvidenceError as error:
        raise SealError(f"generation: step 'guard': {error}") from error
    if commitment.generator.settings.get(MEASURED_SETTING) != keys.measured_sha256():
        _fail("guard", "thresholds, reference answers or clients are not the committed ones")
    if keys.projection_key != projection_key(secret.seed):
        _fail("guard", "the projections do not follow from the seed")
    if pack(draw_guard(keys, secret)) != guard:
        _fail("guard", "the client keys do not follow from seed and randomness")
    if (keys.classes, keys.shape, keys.model_sha256) != (spec.classes, spec.shape, model_sha256):
        _fail("guard", "it belongs to another model or task than the seal")
    return guard_samples(carriers, keys.reference)


def guard_digest(guard: bytes) -> dict[str, str]:
    """Return the generator setting that names a guard in the seal."""
    return {GUARD_SETTING: sha256_hex(guard)}


def _fail(step: str, what: str) -> NoReturn:
    raise SealError(f"generation: step '{step}': {what}")
