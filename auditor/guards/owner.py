"""The owner's flow for a guard: measure, commit, draw, seal; the model itself is never touched."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from auditor import __version__, patterns
from auditor.canonical import JsonValue, canonical_bytes, decimal_string, sha256_hex
from auditor.datasets import Dataset
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.evidence.commitment import (
    Carriers,
    Commitment,
    Material,
    committed_plan,
    pack_material,
    sign_commitment,
)
from auditor.evidence.encryption import Locks
from auditor.evidence.generation import mixed_randomness
from auditor.evidence.guard_generation import draw_guard, guard_digest, guard_samples
from auditor.evidence.keyset import KeySet, pack, write_sealed
from auditor.evidence.seal import GRINDING_LOG2, RandomnessSource, Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.evidence.standard import standard_protocol
from auditor.guard_keys import (
    MEASURED_SETTING,
    PROBE_DATA_SETTING,
    SCHEME,
    VERSION,
    GuardKeys,
    GuardSettings,
    ProbeData,
    median_thresholds,
    probe_cells,
    projection_key,
    reference_units,
)
from auditor.guard_keys import pack as pack_guard
from auditor.guards.dynamarks import DynaMarks
from auditor.guards.probes import choose_carriers
from auditor.models import LoadedModel, predict
from auditor.records import Design, Generator, NullBasis, Protocol, SampleKind
from auditor.stats.keyed_cells import cell_table, probability_scores

RECORD_SCHEMA = "mlaudit.guard-record/1"
KEYS_NAME = "k.npz"
SEAL_NAME = "k.seal.json"
COMMITMENT_NAME = "k.commit.json"
RECORD_NAME = "guard.record.json"
PROPOSITIONS = (
    "The suspect was trained on answers that a named client got from the owner's guarded service.",
    "The suspect was developed without answers of the owner's guarded service.",
)
SMALLEST_LEVEL = 1e-300


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSizes:
    """How many samples are sealed; controls are all asked, probes are picked from the pool by the judge's nonce."""

    n_probes: int = 500
    """Probes that a suspect is asked."""
    n_pool: int | None = None
    """Probes that they are picked from; None for twice as many, or for all pictures where there are fewer."""
    n_controls: int = 40
    n_repeats: int = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommittedGuard:
    """What was fixed before the randomness, with the owner's secret seed; its text form shows neither."""

    seed: bytes
    measured: GuardKeys
    """Without client keys, which are drawn later."""
    carriers: Carriers
    data: str
    """Name of the data set."""
    n_probes: int
    """Probes that are asked; the carriers hold the pool."""
    n_repeats: int
    envelope: bytes
    """Bytes of ``k.commit.json``."""
    probe_data: ProbeData = ProbeData.HELD_OUT

    def __repr__(self) -> str:
        return "CommittedGuard(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRecord:
    """What the guard costs, measured on test images with the first client's key."""

    accuracy_clean: float
    accuracy_guarded: float
    changed_first_class: int
    n_queries: int
    mean_l1: float
    largest_l1: float
    n_cells: int
    ranked_first: float
    """Share of cells whose target comes first in the guard's own answers to the probes; no surrogate does better."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the record as decimal strings and integers."""
        return {
            "accuracy_clean": decimal_string(self.accuracy_clean),
            "accuracy_guarded": decimal_string(self.accuracy_guarded),
            "changed_first_class": self.changed_first_class,
            "n_queries": self.n_queries,
            "mean_l1": decimal_string(self.mean_l1),
            "largest_l1": decimal_string(self.largest_l1),
            "n_cells": self.n_cells,
            "ranked_first": decimal_string(self.ranked_first),
        }


