"""What ``train`` does for every marking scheme: commit, train, seal, write, and say what was measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.canonical import JsonValue
from auditor.cli.drawing import public_randomness, read_draft, write_draft
from auditor.cli.train_options import OwnerOptions
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.evidence.encryption import Locks
    from auditor.evidence.seal import RandomnessSource
    from auditor.evidence.signing import SigningKey
    from auditor.models import LoadedModel
    from auditor.records import Progress
    from auditor.schemes.base import TrainedScheme
    from auditor.schemes.carriers import KeySizes
    from auditor.schemes.measured import TrainingRecord
    from auditor.schemes.owner import Committed
    from auditor.training import Checkpoints, TrainingPlan

COMMITMENT_NAME = "k.commit.json"
KEY_NAME = "owner.key.pem"
PUBLIC_NAME = "owner.pub.pem"
STATE_NAME = "checkpoint"
"""Folder of an unfinished training; it holds the owner's seed and is removed when the training is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One marked training."""

    make_scheme: "Callable[[Progress], TrainedScheme]"
    """Returns the scheme; may train to find its settings."""
    sizes: "Callable[[TrainedScheme, bool], KeySizes]"
    """Returns the sizes of the key set, given whether there is public randomness."""
    dataset: "Dataset"
    plan: "TrainingPlan"
    arch: str
    arch_options: Mapping[str, int]
    options: OwnerOptions
    twin_first: bool = False
    """Whether the unmarked twin chooses carriers, so that it precedes the commitment."""
    division: Mapping[str, JsonValue] = field(default_factory=dict)
    """How the training images were divided between owner and attacker, for the record; empty where they were not."""


def train_and_seal(job: Job) -> None:
    """Run a marked training to its end; raises a TrainingError after everything was written if a target was missed."""
    import shutil

    from auditor import casefile
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.evidence.token_files import add_beside
    from auditor.schemes.delivery import SEAL_NAME, new_folder
    from auditor.schemes.measured import require_targets
    from auditor.time_authority import TimeAuthorities

    options = job.options
    key = None if options.owner_key is None else read_key(options.owner_key)
    authorities = TimeAuthorities(options.tsa)
    locks = casefile.locks(options.recipients)
    source, drawn = public_randomness(
        beacon=options.beacon, judge_nonce=options.judge_nonce, token=options.randomness_file
    )
    if options.commitment is not None and key is None:
        key = read_key(options.commitment / KEY_NAME)
    later = options.commitment is not None
    if (options.commit_only and (drawn or later)) or (later and not drawn):
        raise UsageError("--commit-only takes no randomness yet, and --commitment goes on with public randomness")
    folder = _resumed(options) if options.resume else new_folder(options.out)
    # A training that was killed while the twin was trained has no key yet.
    if options.resume and key is None and (folder / KEY_NAME).exists():
        key = read_key(folder / KEY_NAME)
    with console.progress() as progress:
        scheme = job.make_scheme(progress)
        twin = _twin(job, folder, progress) if job.twin_first and not later else None
        committed, signing_key = _commit(job, folder, scheme=scheme, key=key, twin=twin, drawn=bool(drawn))
        if options.commit_only:
            write_draft(folder, committed)
            console.say(f"committed: {folder / COMMITMENT_NAME}")
            return
        twin = twin or _twin(job, folder, progress)
        record = _train_marked(job, folder, scheme, committed, source, drawn, twin, signing_key, locks, progress)
    shutil.rmtree(folder / STATE_NAME, ignore_errors=True)
    add_beside(folder / SEAL_NAME, authorities.stamp((folder / SEAL_NAME).read_bytes()))
    _show(folder, record, as_json=options.as_json)
    require_targets(record)


def _resumed(options: OwnerOptions) -> Path:
    from auditor.schemes.delivery import SEAL_NAME

    if not (options.out / STATE_NAME).is_dir() or (options.out / SEAL_NAME).exists():
        raise UsageError(f"{options.out}: no unfinished training with --checkpoint-every in it")
    return options.out


def _checkpoints(job: Job, folder: Path, identity: str) -> "Checkpoints | None":
    from auditor.training import Checkpoints

    if job.options.checkpoint_every is None:
        return None
    return Checkpoints(folder=folder / STATE_NAME, every_steps=job.options.checkpoint_every, identity=identity)


