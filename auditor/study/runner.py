"""From a configuration to records on disk: what is there already is never computed again."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditor.errors import MalformedError, TrainingError, UsageError
from auditor.records import Progress, Silent
from auditor.study.config import StudyConfig
from auditor.study.making import audit_suspect, make_innocent, make_owner
from auditor.study.recipes import require_possible
from auditor.study.trials import Files, InnocentSpec, OwnerSpec, Role, TrialRecord, TrialSpec, read_record
from auditor.study.workers import Task, Workers

logger = logging.getLogger(__name__)

MODELS = "models"
TRIALS = "trials"
COMPLETE = "complete"
"""Empty file that is written last into a model's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A planned trial with its record, or with the reason why there is none."""

    spec: TrialSpec
    record: TrialRecord | None
    error: str = ""


def plan_trials(config: StudyConfig) -> tuple[TrialSpec, ...]:
    """Return every trial: each scheme and seed with its copy, all attacks and all innocents."""
    shared = config.study
    innocents = [
        InnocentSpec(
            data=shared.data, architecture=architecture, seed=seed, epochs=shared.epochs, owner_share=shared.owner_share
        )
        for architecture in config.innocents.architectures
        for seed in config.innocents.seeds
    ]
    trials: list[TrialSpec] = []
    for scheme in config.scheme:
        for seed in shared.seeds:
            owner = OwnerSpec(
                data=shared.data,
                scheme=scheme.name,
                settings=dict(scheme.settings),
                architecture=shared.architecture,
                seed=seed,
                epochs=scheme.epochs or shared.epochs,
                keys=scheme.keys,
                owner_share=shared.owner_share,
            )
            trials.append(
                TrialSpec(
                    owner=owner, scheme_title=scheme.title, role=Role.COPY, suspect_title="copy", alpha=shared.alpha
                )
            )
            trials += [
                TrialSpec(
                    owner=owner,
                    scheme_title=scheme.title,
                    role=Role.SURROGATE,
                    suspect_title=attack.title,
                    attack=attack.name,
                    attack_settings=dict(attack.settings),
                    attack_data=attack.data,
                    foreign=attack.foreign,
                    strength=attack.strength,
                    alpha=shared.alpha,
                )
                for attack in config.attack
            ]
            trials += [
                TrialSpec(
                    owner=owner,
                    scheme_title=scheme.title,
                    role=Role.INNOCENT,
                    suspect_title="innocent",
                    innocent=innocent,
                    alpha=shared.alpha,
                )
                for innocent in innocents
            ]
    return tuple(trials)


def run_study(
    config: StudyConfig, *, folder: Path, workers: Workers, progress: Progress | None = None
) -> tuple[Trial, ...]:
    """Run what is not recorded yet and return all trials in planned order.

    Args:
        config: the dry run.
        folder: where models and records are kept between runs.
        workers: where trials run.
        progress: where to report; one unit per model and per trial.

    Raises:
        UsageError: the configuration names what there is not, or the folder is in use for something else.
        MalformedError: a record in it is damaged.
        TrainingError: no trial at all came to an end.
    """
    progress = progress or Silent()
    require_possible(config)
    planned = plan_trials(config)
    _prepare(folder)
    open_trials = [spec for spec in planned if not _record_path(folder, spec).exists()]
    errors = _make_models(folder, open_trials, workers=workers, progress=progress)
    errors |= _run_trials(folder, open_trials, known=errors, workers=workers, progress=progress)
    trials = tuple(_trial(folder, spec, errors) for spec in planned)
    if all(trial.record is None for trial in trials):
        raise TrainingError(f"no trial came to an end; the first failed with: {trials[0].error}")
    return trials


def _make_models(folder: Path, trials: Sequence[TrialSpec], *, workers: Workers, progress: Progress) -> dict[str, str]:
    """Train the owners and innocents that open trials need; return the errors by model."""
    tasks: dict[str, Task] = {}
    for spec in trials:
        tasks.setdefault(spec.owner.key, Task(key=spec.owner.key, function=make_owner, arguments=(spec.owner,)))
        if spec.innocent is not None:
            key = spec.innocent.key
            tasks.setdefault(key, Task(key=key, function=make_innocent, arguments=(spec.innocent,)))
    missing = [task for key, task in tasks.items() if not (folder / MODELS / key / COMPLETE).exists()]
    errors: dict[str, str] = {}
    progress.begin("training owners and innocents", max(len(missing), 1))
    for done in workers.run(missing):
        if done.error:
            logger.warning("%s: %s", done.key, done.error)
            errors[done.key] = done.error
        elif isinstance(done.value, Mapping):
            _write_files(folder / MODELS / done.key, done.value)
        progress.advance()
    progress.end()
    return errors


def _run_trials(
    folder: Path, trials: Sequence[TrialSpec], *, known: Mapping[str, str], workers: Workers, progress: Progress
) -> dict[str, str]:
    """Audit the suspects whose models are there; return the errors by trial."""
    errors: dict[str, str] = {}
    tasks: list[Task] = []
    shared: dict[str, object] = {}
    for spec in trials:
        models = [spec.owner.key] + ([] if spec.innocent is None else [spec.innocent.key])
        lost = next((known[key] for key in models if key in known), "")
        if lost:
            errors[spec.key] = lost
            continue
        shared.update({key: workers.share(folder / MODELS / key) for key in models if key not in shared})
        arguments = (spec, *(shared[key] for key in models))
        tasks.append(Task(key=spec.key, function=audit_suspect, arguments=arguments))
    progress.begin("attacking and auditing", max(len(tasks), 1))
    paths = {spec.key: _record_path(folder, spec) for spec in trials}
    for done in workers.run(tasks):
        if done.error:
            logger.warning("%s: %s", done.key, done.error)
            errors[done.key] = done.error
        elif isinstance(done.value, TrialRecord):
            _write_whole(paths[done.key], done.value.as_bytes())
        progress.advance()
    progress.end()
    return errors


def _trial(folder: Path, spec: TrialSpec, errors: Mapping[str, str]) -> Trial:
    path = _record_path(folder, spec)
    if not path.exists():
        return Trial(spec=spec, record=None, error=errors.get(spec.key, "was not run"))
    record = read_record(path)
    if record.key != spec.key:
        raise MalformedError(f"{path.name}: the record of another trial")
    return Trial(spec=spec, record=record)


def _prepare(folder: Path) -> None:
    strangers = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if strangers and not {MODELS, TRIALS} & set(strangers):
        raise UsageError(f"{folder}: holds something else than a dry run")
    try:
        for name in (MODELS, TRIALS):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written to ({type(error).__name__})") from error


def _record_path(folder: Path, spec: TrialSpec) -> Path:
    return folder / TRIALS / f"{spec.key}.json"


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def _write_files(folder: Path, files: Files) -> None:
    # Study key sets are secrets like any other: whoever reads them can avoid the keys.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / COMPLETE).touch()
