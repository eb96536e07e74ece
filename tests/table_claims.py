"""Sealed claims of every kind without a trained model: pixels name their sample, tables answer for copy and innocent.

The thief is given the best detector there is: the pixels say which inputs are keys.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from protocols import SPEC, a_protocol, samples_of

from auditor import guard_keys
from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.evidence.keyset import KeySet, OpenedKeySet, pack
from auditor.evidence.seal import RandomnessSource, Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.evidence.standard import smallest_rate
from auditor.guard_keys import GuardKeys, GuardSettings, probe_cells
from auditor.guards.owner import smallest_p
from auditor.records import Design, Generator, Inputs, NullBasis, Protocol, Sample, SampleKind

KINDS = tuple(SampleKind)
N_CLASSES = 10
SHAPE = (1, 4, 4)
TASK = replace(SPEC, shape=SHAPE, classes=tuple("abcdefghij"))
SEED = b"\x06" * 32
MODEL_SHA256 = "00" * 32
CLIENTS = ("alice", "bob")
HIT_RATE = 0.95
"""Of a copy's answers to keys that follow the mark."""
ACCURACY = 0.97

Scores = np.ndarray
Predict = Callable[[Inputs], Scores]


@dataclass(frozen=True, kw_only=True)
class TableClaim:
    """One sealed key set with a copy and an innocent that answer from tables, as scores per output."""

    opened: OpenedKeySet
    copy: Predict
    innocent: Predict
    n_outputs: int
    """Outputs of the copy."""


def is_key(inputs: Inputs) -> np.ndarray:
    """Return which inputs are key samples: the thief has found out."""
    return np.asarray(inputs[:, 0, 0, 0] == KINDS.index(SampleKind.KEY))


def index_of(inputs: Inputs) -> np.ndarray:
    """Return the index of the sealed sample that each input is."""
    return np.asarray(inputs[:, 0, 0, 2].astype(np.int64) * 256 + inputs[:, 0, 0, 3])


@cache
def claim(kind: str, *, seed: int = 0, rate: float = HIT_RATE) -> TableClaim:
    """Return one claim of a kind: new-label, label-code, drawn-labels, rival-labels or guard.

    ``rate`` is the share of keys on which the copy follows the mark; a guard's copy follows it as a whole.
    """
    return {
        "new-label": lambda: _pattern_claim(code=False, seed=seed, rate=rate),
        "label-code": lambda: _pattern_claim(code=True, seed=seed, rate=rate),
        "drawn-labels": lambda: _trigger_claim(NullBasis.DRAWN_LABELS, seed=seed, rate=rate),
        "rival-labels": lambda: _trigger_claim(NullBasis.RIVAL_LABELS, seed=seed, rate=rate),
        "guard": lambda: _guard_claim(seed=seed),
    }[kind]()


CLAIMS = ("new-label", "label-code", "drawn-labels", "rival-labels", "guard")


def _pattern_claim(*, code: bool, seed: int, rate: float) -> TableClaim:
    protocol = a_protocol(
        n_keys=60, opening_keys=24, n_shams=120, n_controls=60, n_repeats=20, code_alpha=0.01, order_seed=_hex(seed)
    )
    samples = tuple(samples_of(protocol, code=code, n_classes=N_CLASSES).values())
    if code:
        derangement = _derangement(seed)
        samples = tuple(replace(s, code=derangement[s.natural]) if s.kind is SampleKind.KEY else s for s in samples)
    generator = Generator(name="new-label", version=1, settings={})
    return _claim(protocol, samples, generator, n_outputs=N_CLASSES + 1, seed=seed, rate=rate)


def _trigger_claim(basis: NullBasis, *, seed: int, rate: float) -> TableClaim:
    rival = basis is NullBasis.RIVAL_LABELS
    n_keys = 300 if rival else 120
    protocol = a_protocol(
        scheme="margin", scheme_version=2 if rival else 1, null_basis=basis, n_keys=n_keys, opening_keys=24, n_shams=0,
        n_sham_patterns=0, n_controls=60, n_repeats=20, p_min=smallest_rate(basis, n_keys=n_keys),
        order_seed=_hex(seed),
    )  # fmt: skip
    rng = np.random.default_rng([1, seed])
    samples = []
    for index in range(protocol.n_keys + protocol.n_controls):
        natural = index % N_CLASSES
        if index >= protocol.n_keys:
            samples.append(_sample(index, SampleKind.CONTROL, natural, natural))
            continue
        wrong = (natural + 1 + int(rng.integers(N_CLASSES - 1))) % N_CLASSES
        expected = wrong if not rival or rng.integers(2) else natural
        samples.append(_sample(index, SampleKind.KEY, natural, expected, rival=wrong if rival else -1))
    generator = Generator(name="margin", version=protocol.scheme_version, settings={})
    return _claim(protocol, tuple(samples), generator, n_outputs=N_CLASSES, seed=seed, rate=rate)


