"""The owner's main flow: train, measure, and turn the held-out carriers into a key set with its protocol."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.datasets import Dataset, Labels
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.evidence.keyset import KeySet
from auditor.models import SMALL_CNN, LoadedModel, ModelDescription
from auditor.records import Design, Generator, Inputs, Progress, Protocol, Sample, SampleKind
from auditor.schemes.base import Mark, TrainedScheme
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
    chosen_sizes = sizes or KeySizes()
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
        keys=build_keys(scheme=scheme, dataset=dataset, secret=secret, mark=embedded.mark, sizes=chosen_sizes),
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


def build_keys(*, scheme: TrainedScheme, dataset: Dataset, secret: Secret, mark: Mark, sizes: KeySizes) -> KeySet:
    """Return keys, shams and controls on held-out carriers, all drawn from the secret.

    Every foreign pattern gets its own random carriers, as many as the owner's pattern has in its first keys. The
    owner's pattern with those keys is then exchangeable with every foreign pattern with its shams, which makes their
    rank exact, and the shams together cover many carriers.
    """
    carriers = dataset.carriers
    eligible = np.flatnonzero(scheme.eligible(carriers.labels, mark)).tolist()
    if len(eligible) < sizes.n_keys:
        raise UsageError(f"{sizes.n_keys} keys wanted, only {len(eligible)} carriers are eligible")
    key_rows = secret.stream(f"{scheme.name} key carriers").choose(eligible, sizes.n_keys)
    rest = [row for row in range(len(carriers)) if row not in set(key_rows)]
    control_rows = secret.stream(f"{scheme.name} control carriers").choose(rest, sizes.n_controls)
    sham_pool = [row for row in eligible if row not in set(control_rows)]
    sham_stream = secret.stream(f"{scheme.name} sham carriers")
    keys = carriers.take(np.array(key_rows, dtype=np.intp))
    controls = carriers.take(np.array(control_rows, dtype=np.intp))

    blocks: list[Inputs] = [scheme.key_inputs(keys.inputs, mark)]
    samples = _samples(keys.labels, kind=SampleKind.KEY, start=0, target=mark.target, pattern=-1, code=mark.code)
    for j in range(sizes.n_sham_patterns):
        pattern = scheme.foreign_pattern(secret, dataset.spec, purpose=f"sealed sham {j}")
        shams = carriers.take(np.array(sham_stream.choose(sham_pool, sizes.shams_per_pattern), dtype=np.intp))
        blocks.append(scheme.foreign_inputs(shams.inputs, pattern))
        samples += _samples(
            shams.labels, kind=SampleKind.SHAM, start=len(samples), target=mark.target, pattern=j, code=()
        )
    blocks.append(controls.inputs)
    samples += _samples(controls.labels, kind=SampleKind.CONTROL, start=len(samples), target=-1, pattern=-1, code=())
    return KeySet(
        keyset_id=secret.derive(f"{scheme.name} key set id", n_bytes=16).hex(),
        spec=dataset.spec,
        samples=tuple(samples),
        inputs=np.concatenate(blocks),
        salt_seed=secret.derive(f"{scheme.name} salts"),
        generator=Generator(
            name=scheme.name,
            version=scheme.version,
            settings={
                **scheme.settings.as_json(),
                "data": dataset.name,
                "grid": "uint8",
                "pattern": "standard normal on the 1/1024 grid",
                "label_code_used": bool(mark.code),
            },
        ),
        secret_seed=secret.seed,
    )


def build_protocol(*, scheme: TrainedScheme, secret: Secret, record: EmbedRecord, sizes: KeySizes) -> Protocol:
    """Return the audit protocol with its default levels and the forecasts measured at training."""
    h1, h2 = scheme.propositions
    return Protocol(
        scheme=scheme.name,
        scheme_version=scheme.version,
        h1=h1,
        h2=h2,
        design=Design.SEQUENTIAL,
        alpha=1e-6,
        null_share=0.5,
        null_floor=0.01,
        p_min=0.3,
        futility=0.01,
        n_keys=sizes.n_keys,
        opening_keys=sizes.opening_keys,
        n_shams=sizes.n_sham_patterns * sizes.shams_per_pattern,
        n_sham_patterns=sizes.n_sham_patterns,
        n_controls=sizes.n_controls,
        n_repeats=sizes.n_repeats,
        min_control_accuracy=0.5,
        max_disagreement=0.1,
        max_failed_share=0.1,
        obstruction_alpha=0.001,
        code_alpha=0.001,
        order_seed=secret.derive(f"{scheme.name} question order").hex(),
        randomness=secret.randomness.hex(),
        grinding_log2=0,
        forecast_rate=record.keys.rate,
        forecast_sham_rate=record.shams.rate,
        forecast_control_accuracy=record.clean.rate,
    )


def _samples(
    labels: Labels, *, kind: SampleKind, start: int, target: int, pattern: int, code: tuple[int, ...]
) -> list[Sample]:
    """Return one sealed sample per label; a target of -1 means the natural label itself."""
    return [
        Sample(
            index=start + i,
            kind=kind,
            natural=int(label),
            expected=target if target >= 0 else int(label),
            pattern=pattern,
            code=code[int(label)] if code else -1,
        )
        for i, label in enumerate(labels)
    ]
