"""The owner's main flow: train, measure, and turn the held-out carriers into a key set with its protocol."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor import __version__, patterns
from auditor.datasets import Dataset, Labels
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.evidence.commitment import (
    Carrier,
    Carriers,
    Commitment,
    Material,
    committed_plan,
    pack_material,
    sign_commitment,
)
from auditor.evidence.generation import derive_samples
from auditor.evidence.keyset import KeySet
from auditor.evidence.seal import CODE_SETTING, GRINDING_LOG2, seed_commitment
from auditor.evidence.signing import SigningKey
from auditor.evidence.standard import standard_protocol
from auditor.models import SMALL_CNN, LoadedModel, ModelDescription
from auditor.patterns import Mark
from auditor.records import Generator, Progress, Protocol, SampleKind
from auditor.schemes.base import TrainedScheme
from auditor.schemes.embedding import EmbedRecord, Limits, embed, train_twin
from auditor.training import TrainingPlan

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySizes:
    """How many samples are sealed; see :class:`auditor.records.Protocol`."""

    n_keys: int = 120
    opening_keys: int = 24
    n_sham_patterns: int = 40
    shams_per_pattern: int = 5
    n_controls: int = 60
    n_repeats: int = 20


def default_sizes(*, randomness: bool) -> KeySizes:
    """Return sizes whose plan decides: without public randomness the far smaller level needs twice the shams."""
    return KeySizes() if randomness else KeySizes(shams_per_pattern=10)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Committed:
    """What was fixed before the randomness, with the owner's secret seed; its text form shows neither."""

    seed: bytes
    sizes: KeySizes
    carriers: Carriers
    envelope: bytes
    """Bytes of ``k.commit.json``."""

    def __repr__(self) -> str:
        return "Committed(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerResult:
    """All the owner needs to publish the model and seal the claim."""

    network: "torch.nn.Module"
    description: ModelDescription
    twin: LoadedModel
    keys: KeySet
    protocol: Protocol
    record: EmbedRecord


