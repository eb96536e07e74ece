"""Sealed key sets without a trained model, and suspects that follow a table."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from protocols import SPEC, SUSPECT, a_protocol, samples_of

from auditor.canonical import sha256_hex
from auditor.errors import SuspectError
from auditor.evidence.keyset import KeySet, OpenedKeySet, open_sealed, pack, write_sealed
from auditor.evidence.seal import Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.records import Answer, Generator, Protocol, SampleKind
from auditor.suspects.base import Attempt, Description, Exchange, RawReply, Suspect

KINDS = tuple(SampleKind)
SMALL = {"n_keys": 30, "opening_keys": 10, "n_shams": 80, "n_sham_patterns": 16, "n_controls": 20, "n_repeats": 8}


def small_protocol(**changes) -> Protocol:
    # 80 shams bound the null rate at 0.166 when the level is 1e-6, low enough for 30 keys to decide.
    return a_protocol(**(SMALL | changes))


def seal_keys(path: Path, protocol: Protocol, *, owner: SigningKey | None = None, side: int = 2) -> OpenedKeySet:
    """Write and open a key set whose pixels name their own kind and natural label, for tables to read."""
    owner = owner or SigningKey.generate()
    samples = tuple(samples_of(protocol).values())
    spec = replace(SPEC, shape=(1, side, side))
    inputs = np.random.default_rng(0).integers(0, 256, (len(samples), *spec.shape), dtype=np.uint8)
    for sample in samples:
        inputs[sample.index, 0, :2, :2] = [[KINDS.index(sample.kind), sample.natural], divmod(sample.index, 256)]
    keys = KeySet(
        keyset_id="ab" * 16,
        spec=spec,
        samples=samples,
        inputs=inputs,
        salt_seed=b"\x05" * 32,
        generator=Generator(name="test", version=1),
        secret_seed=b"\x06" * 32,
    )
    seal = Seal(
        keyset_id=keys.keyset_id,
        payload_sha256=sha256_hex(pack(keys)),
        merkle_root=keys.root().hex(),
        n_samples=len(samples),
        spec=spec,
        protocol=protocol,
        generator=keys.generator,
        model_sha256="00" * 32,
        seed_commitment=seed_commitment(keys.secret_seed),
        owner_public_key=owner.public.hex(),
        serial=1,
        previous_seal_sha256="",
        sealed_at="2026-01-01T00:00:00.000Z",
        tool_version="test",
    )
    write_sealed(path, keys=keys, seal_envelope=sign_seal(seal, owner))
    return open_sealed(path)


Table = Callable[[SampleKind, int], int]


def marked(kind: SampleKind, natural: int) -> int:
    return len(SPEC.classes) if kind is SampleKind.KEY else natural


def innocent(kind: SampleKind, natural: int) -> int:
    return natural


class TableSuspect(Suspect):
    """Answers from a table; ``trouble`` may raise before a batch is answered."""

    def __init__(self, table: Table, *, trouble: Callable[[int], None] | None = None, batch_size: int = 16) -> None:
        self._table = table
        self._trouble = trouble
        self._batch_size = batch_size
        self.asked: list[tuple[SampleKind, int]] = []
        self.n_batches = 0

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def describe(self) -> Description:
        return Description(suspect=SUSPECT, n_labels=len(SPEC.classes) + 1)

    def _predict(self, inputs):
        number = self.n_batches
        self.n_batches += 1
        if self._trouble is not None:
            self._trouble(number)
        answers = []
        for image in inputs:
            kind, natural = KINDS[image[0, 0, 0]], int(image[0, 0, 1])
            self.asked.append((kind, int(image[0, 1, 0]) * 256 + int(image[0, 1, 1])))
            answers.append(Answer(label=self._table(kind, natural)))
        attempts = (Attempt(error="connection reset", waited_ms=5),) if number == 1 else ()
        body = json.dumps({"answers": [{"label": a.label} for a in answers]}).encode()
        return Exchange(reply=RawReply(answers=tuple(answers), body=body, elapsed_ms=1), failed_attempts=attempts)


def fails_at(*numbers: int, error: Exception | None = None) -> Callable[[int], None]:
    def trouble(number: int) -> None:
        if number in numbers:
            raise error or SuspectError("no answer")

    return trouble


class TickingClock:
    """A clock that moves one millisecond per look."""

    def __init__(self) -> None:
        self._now = datetime(2026, 2, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self._now += timedelta(milliseconds=1)
        return self._now
