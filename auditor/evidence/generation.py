"""Re-derivation: does all key material follow from the opened seed, the commitment and the randomness?

The steps, by the names that an error quotes:

commitment · the envelope is the one the seal names, signed by the same owner, with the seal's task, generator and plan
seed · the opened seed is the one that was committed to
carriers · the carriers lead to the committed root
randomness · the bytes are those the seal names; a time-stamp token covers this very commitment
pattern and labels · expected label, label code, natural labels and counts of every sample
guard · of a served scheme: what was measured is what was committed to; projections, client keys
keys · pixels, byte for byte
sham patterns · pixels, byte for byte
controls · pixels, byte for byte
names and order · key set's name, salts, and the seed of the questions' order
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NoReturn

import numpy as np

from auditor import patterns
from auditor.canonical import canonical_bytes, sha256_hex
from auditor.draws import Secret
from auditor.errors import EvidenceError, SealError
from auditor.evidence.commitment import Carriers, Commitment, Material, committed_plan, open_commitment, unpack_material
from auditor.evidence.guard_generation import rederive_guard
from auditor.evidence.keyset import KeySet, OpenedKeySet
from auditor.evidence.seal import (
    CODE_SETTING,
    RandomnessSource,
    Seal,
    generation_problem,
    generator_object,
    seed_commitment,
)
from auditor.guard_keys import GUARD_SETTING
from auditor.records import Generator, Inputs, InputSpec, NullBasis, Sample, SampleKind

OpenKeySet = Callable[[bytes], OpenedKeySet]
"""Opens the key set that belongs to the seal whose bytes it gets."""
MIN_RANDOMNESS_BYTES = 16
MAX_RANDOMNESS_BYTES = 64
"""A beacon value or nonce is mixed in as it is; a token, which is longer, by its SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What was re-derived, for the record."""

    n_carriers: int
    source: RandomnessSource
    committed_at: str

    @property
    def summary(self) -> str:
        """One sentence for the judge, with what re-derivation cannot show."""
        told = (
            f"all samples follow from seed, {self.n_carriers} committed carriers and randomness ({self.source.value})"
        )
        match self.source:
            case RandomnessSource.NONE:
                return f"{told}; no public randomness: the declared number of tries is charged to the level"
            case RandomnessSource.TOKEN:
                return f"{told}; the token names the commitment's digest, its signature is a matter of trusted time"
            case RandomnessSource.BEACON | RandomnessSource.NONCE:
                return f"{told}; that it was unknown at {self.committed_at} is for those to say who drew it"


def mixed_randomness(source: RandomnessSource, data: bytes) -> bytes:
    """Return the bytes that enter the draw.

    Raises:
        ValueError: the bytes do not fit the source.
    """
    if source is RandomnessSource.TOKEN:
        if not data:
            raise ValueError("a time-stamp token cannot be empty")
        return hashlib.sha256(data).digest()
    if source is RandomnessSource.NONE:
        if data:
            raise ValueError("randomness without a source")
        return b""
    if not MIN_RANDOMNESS_BYTES <= len(data) <= MAX_RANDOMNESS_BYTES:
        raise ValueError(f"randomness has {MIN_RANDOMNESS_BYTES} to {MAX_RANDOMNESS_BYTES} bytes")
    return data


def token_covers(token: bytes, commitment: bytes) -> bool:
    """Return whether a time-stamp token names the commitment's digest; its signature is not looked at."""
    return any(hashlib.new(name, commitment).digest() in token for name in ("sha256", "sha384", "sha512"))


def rederive(keys: KeySet, seal: Seal) -> Derived:
    """Derive a key set anew and compare it with what was sealed, byte for byte.

    Raises:
        SealError: something differs; the message names the step.
        EvidenceError: the material cannot be read.
    """
    problem = generation_problem(seal)
    if problem:
        raise SealError(f"generation: {problem}")
    material = unpack_material(keys.generation)
    commitment = _commitment(material, seal)
    name = seal.generator.name
    if seed_commitment(keys.secret_seed) != commitment.seed_commitment:
        _fail("seed", "the opened seed is not the committed one")
    root = material.carriers.root(patterns.carrier_salt_seed(keys.secret_seed, scheme=name))
    if root != commitment.carriers_root or len(material.carriers.items) != commitment.n_carriers:
        _fail("carriers", "they do not lead to the committed root")
    secret = Secret(keys.secret_seed, _randomness(material, seal)).drawn_after(material.commitment)
    if seal.protocol.null_basis is NullBasis.DRAWN_TABLE:
        samples, inputs = rederive_guard(
            keys.guard, commitment=commitment, secret=secret, carriers=material.carriers, spec=seal.spec,
            model_sha256=seal.model_sha256,
        )  # fmt: skip
    else:
        samples, inputs = _derived(material.carriers, secret, seal)
    _compare(keys, samples, inputs)
    derived = (
        patterns.keyset_id(secret, scheme=name),
        patterns.salt_seed(secret, scheme=name),
        patterns.order_seed(secret, scheme=name),
    )
    if derived != (keys.keyset_id, keys.salt_seed, seal.protocol.order_seed):
        _fail("names and order", "the key set's name, its salts or the order of the questions were not drawn")
    return Derived(
        n_carriers=commitment.n_carriers, source=seal.randomness_source, committed_at=commitment.committed_at
    )


