"""The owner's main flow: train, measure, and turn the held-out carriers into a key set with its protocol."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor import __version__, patterns
from auditor.canonical import JsonValue
from auditor.datasets import Dataset
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.evidence.commitment import Carriers, Commitment, Material, committed_plan, pack_material, sign_commitment
from auditor.evidence.generation import derive_samples, derive_triggers
from auditor.evidence.keyset import KeySet
from auditor.evidence.seal import CODE_SETTING, GRINDING_LOG2, seed_commitment
from auditor.evidence.signing import SigningKey
from auditor.evidence.standard import standard_protocol
from auditor.models import SMALL_CNN, LoadedModel, ModelDescription
from auditor.patterns import Mark
from auditor.records import Generator, Inputs, NullBasis, Progress, Protocol, Sample
from auditor.schemes.base import PatternScheme, TrainedScheme
from auditor.schemes.carriers import KeySizes as KeySizes
from auditor.schemes.carriers import check_sizes, choose_carriers
from auditor.schemes.carriers import default_sizes as default_sizes
from auditor.schemes.embedding import embed, train_twin
from auditor.schemes.measured import Limits, TrainingRecord
from auditor.schemes.triggers import TriggerScheme, embed_triggers
from auditor.training import Checkpoints, TrainingPlan

if TYPE_CHECKING:
    import torch


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
    record: TrainingRecord


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
    twin: LoadedModel | None = None,
    checkpoints: Checkpoints | None = None,
) -> OwnerResult:
    """Train the unmarked twin and the marked model, measure both, and build the key set with its protocol.

    The result is returned even when a limit is missed; ``record.misses`` says which. The caller decides whether
    that is an error (:func:`auditor.schemes.measured.require_targets`).

    Args:
        scheme: the scheme with its settings.
        dataset: the owner's data and the held-out carriers.
        secret: seed and mixed randomness.
        plan: the recipe of both models.
        architecture: of both models.
        sizes: how many samples are sealed; None: those committed to, or the scheme's defaults.
        committed: carriers and signed commitment; None chooses the same carriers without committing to them.
        randomness: the bytes that were given as randomness, before mixing.
        limits: what the marked model must reach; None: the scheme's own limits.
        progress: where to report.
        twin: the unmarked twin where it is trained already.
        checkpoints: where the state of unfinished training is kept.

    Raises:
        UsageError: the data set has too few carriers for ``sizes``.
        TrainingError: training diverged.
    """
    if committed is not None and committed.seed != secret.seed:
        raise UsageError("the secret is not the one that was committed to")
    if committed is not None:
        secret = secret.drawn_after(committed.envelope)
    if sizes is None:
        drawn = bool(secret.randomness)
        sizes = committed.sizes if committed is not None else default_sizes(randomness=drawn, scheme=scheme)
    check_sizes(sizes, dataset, scheme=scheme)
    if twin is None:
        twin = train_twin(
            dataset=dataset, plan=plan, architecture=architecture, progress=progress, checkpoints=checkpoints
        )
    run = _Run(
        dataset=dataset, secret=secret, plan=plan, architecture=architecture, sizes=sizes, committed=committed,
        randomness=randomness, limits=limits, progress=progress, twin=twin, checkpoints=checkpoints,
    )  # fmt: skip
    if isinstance(scheme, TriggerScheme):
        model, keys, record = _with_triggers(scheme, run)
    elif isinstance(scheme, PatternScheme):
        model, keys, record = _with_pattern(scheme, run)
    else:
        raise UsageError(f"scheme {scheme.name!r} has no way to be embedded")
    return OwnerResult(
        network=model.network,
        description=model.description,
        twin=twin,
        keys=keys,
        protocol=build_protocol(scheme=scheme, secret=secret, record=record, sizes=sizes),
        record=record,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    dataset: Dataset
    secret: Secret
    plan: TrainingPlan
    architecture: str
    sizes: KeySizes
    committed: Committed | None
    randomness: bytes
    limits: Limits | None
    progress: Progress | None
    twin: LoadedModel
    checkpoints: Checkpoints | None


def _with_pattern(scheme: PatternScheme, run: _Run) -> tuple[LoadedModel, KeySet, TrainingRecord]:
    embedded = embed(
        scheme=scheme,
        dataset=run.dataset,
        secret=run.secret,
        plan=run.plan,
        twin=run.twin,
        architecture=run.architecture,
        limits=run.limits,
        progress=run.progress,
        checkpoints=run.checkpoints,
    )
    keys = build_keys(
        scheme=scheme,
        dataset=run.dataset,
        secret=run.secret,
        mark=embedded.mark,
        sizes=run.sizes,
        committed=run.committed,
        randomness=run.randomness,
    )
    return embedded.model, keys, embedded.record


def _with_triggers(scheme: TriggerScheme, run: _Run) -> tuple[LoadedModel, KeySet, TrainingRecord]:
    keys = build_trigger_keys(
        scheme=scheme,
        dataset=run.dataset,
        secret=run.secret,
        sizes=run.sizes,
        twin=run.twin,
        committed=run.committed,
        randomness=run.randomness,
    )
    drawn = keys.samples[: run.sizes.n_keys]
    embedded = embed_triggers(
        scheme=scheme,
        dataset=run.dataset,
        triggers=keys.inputs[: run.sizes.n_keys],
        naturals=np.array([sample.natural for sample in drawn], dtype=np.int64),
        labels=np.array([sample.expected for sample in drawn], dtype=np.int64),
        rival=np.array([sample.rival for sample in drawn], dtype=np.int64)
        if scheme.null_basis is NullBasis.RIVAL_LABELS
        else None,
        plan=run.plan,
        twin=run.twin,
        limits=run.limits,
        progress=run.progress,
        checkpoints=run.checkpoints,
    )
    return embedded.model, keys, embedded.record


def commit(
    *,
    scheme: TrainedScheme,
    dataset: Dataset,
    seed: bytes,
    sizes: KeySizes,
    key: SigningKey,
    committed_at: str,
    twin: LoadedModel | None = None,
) -> Committed:
    """Choose the carriers and sign the commitment; after this only randomness is missing.

    Args:
        scheme: the scheme with its settings.
        dataset: where the carriers come from.
        seed: the owner's 32-byte seed.
        sizes: how many samples are sealed.
        key: signs the commitment.
        committed_at: the owner's clock, RFC 3339 UTC with milliseconds.
        twin: the unmarked twin, where it chooses the carriers.

    Raises:
        UsageError: the data set has too few carriers for ``sizes``.
    """
    check_sizes(sizes, dataset, scheme=scheme)
    carriers = choose_carriers(scheme=scheme, dataset=dataset, seed=seed, sizes=sizes, twin=twin)
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
    scheme: PatternScheme,
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
    return _key_set(scheme, dataset, secret, generator, samples, inputs, carriers, committed, randomness)


def build_trigger_keys(
    *,
    scheme: TriggerScheme,
    dataset: Dataset,
    secret: Secret,
    sizes: KeySizes,
    twin: LoadedModel | None = None,
    committed: Committed | None = None,
    randomness: bytes = b"",
) -> KeySet:
    """Return the triggers under their drawn labels, and controls; see :func:`build_keys`.

    Args:
        scheme: the scheme with its settings.
        dataset: where the carriers come from.
        secret: seed and mixed randomness.
        sizes: how many samples are sealed.
        twin: the unmarked twin, where it chooses the carriers.
        committed: carriers and signed commitment; None chooses the same carriers without committing to them.
        randomness: the bytes that were given as randomness, before mixing.
    """
    if committed is not None:
        carriers = committed.carriers
    else:
        carriers = choose_carriers(scheme=scheme, dataset=dataset, seed=secret.seed, sizes=sizes, twin=twin)
    generator = generator_of(scheme, dataset)
    samples, inputs = derive_triggers(carriers, secret, generator=generator, spec=dataset.spec, n_keys=sizes.n_keys)
    return _key_set(scheme, dataset, secret, generator, samples, inputs, carriers, committed, randomness)


def _key_set(
    scheme: TrainedScheme,
    dataset: Dataset,
    secret: Secret,
    generator: Generator,
    samples: tuple[Sample, ...],
    inputs: Inputs,
    carriers: Carriers,
    committed: Committed | None,
    randomness: bytes,
) -> KeySet:
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
    settings: dict[str, JsonValue] = {**scheme.recorded_settings.as_json(), "data": dataset.name, "grid": "uint8"}
    if isinstance(scheme, PatternScheme):
        settings["pattern"] = "standard normal on the 1/1024 grid"
    else:
        rival = scheme.null_basis is NullBasis.RIVAL_LABELS
        settings["labels"] = "natural or rival class by a coin" if rival else "uniform over the wrong classes"
    return Generator(name=scheme.name, version=scheme.version, settings=settings)


def build_protocol(
    *, scheme: TrainedScheme, secret: Secret, sizes: KeySizes, record: TrainingRecord | None = None
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
        forecast_sham_rate=0.0 if record is None else record.forecast_sham_rate,
        forecast_control_accuracy=0.0 if record is None else record.clean.rate,
        null_basis=scheme.null_basis,
    )
