"""What a worker does: train an owner or an innocent, attack, audit; nothing here needs the driver's disk."""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor import __version__
from auditor.audit import Request, run_audit
from auditor.canonical import JsonValue
from auditor.casefile import utc_now
from auditor.draws import Secret
from auditor.evidence.keyset import OpenedKeySet, open_sealed
from auditor.evidence.seal import RandomnessSource
from auditor.evidence.signing import SigningKey
from auditor.evidence.times import utc_text
from auditor.records import Sample, SampleKind
from auditor.results import headline
from auditor.study.recipes import innocent_plan, owner_data, owner_recipe, thief_data
from auditor.study.trials import Files, InnocentSpec, OwnerSpec, TrialRecord, TrialSpec, read_files
from auditor.suspects.torch_file import TorchFileSuspect

if TYPE_CHECKING:
    from auditor.models import LoadedModel

KEYS = "k.npz"
COMMITTED_AT = "2026-01-01T00:00:00.000Z"


def make_owner(spec: OwnerSpec) -> Files:
    """Return the files of an owner's folder: the marked model, the key set and its seal.

    Secret and nonce are drawn from the specification, so that a dry run can be repeated; such a key set is for
    studying and never seals a claim.

    Raises:
        UsageError: unknown data set, scheme or setting.
        TrainingError: training diverged. A mark that misses its targets is no error here, it is a result.
    """
    from auditor.schemes.carriers import default_sizes
    from auditor.schemes.delivery import deliver
    from auditor.schemes.embedding import train_twin
    from auditor.schemes.owner import commit, train_owner

    dataset = owner_data(spec.data, spec.owner_share)
    recipe = owner_recipe(spec.scheme, dataset, changes=spec.settings, keys=spec.keys, epochs=spec.epochs)
    scheme, plan = recipe.scheme, replace(recipe.plan, seed=spec.seed, threads=1)
    seed, nonce = _bytes(spec, "secret"), _bytes(spec, "nonce")
    # The draw follows from the commitment's bytes, so that key and date must be the same in every repetition.
    key = SigningKey.from_seed(_bytes(spec, "owner key"))
    sizes = default_sizes(randomness=True, scheme=scheme, n_keys=recipe.n_keys)
    twin = train_twin(dataset=dataset, plan=plan, architecture=spec.architecture)
    committed = commit(
        scheme=scheme, dataset=dataset, seed=seed, sizes=sizes, key=key, committed_at=COMMITTED_AT, twin=twin
    )
    owned = train_owner(
        scheme=scheme,
        dataset=dataset,
        secret=Secret(seed, nonce),
        plan=plan,
        architecture=spec.architecture,
        committed=committed,
        randomness=nonce,
        twin=twin,
    )
    with tempfile.TemporaryDirectory() as name:
        deliver(
            Path(name), result=owned, plan=plan, key=key, sealed_at=utc_text(utc_now()), source=RandomnessSource.NONCE
        )
        return read_files(Path(name))


def make_innocent(spec: InnocentSpec) -> Files:
    """Return the files of a model folder that never saw a mark.

    Raises:
        UsageError: unknown data set or architecture.
        TrainingError: training diverged.
    """
    from auditor.models import save_model
    from auditor.training import train_unmarked

    dataset = owner_data(spec.data, spec.owner_share)
    model = train_unmarked(
        architecture=spec.architecture,
        spec=dataset.spec,
        inputs=dataset.train.inputs,
        labels=dataset.train.labels,
        plan=innocent_plan(dataset, epochs=spec.epochs, seed=spec.seed),
    )
    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name), model.network, model.description)
        return read_files(Path(name))