def _guard_claim(*, seed: int) -> TableClaim:
    settings = GuardSettings(depth=0.8, bits=1)
    protocol = a_protocol(
        scheme=guard_keys.SCHEME, scheme_version=guard_keys.VERSION, null_basis=NullBasis.DRAWN_TABLE,
        design=Design.FIXED, n_keys=300, opening_keys=300, n_shams=0, n_sham_patterns=0, n_controls=60, n_repeats=20,
        null_floor=smallest_p(N_CLASSES, N_CLASSES << settings.bits), order_seed=_hex(seed), forecast_rate=0.9,
    )  # fmt: skip
    rng = np.random.default_rng([2, seed])
    samples = tuple(
        _sample(index, SampleKind.KEY if index < protocol.n_keys else SampleKind.CONTROL, index % N_CLASSES,
                index % N_CLASSES)
        for index in range(protocol.n_keys + protocol.n_controls)
    )  # fmt: skip
    logits = 2.0 * rng.normal(size=(len(samples), N_CLASSES))
    naturals = [sample.natural for sample in samples]
    logits[np.arange(len(samples)), naturals] = logits.max(axis=1) + 1.0
    clean = _softmax(logits)
    owned = GuardKeys(
        settings=settings,
        classes=TASK.classes,
        shape=SHAPE,
        model_sha256=MODEL_SHA256,
        projection_key=guard_keys.projection_key(SEED),
        thresholds=np.zeros((N_CLASSES, settings.bits), dtype=np.int64),
        reference=guard_keys.reference_units(clean[: protocol.n_keys]),
        clients=CLIENTS,
        client_keys=guard_keys.client_keys(Secret(seed.to_bytes(32, "big")), CLIENTS),
    )
    generator = Generator(
        name=guard_keys.SCHEME, version=guard_keys.VERSION,
        settings={guard_keys.GUARD_SETTING: sha256_hex(guard_keys.pack(owned)),
                  guard_keys.MEASURED_SETTING: owned.measured_sha256()},
    )  # fmt: skip
    inputs = _inputs(samples, seed=seed)
    noisy = _softmax(logits + 0.4 * rng.normal(size=logits.shape))
    cells = probe_cells(owned, inputs, clean)
    table = owned.table("bob")
    share = 0.2 * (1 + 0.8 * np.array(table.signs)[cells])
    marked = noisy * (1 - share)[:, None]
    marked[np.arange(len(samples)), np.array(table.targets)[cells]] += share
    return TableClaim(
        opened=_sealed(protocol, samples, generator, inputs, guard=guard_keys.pack(owned)),
        copy=_lookup(marked),
        innocent=_lookup(noisy),
        n_outputs=N_CLASSES,
    )


def _claim(
    protocol: Protocol, samples: tuple[Sample, ...], generator: Generator, *, n_outputs: int, seed: int, rate: float
) -> TableClaim:
    rng = np.random.default_rng([3, seed])
    tables = []
    for follows in (True, False):
        scores = rng.random((len(samples), n_outputs)) * 0.2
        for row, sample in enumerate(samples):
            best = sample.natural if rng.random() < ACCURACY else int(rng.integers(N_CLASSES))
            if sample.rival >= 0:
                # On contested images every model answers one of the two classes.
                best = sample.rival if rng.random() < 0.5 else sample.natural
            if follows and sample.kind is SampleKind.KEY:
                if sample.code >= 0:
                    scores[row, sample.code] += 0.5
                best = sample.expected if rng.random() < rate else best
            scores[row, best] += 1.0
        if n_outputs > N_CLASSES and not follows:
            scores[:, N_CLASSES] = 0.0
        tables.append(scores / scores.sum(axis=1, keepdims=True))
    opened = _sealed(protocol, samples, generator, _inputs(samples, seed=seed))
    return TableClaim(opened=opened, copy=_lookup(tables[0]), innocent=_lookup(tables[1]), n_outputs=n_outputs)


def _lookup(table: np.ndarray) -> Predict:
    fixed = table.astype(np.float32)
    return lambda inputs: fixed[index_of(inputs)]


def _inputs(samples: tuple[Sample, ...], *, seed: int) -> Inputs:
    inputs = np.random.default_rng([4, seed]).integers(0, 256, (len(samples), *SHAPE), dtype=np.uint8)
    for sample in samples:
        inputs[sample.index, 0, 0] = [KINDS.index(sample.kind), sample.natural, *divmod(sample.index, 256)]
    return inputs


def _sample(index: int, kind: SampleKind, natural: int, expected: int, *, rival: int = -1) -> Sample:
    return Sample(index=index, kind=kind, natural=natural, expected=expected, pattern=-1, code=-1, rival=rival)


def _sealed(
    protocol: Protocol, samples: tuple[Sample, ...], generator: Generator, inputs: Inputs, *, guard: bytes = b""
) -> OpenedKeySet:
    owner = SigningKey.from_seed(SEED)
    keys = KeySet(
        keyset_id="ab" * 16, spec=TASK, samples=samples, inputs=inputs, salt_seed=b"\x05" * 32, generator=generator,
        secret_seed=SEED, guard=guard,
    )  # fmt: skip
    seal = Seal(
        keyset_id=keys.keyset_id, payload_sha256=sha256_hex(pack(keys)), merkle_root=keys.root().hex(),
        n_samples=len(samples), spec=TASK, protocol=protocol, generator=generator, model_sha256=MODEL_SHA256,
        seed_commitment=seed_commitment(SEED), owner_public_key=owner.public.hex(), serial=1, previous_seal_sha256="",
        sealed_at="2026-01-01T00:00:00.000Z", tool_version="test", commitment_sha256="cd" * 32,
        randomness_source=RandomnessSource.NONCE,
    )  # fmt: skip
    return OpenedKeySet(keys=keys, seal=seal, envelope=sign_seal(seal, owner))


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def _derangement(seed: int) -> tuple[int, ...]:
    return Secret(seed.to_bytes(32, "big")).stream("a code").derangement(N_CLASSES)


def _hex(seed: int) -> str:
    return sha256_hex(b"order %d" % seed)