def _twin(job: Job, folder: Path, progress: "Progress") -> "LoadedModel":
    from auditor.schemes.embedding import train_twin

    identity = f"{job.arch} {sorted(job.arch_options.items())}"
    return train_twin(
        dataset=job.dataset,
        plan=job.plan,
        architecture=job.arch,
        options=job.arch_options,
        progress=progress,
        checkpoints=_checkpoints(job, folder, identity),
    )


def _commit(
    job: Job,
    folder: Path,
    *,
    scheme: "TrainedScheme",
    key: "SigningKey | None",
    twin: "LoadedModel | None",
    drawn: bool,
) -> "tuple[Committed, SigningKey]":
    """Write ``k.commit.json`` and the owner's keys; nothing has been drawn yet."""
    import os
    from datetime import UTC, datetime

    from auditor.evidence.signing import SigningKey
    from auditor.evidence.times import utc_text
    from auditor.schemes.owner import commit

    signing_key = key or SigningKey.generate()
    state = folder / STATE_NAME
    draft = state if (state / "k.draft.npz").exists() else job.options.commitment
    if draft is not None:
        committed = read_draft(draft, scheme=scheme, dataset=job.dataset, key=signing_key)
    else:
        committed = commit(
            scheme=scheme,
            dataset=job.dataset,
            seed=os.urandom(32),
            sizes=job.sizes(scheme, job.options.commit_only or drawn),
            key=signing_key,
            committed_at=utc_text(datetime.now(UTC)),
            twin=twin,
        )
    if key is None:
        signing_key.write_pem(folder / KEY_NAME)
    (folder / PUBLIC_NAME).write_bytes(signing_key.public_pem())
    (folder / COMMITMENT_NAME).write_bytes(committed.envelope)
    if job.options.checkpoint_every is not None and draft != state and not job.options.commit_only:
        # A training that is resumed must draw what the killed one drew.
        state.mkdir(exist_ok=True)
        write_draft(state, committed)
    return committed, signing_key


def _train_marked(
    job: Job,
    folder: Path,
    scheme: "TrainedScheme",
    committed: "Committed",
    source: "RandomnessSource",
    randomness: bytes,
    twin: "LoadedModel",
    key: "SigningKey",
    locks: "Locks | None",
    progress: "Progress",
) -> "TrainingRecord":
    from datetime import UTC, datetime

    from auditor.draws import Secret
    from auditor.evidence.generation import mixed_randomness, token_covers
    from auditor.evidence.seal import RandomnessSource
    from auditor.evidence.times import utc_text
    from auditor.schemes.delivery import deliver
    from auditor.schemes.owner import train_owner

    if source is RandomnessSource.TOKEN and not token_covers(randomness, committed.envelope):
        raise UsageError(f"the time-stamp token was not issued for {COMMITMENT_NAME}")
    secret = Secret(committed.seed, mixed_randomness(source, randomness))
    result = train_owner(
        scheme=scheme,
        dataset=job.dataset,
        secret=secret,
        plan=job.plan,
        architecture=job.arch,
        committed=committed,
        randomness=randomness,
        progress=progress,
        twin=twin,
        checkpoints=_checkpoints(job, folder, secret.derive("checkpoint").hex()),
    )
    deliver(
        folder,
        result=result,
        plan=job.plan,
        key=key,
        sealed_at=utc_text(datetime.now(UTC)),
        keep_twin=job.options.twin,
        source=source,
        locks=locks,
        division=job.division,
    )
    return result.record


def _show(folder: Path, record: "TrainingRecord", *, as_json: bool) -> None:
    from auditor.canonical import parse_object
    from auditor.cli import console
    from auditor.schemes.delivery import RECORD_NAME

    if as_json:
        console.print_json(parse_object((folder / RECORD_NAME).read_bytes(), what=RECORD_NAME))
        return
    cells = []
    for title, share in record.shares():
        interval = share.interval()
        cells.append((title, f"{share.rate:.4f}", f"{interval.low:.4f}-{interval.high:.4f}", str(share.trials)))
    console.table(f"{record.scheme} on {record.data}", ("figure", "rate", "95 % interval", "trials"), cells)
    console.say(record.remark())
    console.say(f"written: {folder}")