def train_owner(
    *,
    scheme: TrainedScheme,
    dataset: Dataset,
    secret: Secret,
    plan: TrainingPlan,
    architecture: str = SMALL_CNN,
    sizes: KeySizes | None = None,
    committed: Committed | None = None,
    randomness: bytes = b"",
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> OwnerResult:
    """Train the unmarked twin and the marked model, measure both, and build the key set with its protocol.

    The result is returned even when a limit is missed; ``record.misses`` says which. The caller decides whether
    that is an error (:func:`auditor.schemes.embedding.require_targets`).

    Raises:
        UsageError: the data set has too few carriers for ``sizes``.
        TrainingError: training diverged.
    """
    if committed is not None and committed.seed != secret.seed:
        raise UsageError("the secret is not the one that was committed to")
    chosen_sizes = sizes or (
        default_sizes(randomness=bool(secret.randomness)) if committed is None else committed.sizes
    )
    check_sizes(chosen_sizes, dataset)
    twin = train_twin(dataset=dataset, plan=plan, architecture=architecture, progress=progress)
    embedded = embed(
        scheme=scheme,
        dataset=dataset,
        secret=secret,
        plan=plan,
        twin=twin,
        architecture=architecture,
        limits=limits,
        progress=progress,
    )
    return OwnerResult(
        network=embedded.model.network,
        description=embedded.model.description,
        twin=twin,
        keys=build_keys(
            scheme=scheme,
            dataset=dataset,
            secret=secret,
            mark=embedded.mark,
            sizes=chosen_sizes,
            committed=committed,
            randomness=randomness,
        ),
        protocol=build_protocol(scheme=scheme, secret=secret, record=embedded.record, sizes=chosen_sizes),
        record=embedded.record,
    )


def check_sizes(sizes: KeySizes, dataset: Dataset) -> None:
    """Refuse a key set that the held-out carriers cannot fill.

    Raises:
        UsageError: too few carriers, or sizes that contradict each other.
    """
    if min(sizes.n_keys, sizes.opening_keys, sizes.n_sham_patterns, sizes.shams_per_pattern, sizes.n_controls) < 1:
        raise UsageError("a key set needs keys, shams and controls")
    if sizes.opening_keys > sizes.n_keys or sizes.shams_per_pattern > sizes.n_keys:
        raise UsageError("opening keys and shams per pattern cannot outnumber the keys")
    if sizes.n_keys + sizes.n_controls > len(dataset.carriers):
        raise UsageError(
            f"{sizes.n_keys} keys and {sizes.n_controls} controls need as many carriers; "
            f"{dataset.name} holds out {len(dataset.carriers)}"
        )


def choose_carriers(*, scheme: TrainedScheme, dataset: Dataset, seed: bytes, sizes: KeySizes) -> Carriers:
    """Return the held-out carriers of a key set, chosen by the seed alone, before any public randomness.

    Every foreign pattern gets its own random carriers, as many as the owner's pattern has in its first keys. The
    owner's pattern with those keys is then exchangeable with every foreign pattern with its shams, which makes their
    rank exact, and the shams together cover many carriers. Where the target is a natural class that is yet to be
    drawn, every group holds enough carriers for whatever class it will be.
    """
    pool = dataset.carriers
    chooser = Secret(seed)
    order = chooser.stream(f"{scheme.name} key carriers").permutation(len(pool))
    keys = _enough(order, pool.labels, sizes.n_keys, scheme)
    rest = [row for row in range(len(pool)) if row not in set(keys)]
    if len(rest) < sizes.n_controls:
        raise UsageError(f"{sizes.n_controls} controls wanted, only {len(rest)} carriers are left beside the keys")
    controls = chooser.stream(f"{scheme.name} control carriers").choose(rest, sizes.n_controls)
    sham_pool = [row for row in range(len(pool)) if row not in set(controls)]
    stream = chooser.stream(f"{scheme.name} sham carriers")
    groups = [(SampleKind.KEY, -1, keys)]
    for j in range(sizes.n_sham_patterns):
        shuffled = stream.choose(sham_pool, len(sham_pool))
        groups.append((SampleKind.SHAM, j, _enough(shuffled, pool.labels, sizes.shams_per_pattern, scheme)))
    groups.append((SampleKind.CONTROL, -1, list(controls)))
    rows = [row for _, _, group in groups for row in group]
    return Carriers(
        items=tuple(
            Carrier(kind=kind, pattern=pattern, natural=int(pool.labels[row]))
            for kind, pattern, group in groups
            for row in group
        ),
        inputs=pool.inputs[np.array(rows, dtype=np.intp)],
    )


def _enough(order: Sequence[int], labels: Labels, wanted: int, scheme: TrainedScheme) -> list[int]:
    """Return the shortest beginning of ``order`` that leaves ``wanted`` carriers whatever the drawn target is."""
    if not scheme.target_is_natural:
        found = list(order[:wanted])
    else:
        found, seen = [], Counter[int]()
        for row in order:
            if len(found) - max(seen.values(), default=0) >= wanted:
                break
            found.append(row)
            seen[int(labels[row])] += 1
    if len(found) - (max(Counter(labels[found].tolist()).values()) if scheme.target_is_natural else 0) < wanted:
        raise UsageError(f"{wanted} carriers wanted, too few are eligible")
    return found


def commit(
    *, scheme: TrainedScheme, dataset: Dataset, seed: bytes, sizes: KeySizes, key: SigningKey, committed_at: str
) -> Committed:
    """Choose the carriers and sign the commitment; after this only randomness is missing.

    Raises:
        UsageError: the data set has too few carriers for ``sizes``.
    """
    check_sizes(sizes, dataset)
    carriers = choose_carriers(scheme=scheme, dataset=dataset, seed=seed, sizes=sizes)
    commitment = Commitment(
        carriers_root=carriers.root(patterns.carrier_salt_seed(seed, scheme=scheme.name)),
        n_carriers=len(carriers.items),
        spec=dataset.spec,
        generator=generator_of(scheme, dataset),
        plan=committed_plan(build_protocol(scheme=scheme, secret=Secret(seed), sizes=sizes)),
        seed_commitment=seed_commitment(seed),
        owner_public_key=key.public.hex(),
        committed_at=committed_at,
        tool_version=__version__,
    )
    return Committed(seed=seed, sizes=sizes, carriers=carriers, envelope=sign_commitment(commitment, key))


def build_keys(
    *,
    scheme: TrainedScheme,
    dataset: Dataset,
    secret: Secret,
    mark: Mark,
    sizes: KeySizes,
    committed: Committed | None = None,
    randomness: bytes = b"",
) -> KeySet:
    """Return keys, shams and controls on held-out carriers; without a commitment nobody can re-derive them.

    Args:
        scheme: the scheme with its settings.
        dataset: where the carriers come from.
        secret: seed and mixed randomness.
        mark: what the scheme drew from the secret.
        sizes: how many samples are sealed.
        committed: carriers and signed commitment; None chooses the same carriers without committing to them.
        randomness: the bytes that were given as randomness, before mixing.
    """
    if committed is not None:
        carriers = committed.carriers
    else:
        carriers = choose_carriers(scheme=scheme, dataset=dataset, seed=secret.seed, sizes=sizes)
    plain = generator_of(scheme, dataset)
    generator = replace(plain, settings={**plain.settings, CODE_SETTING: bool(mark.code)})
    samples, inputs = derive_samples(
        carriers, mark, secret, generator=generator, n_keys=sizes.n_keys, n_sham_patterns=sizes.n_sham_patterns,
        n_shams=sizes.n_sham_patterns * sizes.shams_per_pattern,
    )  # fmt: skip
    material = b""
    if committed is not None:
        material = pack_material(Material(carriers=carriers, commitment=committed.envelope, randomness=randomness))
    return KeySet(
        keyset_id=patterns.keyset_id(secret, scheme=scheme.name),
        spec=dataset.spec,
        samples=samples,
        inputs=inputs,
        salt_seed=patterns.salt_seed(secret, scheme=scheme.name),
        generator=generator,
        secret_seed=secret.seed,
        generation=material,
    )


def generator_of(scheme: TrainedScheme, dataset: Dataset) -> Generator:
    """Return the generator as the commitment names it, before anything is drawn."""
    settings = {
        **scheme.settings.as_json(),
        "data": dataset.name,
        "grid": "uint8",
        "pattern": "standard normal on the 1/1024 grid",
    }
    return Generator(name=scheme.name, version=scheme.version, settings=settings)


def build_protocol(
    *, scheme: TrainedScheme, secret: Secret, sizes: KeySizes, record: EmbedRecord | None = None
) -> Protocol:
    """Return the audit protocol with its default levels and the forecasts measured at training, 0 before it.

    Without public randomness the declared number of tries is charged to the level (docs/adr/0007).
    """
    return standard_protocol(
        scheme=scheme.name,
        scheme_version=scheme.version,
        propositions=scheme.propositions,
        n_keys=sizes.n_keys,
        opening_keys=sizes.opening_keys,
        n_shams=sizes.n_sham_patterns * sizes.shams_per_pattern,
        n_sham_patterns=sizes.n_sham_patterns,
        n_controls=sizes.n_controls,
        n_repeats=sizes.n_repeats,
        order_seed=patterns.order_seed(secret, scheme=scheme.name),
        randomness=secret.randomness.hex(),
        grinding_log2=0 if secret.randomness else GRINDING_LOG2,
        forecast_rate=0.0 if record is None else record.keys.rate,
        forecast_sham_rate=0.0 if record is None else record.shams.rate,
        forecast_control_accuracy=0.0 if record is None else record.clean.rate,
    )