def audit_suspect(spec: TrialSpec, owner: Path | Files, innocent: Path | Files | None = None) -> TrialRecord:
    """Attack if the specification says so, audit as ``auditor verify`` does, and return what was found.

    Args:
        spec: the trial.
        owner: folder or files of :func:`make_owner`.
        innocent: folder or files of :func:`make_innocent`, for an innocent suspect.

    Raises:
        UsageError: an unknown attack or setting.
        TrainingError: the attack's training diverged.
    """
    from auditor.attacks import build_attack
    from auditor.models import labels_of, load_model
    from auditor.training import accuracy

    started_s = time.monotonic()
    data = thief_data(spec.owner.data, spec.owner.owner_share, source=spec.attack_data, foreign=spec.foreign)
    judged = data.evaluation
    with _folder(owner) as owned, _folder(owned if innocent is None else innocent) as other:
        victim = load_model(owned)
        opened = open_sealed(owned / KEYS)
        made = build_attack(spec.attack, spec.attack_settings).run(victim=victim, data=data) if spec.attack else None
        suspect = load_model(other) if made is None else made.model
    results = _audit(suspect, opened, alpha=spec.alpha)
    line = headline(results)
    keys = [sample for sample in opened.keys.samples if sample.kind is SampleKind.KEY]
    answers = labels_of(suspect.network, opened.keys.inputs[[sample.index for sample in keys]])
    return TrialRecord(
        key=spec.key,
        scheme=spec.owner.scheme,
        role=spec.role.value,
        seed=spec.owner.seed,
        attack=spec.attack,
        settings=spec.attack_settings,
        accuracy_before=accuracy(victim.network, inputs=judged.inputs, labels=judged.labels),
        accuracy_after=accuracy(suspect.network, inputs=judged.inputs, labels=judged.labels),
        training_queries=0 if made is None else made.queries,
        status=line.status.value,
        reason=line.reason.value,
        hits=line.hits,
        asked=line.trials,
        all_hits=int(np.sum(answers == [sample.expected for sample in keys])),
        all_bets=_bets(answers.tolist(), keys),
        n_keys=len(keys),
        null_basis=opened.seal.protocol.null_basis.value,
        null_rate=_number(results, "null", "rate"),
        alpha=_number(results, "test", "alpha_test"),
        p_min=opened.seal.protocol.p_min,
        log10_p=line.log10_p,
        keys_until_decision=line.keys_until_decision,
        total_queries=line.total_queries,
        seconds=round(time.monotonic() - started_s, 2),
        tool_version=__version__,
    )


def _bets(answers: Sequence[int], keys: Sequence[Sample]) -> int:
    pairs = list(zip(answers, keys, strict=True))
    if any(key.rival != -1 for key in keys):
        return sum(answer in (key.natural, key.rival) for answer, key in pairs)
    return sum(answer != key.natural for answer, key in pairs)


def _audit(suspect: "LoadedModel", opened: OpenedKeySet, *, alpha: float | None) -> dict[str, JsonValue]:
    from auditor import wrapped

    with tempfile.TemporaryDirectory() as name:
        wrapped.save(Path(name) / "suspect", suspect)
        with TorchFileSuspect(Path(name) / "suspect") as served:
            return run_audit(
                opened=opened,
                suspect=served,
                folder=Path(name) / "audit",
                examiner=SigningKey.generate(),
                request=Request(alpha=alpha, operator="auditor dry-run"),
                clock=utc_now,
            ).results


def _number(results: Mapping[str, JsonValue], section: str, name: str) -> float:
    part = results[section]
    value = part[name] if isinstance(part, Mapping) else None
    return float(value) if isinstance(value, str) else 0.0


@contextmanager
def _folder(source: Path | Files) -> Iterator[Path]:
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory() as name:
        for file, data in source.items():
            (Path(name) / file).write_bytes(data)
        yield Path(name)


def _bytes(spec: OwnerSpec, purpose: str) -> bytes:
    """Return 32 bytes that differ between owners and purposes, equal in every repetition."""
    return hashlib.sha256(json.dumps([purpose, asdict(spec)], sort_keys=True).encode()).digest()