def commit_guard(
    *,
    model: LoadedModel,
    dataset: Dataset,
    clients: tuple[str, ...],
    settings: GuardSettings,
    sizes: GuardSizes,
    seed: bytes,
    key: SigningKey,
    committed_at: str,
    probe_data: ProbeData = ProbeData.HELD_OUT,
) -> CommittedGuard:
    """Measure thresholds and reference answers, and commit to them; after this only randomness is missing.

    Raises:
        UsageError: model and data do not fit, too few carriers, or two clients with one id.
    """
    description = model.description
    if description.classes != dataset.classes or description.input_shape != dataset.spec.shape:
        raise UsageError(f"the model's outputs or inputs are not those of {dataset.name}; a guard needs both to agree")
    carriers = choose_carriers(dataset, seed=seed, sizes=sizes, data=probe_data, network=model.network)
    key_of_projections = projection_key(seed)
    labels = np.argmax(predict(model.network, dataset.train.inputs), axis=1).astype(np.int64)
    probes = carriers.inputs[carriers.rows(SampleKind.KEY)]
    measured = GuardKeys(
        settings=settings,
        classes=description.classes,
        shape=description.input_shape,
        model_sha256=description.weights_sha256,
        projection_key=key_of_projections,
        thresholds=median_thresholds(
            inputs=dataset.train.inputs,
            labels=labels,
            n_classes=len(description.classes),
            key=key_of_projections,
            bits=settings.bits,
        ),
        reference=reference_units(predict(model.network, probes)),
        clients=clients,
    )
    commitment = Commitment(
        carriers_root=carriers.root(patterns.carrier_salt_seed(seed, scheme=SCHEME)),
        n_carriers=len(carriers.items),
        spec=dataset.spec,
        generator=_generator(measured, dataset.name, probe_data),
        plan=committed_plan(_protocol(measured, Secret(seed), sizes=sizes, record=None)),
        seed_commitment=seed_commitment(seed),
        owner_public_key=key.public.hex(),
        committed_at=committed_at,
        tool_version=__version__,
    )
    return CommittedGuard(
        seed=seed,
        measured=measured,
        carriers=carriers,
        data=dataset.name,
        n_probes=sizes.n_probes,
        n_repeats=sizes.n_repeats,
        envelope=sign_commitment(commitment, key),
        probe_data=probe_data,
    )


def seal_guard(
    folder: Path,
    *,
    committed: CommittedGuard,
    model: LoadedModel,
    dataset: Dataset,
    key: SigningKey,
    sealed_at: str,
    source: RandomnessSource = RandomnessSource.NONE,
    randomness: bytes = b"",
    locks: Locks | None = None,
) -> GuardRecord:
    """Draw the tables, measure what they cost, and write ``k.npz``, ``k.seal.json`` and ``guard.record.json``.

    Raises:
        UsageError: the model is not the one that was committed to, or the randomness does not fit its source.
    """
    if model.description.weights_sha256 != committed.measured.model_sha256:
        raise UsageError("the model is not the one that was committed to")
    try:
        secret = Secret(committed.seed, mixed_randomness(source, randomness)).drawn_after(committed.envelope)
    except ValueError as error:
        raise UsageError(str(error)) from error
    guard = draw_guard(committed.measured, secret)
    guard_bytes = pack_guard(guard)
    pool, controls = (len(committed.carriers.rows(kind)) for kind in (SampleKind.KEY, SampleKind.CONTROL))
    sizes = GuardSizes(
        n_probes=committed.n_probes, n_pool=pool, n_controls=controls, n_repeats=committed.n_repeats
    )  # fmt: skip
    samples, inputs = guard_samples(committed.carriers, guard.reference)
    record = measure(guard, model=model, dataset=dataset)
    plain = _generator(guard, committed.data, committed.probe_data)
    keys = KeySet(
        keyset_id=patterns.keyset_id(secret, scheme=SCHEME),
        spec=dataset.spec,
        samples=samples,
        inputs=inputs,
        salt_seed=patterns.salt_seed(secret, scheme=SCHEME),
        generator=replace(plain, settings={**plain.settings, **guard_digest(guard_bytes)}),
        secret_seed=secret.seed,
        generation=pack_material(
            Material(carriers=committed.carriers, commitment=committed.envelope, randomness=randomness)
        ),
        guard=guard_bytes,
    )
    seal = Seal(
        keyset_id=keys.keyset_id,
        payload_sha256=sha256_hex(pack(keys)),
        merkle_root=keys.root().hex(),
        n_samples=len(samples),
        spec=dataset.spec,
        protocol=_protocol(guard, secret, sizes=sizes, record=record),
        generator=keys.generator,
        model_sha256=guard.model_sha256,
        seed_commitment=seed_commitment(secret.seed),
        owner_public_key=key.public.hex(),
        serial=1,
        previous_seal_sha256="",
        sealed_at=sealed_at,
        tool_version=__version__,
        commitment_sha256=sha256_hex(committed.envelope),
        randomness_source=source,
    )
    envelope = sign_seal(seal, key)
    write_sealed(folder / KEYS_NAME, keys=keys, seal_envelope=envelope, locks=locks)
    (folder / SEAL_NAME).write_bytes(envelope)
    written: dict[str, JsonValue] = {
        "schema": RECORD_SCHEMA,
        "tool_version": __version__,
        "sealed_at": sealed_at,
        "model_sha256": guard.model_sha256,
        "seal_sha256": sha256_hex(envelope),
        "owner_fingerprint": key.fingerprint,
        "n_clients": len(guard.clients),
        "n_probes": sizes.n_probes,
        "n_pool": pool,
        "settings": guard.settings.as_json(),
        "measured": record.as_json(),
    }
    (folder / RECORD_NAME).write_bytes(canonical_bytes(written) + b"\n")
    return record


