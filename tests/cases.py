"""Sealed key sets without a trained model, and suspects that follow a table."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from protocols import SPEC, SUSPECT, a_protocol, samples_of

from auditor import patterns
from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.errors import SuspectError
from auditor.evidence.commitment import (
    Carrier,
    Carriers,
    Commitment,
    Material,
    committed_plan,
    pack_material,
    sign_commitment,
)
from auditor.evidence.encryption import Locks
from auditor.evidence.generation import dealing_order, derive_samples, mixed_randomness
from auditor.evidence.keyset import KeySet, OpenedKeySet, check_sealed, pack, parse_sealed, sealed_bytes, write_sealed
from auditor.evidence.seal import CODE_SETTING, GRINDING_LOG2, RandomnessSource, Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.records import Answer, Generator, Protocol, SampleKind
from auditor.suspects.base import Attempt, Description, Exchange, RawReply, Suspect

KINDS = tuple(SampleKind)
SMALL = {"n_keys": 30, "opening_keys": 10, "n_shams": 80, "n_sham_patterns": 16, "n_controls": 20, "n_repeats": 8}


def small_protocol(**changes) -> Protocol:
    # 80 shams bound the null rate at 0.166 when the level is 1e-6, low enough for 30 keys to decide.
    return a_protocol(**(SMALL | changes))


SEED = b"\x06" * 32
NONCE = b"\x22" * 32
BETA = "0.0001"
"""So small that no pixel changes when it is rounded: keys look like their carriers, which tables can read."""


def seal_keys(
    path: Path,
    protocol: Protocol,
    *,
    owner: SigningKey | None = None,
    side: int = 2,
    seed: bytes = SEED,
    source: RandomnessSource = RandomnessSource.NONCE,
    randomness: bytes = NONCE,
    beta: str = BETA,
    locks: Locks | None = None,
) -> OpenedKeySet:
    """Write and open a re-derivable key set whose pixels name their own kind and natural label, for tables to read."""
    keys, seal, owner = make_keys(
        protocol, owner=owner, side=side, seed=seed, source=source, randomness=randomness, beta=beta
    )
    write_sealed(path, keys=keys, seal_envelope=sign_seal(seal, owner), locks=locks)
    return check_sealed(parse_sealed(sealed_bytes(keys, seal_envelope=sign_seal(seal, owner))))


def make_keys(
    protocol,
    *,
    owner=None,
    side=2,
    seed=SEED,
    source=RandomnessSource.NONCE,
    randomness=NONCE,
    beta=BETA,
    dealt_by=None,
):
    """Return key set, unsigned seal and owner's key, generated as an owner does it."""
    owner = owner or SigningKey.generate()
    spec = replace(SPEC, shape=(1, side, side))
    if source is RandomnessSource.NONE:
        protocol = replace(protocol, grinding_log2=GRINDING_LOG2)
    carriers = carriers_of(protocol, spec, dealer=Secret(seed, dealt_by or randomness))
    settings = {"beta": beta, "data": "table"}
    commitment = Commitment(
        carriers_root=carriers.root(patterns.carrier_salt_seed(seed, scheme="new-label")),
        n_carriers=len(carriers.items),
        spec=spec,
        generator=Generator(name="new-label", version=1, settings=settings),
        plan=committed_plan(protocol),
        seed_commitment=seed_commitment(seed),
        owner_public_key=owner.public.hex(),
        committed_at="2025-12-31T00:00:00.000Z",
        tool_version="test",
    )
    envelope = sign_commitment(commitment, owner)
    if source is RandomnessSource.TOKEN:
        randomness = b"token" + bytes.fromhex(sha256_hex(envelope)) + randomness
    mixed = mixed_randomness(source, randomness)
    secret = Secret(seed, mixed).drawn_after(envelope)
    generator = Generator(name="new-label", version=1, settings=settings | {CODE_SETTING: False})
    protocol = replace(protocol, randomness=mixed.hex(), order_seed=patterns.order_seed(secret, scheme="new-label"))
    samples, pixels = derive_samples(
        carriers,
        patterns.new_label_mark(secret, shape=spec.shape, n_natural=len(spec.classes), code=False),
        secret,
        generator=generator,
        n_keys=protocol.n_keys,
        n_sham_patterns=protocol.n_sham_patterns,
        n_shams=protocol.n_shams,
    )
    keys = KeySet(
        keyset_id=patterns.keyset_id(secret, scheme="new-label"),
        spec=spec,
        samples=samples,
        inputs=pixels,
        salt_seed=patterns.salt_seed(secret, scheme="new-label"),
        generator=generator,
        secret_seed=seed,
        generation=pack_material(Material(carriers=carriers, commitment=envelope, randomness=randomness)),
    )
    seal = Seal(
        keyset_id=keys.keyset_id,
        payload_sha256=sha256_hex(pack(keys)),
        merkle_root=keys.root().hex(),
        n_samples=len(samples),
        spec=spec,
        protocol=protocol,
        generator=generator,
        model_sha256="00" * 32,
        seed_commitment=seed_commitment(seed),
        owner_public_key=owner.public.hex(),
        serial=1,
        previous_seal_sha256="",
        sealed_at="2026-01-01T00:00:00.000Z",
        tool_version="test",
        commitment_sha256=sha256_hex(envelope),
        randomness_source=source,
    )
    return keys, seal, owner


def carriers_of(protocol, spec, *, dealer):
    """Return carriers that name what they become: who knows a nonce beforehand knows how they will be dealt.

    Without a nonce, or with a token, they are dealt otherwise, and name something else.
    """
    planned = list(samples_of(protocol).values())
    inputs = np.random.default_rng(0).integers(0, 256, (len(planned), *spec.shape), dtype=np.uint8)
    order = dealing_order(dealer, scheme="new-label", n=protocol.n_keys + protocol.n_shams)
    items = [Carrier(kind=SampleKind.CONTROL, pattern=-1, natural=s.natural) for s in planned]
    for sample in planned:
        row = order[sample.index] if sample.index < len(order) else sample.index
        inputs[row, 0, :2, :2] = [[KINDS.index(sample.kind), sample.natural], divmod(sample.index, 256)]
        if row < len(order):
            items[row] = Carrier(kind=SampleKind.KEY, pattern=-1, natural=sample.natural)
    return Carriers(items=tuple(items), inputs=inputs)


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