def _derived(carriers: Carriers, secret: Secret, seal: Seal) -> tuple[tuple[Sample, ...], Inputs]:
    generator, protocol = seal.generator, seal.protocol
    if (generator.name, generator.version) in patterns.TRIGGER_GENERATORS | patterns.RIVAL_GENERATORS:
        return derive_triggers(carriers, secret, generator=generator, spec=seal.spec, n_keys=protocol.n_keys)
    mark = patterns.GENERATORS[generator.name, generator.version](
        secret,
        shape=seal.spec.shape,
        n_natural=len(seal.spec.classes),
        code=bool(generator.settings.get(CODE_SETTING)),
    )
    return derive_samples(
        carriers, mark, secret, generator=generator, n_keys=protocol.n_keys,
        n_sham_patterns=protocol.n_sham_patterns, n_shams=protocol.n_shams,
    )  # fmt: skip


def derive_triggers(
    carriers: Carriers, secret: Secret, *, generator: Generator, spec: InputSpec, n_keys: int
) -> tuple[tuple[Sample, ...], Inputs]:
    """Return samples and pixels of a set of triggers: every committed key carrier under a drawn label.

    By the generator's version, the label is drawn over the wrong classes, or between the natural label and the
    carrier's committed rival. Every carrier that was committed as a key is one, in the committed order: one that could
    be left out after the draw would be a choice.

    Raises:
        SealError: the carriers do not fit the task, or there are more or fewer of them than keys.
    """
    n_classes = len(spec.classes)
    if carriers.inputs.shape[1:] != spec.shape or any(not 0 <= c.natural < n_classes for c in carriers.items):
        _fail("carriers", "they do not fit the task")
    rows = carriers.rows(SampleKind.KEY)
    if len(rows) != n_keys:
        _fail("carriers", f"{n_keys} keys are planned, {len(rows)} are committed")
    naturals = [carriers.items[row].natural for row in rows]
    rivals = [carriers.items[row].rival for row in rows]
    if (generator.name, generator.version) in patterns.RIVAL_GENERATORS:
        if any(not 0 <= rival < n_classes or rival == own for rival, own in zip(rivals, naturals, strict=True)):
            _fail("carriers", "a key's rival class is no other class of the task")
        labels = patterns.drawn_rival_labels(secret, scheme=generator.name, naturals=naturals, rivals=rivals)
    else:
        if any(rival != -1 for rival in rivals):
            _fail("carriers", "a rival class is committed to that this draw has no use for")
        labels = patterns.drawn_wrong_labels(secret, scheme=generator.name, naturals=naturals, n_classes=n_classes)
    columns = enumerate(zip(naturals, labels, rivals, strict=True))
    samples = [
        Sample(index=index, kind=SampleKind.KEY, natural=natural, expected=label, pattern=-1, code=-1, rival=rival)
        for index, (natural, label, rival) in columns
    ]
    samples += _controls(carriers, first=len(samples))
    return tuple(samples), np.concatenate([carriers.inputs[rows], carriers.inputs[carriers.rows(SampleKind.CONTROL)]])


def dealing_order(secret: Secret, *, scheme: str, n: int) -> tuple[int, ...]:
    """Return the order in which ``n`` committed carriers are dealt to the owner's pattern and the foreign ones.

    It follows from seed and public randomness, and where there was none from the commitment instead.
    """
    dealer = Secret(secret.seed, secret.randomness) if secret.randomness else secret
    return dealer.stream(f"{scheme} dealt carriers").permutation(n)


def _controls(carriers: Carriers, *, first: int) -> list[Sample]:
    naturals = [carriers.items[row].natural for row in carriers.rows(SampleKind.CONTROL)]
    return [
        Sample(index=first + i, kind=SampleKind.CONTROL, natural=natural, expected=natural, pattern=-1, code=-1)
        for i, natural in enumerate(naturals)
    ]