def measure(guard: GuardKeys, *, model: LoadedModel, dataset: Dataset) -> GuardRecord:
    """Return what the first client's guard costs on test images, and how well its own answers show the table."""
    table = guard.table(guard.clients[0])
    live = DynaMarks(guard, client_id=guard.clients[0])
    test = dataset.test
    clean = predict(model.network, test.inputs)
    answers = live(clean, test.inputs)
    change = np.abs(answers.astype(np.float64) - clean).sum(axis=1)
    rows = np.arange(min(len(dataset.carriers), 2000))
    probes = dataset.carriers.inputs[rows]
    reference = predict(model.network, probes).astype(np.float64)
    scores = probability_scores(suspect=live(reference, probes), reference=reference)
    cells = cell_table(
        scores=scores, cells=probe_cells(guard, probes, reference), labels=np.argmax(reference, axis=1).astype(np.int64)
    )
    chosen = cells.scores[np.arange(len(cells.cells)), cells.columns(table.targets)]
    return GuardRecord(
        accuracy_clean=float((clean.argmax(axis=1) == test.labels).mean()),
        accuracy_guarded=float((answers.argmax(axis=1) == test.labels).mean()),
        changed_first_class=int((clean.argmax(axis=1) != answers.argmax(axis=1)).sum()),
        n_queries=len(test),
        mean_l1=float(change.mean()),
        largest_l1=float(change.max()),
        n_cells=guard.n_cells,
        ranked_first=float((chosen >= cells.scores.max(axis=1)).mean()),
    )


def smallest_p(n_classes: int, n_cells: int) -> float:
    """Return the smallest p-value that a table can give: one over the number of tables."""
    return max(float((n_classes - 1.0) ** -n_cells), SMALLEST_LEVEL)


def _generator(guard: GuardKeys, data: str, probe_data: ProbeData) -> Generator:
    settings: dict[str, JsonValue] = {
        **guard.settings.as_json(),
        "data": data,
        MEASURED_SETTING: guard.measured_sha256(),
    }
    if probe_data is not ProbeData.HELD_OUT:
        settings[PROBE_DATA_SETTING] = probe_data.value
    return Generator(name=SCHEME, version=VERSION, settings=settings)


def _protocol(guard: GuardKeys, secret: Secret, *, sizes: GuardSizes, record: GuardRecord | None) -> Protocol:
    plain = standard_protocol(
        scheme=SCHEME,
        scheme_version=VERSION,
        propositions=PROPOSITIONS,
        n_keys=len(guard.reference),
        opening_keys=sizes.n_probes,
        n_shams=0,
        n_sham_patterns=0,
        n_controls=sizes.n_controls,
        n_repeats=sizes.n_repeats,
        order_seed=patterns.order_seed(secret, scheme=SCHEME),
        randomness=secret.randomness.hex(),
        grinding_log2=0 if secret.randomness else GRINDING_LOG2,
        forecast_rate=0.0 if record is None else record.ranked_first,
        forecast_sham_rate=0.0 if record is None else 1.0 / (len(guard.classes) - 1),
        forecast_control_accuracy=0.0 if record is None else record.accuracy_clean,
        null_basis=NullBasis.DRAWN_TABLE,
    )
    return replace(plain, design=Design.FIXED, null_floor=smallest_p(len(guard.classes), guard.n_cells))