def derive_samples(
    carriers: Carriers,
    mark: patterns.Mark,
    secret: Secret,
    *,
    generator: Generator,
    n_keys: int,
    n_sham_patterns: int,
    n_shams: int,
) -> tuple[tuple[Sample, ...], Inputs]:
    """Return samples and pixels of a key set; the owner builds it with this function, the judge repeats it.

    Carriers whose natural label is the drawn target are passed over. The others are shuffled and dealt: to the owner's
    pattern first, then to one foreign pattern after the other, from the beginning again when they run out. So keys and
    shams come from one pool, and nobody can have put carriers that hit by themselves under the owner's pattern alone.

    Raises:
        SealError: the commitment holds too few carriers, or the generator states no usable amplitude.
    """
    beta = _beta(generator)
    shape = (mark.pattern.shape[0], mark.pattern.shape[1], mark.pattern.shape[2])
    if carriers.inputs.shape[1:] != shape or any(not 0 <= c.natural < mark.n_natural for c in carriers.items):
        _fail("carriers", "they do not fit the task")
    per_pattern = n_shams // n_sham_patterns if n_sham_patterns else 0
    groups = [(SampleKind.KEY, -1, n_keys)]
    groups += [(SampleKind.SHAM, j, per_pattern) for j in range(n_sham_patterns)]
    pool = carriers.rows(SampleKind.KEY, but=mark.target)
    if len(pool) < max(n_keys, per_pattern):
        _fail("carriers", f"{n_keys} keys wanted, {len(pool)} carriers are committed and eligible")
    dealt = cycle([pool[place] for place in dealing_order(secret, scheme=generator.name, n=len(pool))])
    samples: list[Sample] = []
    blocks: list[Inputs] = []
    for kind, j, wanted in groups:
        rows = list(islice(dealt, wanted))
        pattern = mark.pattern
        if kind is SampleKind.SHAM:
            purpose = patterns.sealed_sham(j)
            pattern = patterns.foreign_pattern(secret, scheme=generator.name, shape=shape, purpose=purpose)
        blocks.append(patterns.add_pattern(carriers.inputs[rows], pattern, beta=beta))
        code = mark.code if kind is SampleKind.KEY else ()
        for row in rows:
            natural = carriers.items[row].natural
            samples.append(
                Sample(
                    index=len(samples), kind=kind, natural=natural, expected=mark.target, pattern=j,
                    code=code[natural] if code else -1,
                )
            )  # fmt: skip
    blocks.append(carriers.inputs[carriers.rows(SampleKind.CONTROL)])
    samples += _controls(carriers, first=len(samples))
    return tuple(samples), np.concatenate(blocks)


def _commitment(material: Material, seal: Seal) -> Commitment:
    if sha256_hex(material.commitment) != seal.commitment_sha256:
        _fail("commitment", "it is not the one the seal names")
    try:
        commitment = open_commitment(material.commitment)
    except EvidenceError as error:
        raise SealError(f"generation: step 'commitment': {error}") from error
    drawn_later = (CODE_SETTING, GUARD_SETTING)
    settings = {name: value for name, value in seal.generator.settings.items() if name not in drawn_later}
    generator = Generator(name=seal.generator.name, version=seal.generator.version, settings=settings)
    same = (
        commitment.owner_public_key == seal.owner_public_key
        and commitment.seed_commitment == seal.seed_commitment
        and commitment.spec == seal.spec
        and canonical_bytes(generator_object(commitment.generator)) == canonical_bytes(generator_object(generator))
        and canonical_bytes(dict(commitment.plan)) == canonical_bytes(committed_plan(seal.protocol))
    )
    if not same:
        _fail("commitment", "owner, seed, task, generator or plan differ from the seal")
    if not commitment.committed_at <= seal.sealed_at:
        _fail("commitment", "it is dated after the seal")
    return commitment


def _randomness(material: Material, seal: Seal) -> bytes:
    try:
        mixed = mixed_randomness(seal.randomness_source, material.randomness)
    except ValueError as error:
        raise SealError(f"generation: step 'randomness': {error}") from error
    if mixed.hex() != seal.protocol.randomness:
        _fail("randomness", "it is not the one the seal names")
    if seal.randomness_source is RandomnessSource.TOKEN and not token_covers(material.randomness, material.commitment):
        _fail("randomness", "the token was not issued for this commitment")
    return mixed


def _compare(keys: KeySet, samples: tuple[Sample, ...], inputs: Inputs) -> None:
    if samples != keys.samples:
        _fail("pattern and labels", "the labels, the label code or the number of samples were not drawn")
    for kind, step in (
        (SampleKind.KEY, "keys"),
        (SampleKind.SHAM, "sham patterns"),
        (SampleKind.CONTROL, "controls"),
    ):
        rows = [sample.index for sample in samples if sample.kind is kind]
        if inputs[rows].tobytes() != keys.inputs[rows].tobytes():
            _fail(step, "their pixels do not follow from the carriers")


def _beta(generator: Generator) -> float:
    value = generator.settings.get("beta")
    try:
        beta = float(value) if isinstance(value, str) else -1.0
    except ValueError:
        beta = -1.0
    if not 0 < beta <= 10:
        _fail("commitment", "the generator states no usable amplitude")
    return beta


def _fail(step: str, what: str) -> NoReturn:
    raise SealError(f"generation: step '{step}': {what}")
