"""The guided run on localhost: an owner, three thieves, an innocent, and the same audit for each of them.

Nothing here is staged for the demonstration: the models are trained, the key set is sealed, every suspect runs in
a process of its own behind HTTP, and the audits are those of ``auditor verify``.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING

from auditor import casefile
from auditor.draws import Secret
from auditor.errors import SuspectUnavailableError
from auditor.evidence.seal import RandomnessSource
from auditor.evidence.signing import SigningKey
from auditor.evidence.times import utc_text
from auditor.records import Progress, Silent
from auditor.suspects import open_suspect

if TYPE_CHECKING:
    from auditor.datasets import Dataset
    from auditor.models import LoadedModel
    from auditor.schemes.base import TrainedScheme
    from auditor.schemes.measured import TrainingRecord
    from auditor.schemes.owner import Committed, OwnerResult
    from auditor.training import TrainingPlan

READY_WITHIN_S = 60.0
READY_PREFIX = "serving "
TRAINING_ATTEMPTS = 3


class Origin(StrEnum):
    """Where a suspect really comes from; the audit is not told."""

    COPY = "stolen copy"
    FINE_TUNED = "fine-tuned copy"
    PRUNED = "pruned copy"
    INNOCENT = "independent model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One audited suspect."""

    origin: Origin
    task_accuracy: float
    """Accuracy on the test images, in [0, 1]."""
    case: casefile.Case


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOutcome:
    """What the demonstration left behind."""

    folder: Path
    record: "TrainingRecord"
    trials: tuple[Trial, ...]


def run_demo(
    *,
    folder: Path,
    data: str,
    scheme: str = "new-label",
    seed: int = 0,
    secret: Secret | None = None,
    progress: Progress | None = None,
) -> DemoOutcome:
    """Train, seal, serve four suspects, audit each over HTTP.

    Args:
        folder: a new or empty folder for models, key set and bundles.
        data: name of a data set, see auditor.datasets.
        scheme: name of a trained scheme.
        seed: seed of all training.
        secret: the owner's seed with the judge's nonce; None draws both from the operating system.
        progress: where to report how far it is.

    Raises:
        UsageError: the folder is in use, or the data set or scheme is unknown.
        TrainingError: the mark missed its targets.
    """
    from auditor import datasets
    from auditor.schemes.base import pattern_scheme
    from auditor.schemes.delivery import COMMITMENT_NAME, deliver
    from auditor.schemes.embedding import RECIPES
    from auditor.schemes.owner import KeySizes, commit

    progress = progress or Silent()
    casefile.refuse_used_folder(folder)
    # A data set that is missing leaves no folder behind.
    dataset = datasets.load(data)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[dataset.name]
    plan = replace(recipe.plan, seed=seed, threads=1)
    owner = folder / "owner"
    owner.mkdir()
    key = SigningKey.generate()
    key.write_pem(owner / "owner.key.pem")
    chosen = pattern_scheme(scheme, recipe.settings)
    committed = commit(
        scheme=chosen,
        dataset=dataset,
        seed=os.urandom(32) if secret is None else secret.seed,
        sizes=KeySizes(),
        key=key,
        committed_at=utc_text(casefile.utc_now()),
    )
    (owner / COMMITMENT_NAME).write_bytes(committed.envelope)
    # The demonstration stands for the judge, who draws a nonce once the commitment is on the table.
    nonce = secret.randomness if secret is not None and secret.randomness else os.urandom(32)
    owned = _owner_model(chosen, dataset, committed, nonce, plan, progress)
    sealed_at = utc_text(casefile.utc_now())
    deliver(owner, result=owned, plan=plan, key=key, sealed_at=sealed_at, source=RandomnessSource.NONCE)
    accuracies = _make_suspects(folder / "suspects", owner, dataset, plan, progress)

    opened = casefile.open_keyset(owner / "k.npz", seal=owner / "k.seal.json", owner_fingerprint=key.fingerprint)
    trials = []
    with _served({origin: folder / "suspects" / _slug(origin) for origin in Origin}) as endpoints:
        for origin, endpoint in endpoints.items():
            progress.note(f"auditing {endpoint}")
            with open_suspect(endpoint=endpoint) as suspect:
                case = casefile.verify(
                    opened=opened,
                    suspect=suspect,
                    folder=folder / "audits" / _slug(origin),
                    request=casefile.request(opened, alpha=None, max_queries=None, operator="auditor demo"),
                    progress=progress,
                )
            trials.append(Trial(origin=origin, task_accuracy=accuracies[origin], case=case))
    return DemoOutcome(folder=folder, record=owned.record, trials=tuple(trials))


def _owner_model(
    scheme: "TrainedScheme",
    dataset: "Dataset",
    committed: "Committed",
    nonce: bytes,
    plan: "TrainingPlan",
    progress: Progress,
) -> "OwnerResult":
    """Train until the mark meets its targets; what changes between tries is the training seed, never the secret.

    Drawing another secret until one works would be the grinding that a seal is there to exclude.
    """
    from auditor.schemes.embedding import require_targets
    from auditor.schemes.owner import train_owner

    for attempt in range(TRAINING_ATTEMPTS):
        tried = replace(plan, seed=plan.seed + attempt)
        owned = train_owner(
            scheme=scheme,
            dataset=dataset,
            secret=Secret(committed.seed, nonce),
            plan=tried,
            committed=committed,
            randomness=nonce,
            progress=progress,
        )
        if not owned.record.misses:
            break
        progress.note(f"missed: {'; '.join(owned.record.misses)}")
    require_targets(owned.record)
    return owned


def _make_suspects(
    folder: Path, owner: Path, dataset: "Dataset", plan: "TrainingPlan", progress: Progress
) -> dict[Origin, float]:
    """Write the four suspects' model folders and return their accuracies on the test images."""
    from auditor.attacks.base import half_test
    from auditor.attacks.finetune import FineTune
    from auditor.attacks.prune import Prune
    from auditor.models import load_model, save_model
    from auditor.training import accuracy, train_unmarked

    victim = load_model(owner / "model.safetensors")
    data = half_test(dataset.test)
    tuning = replace(plan, epochs=max(2, plan.epochs // 6), learning_rate=plan.learning_rate / 10, seed=plan.seed + 1)
    made: dict[Origin, LoadedModel] = {
        Origin.COPY: victim,
        Origin.FINE_TUNED: FineTune(plan=tuning).run(victim=victim, data=data, progress=progress).model,
        Origin.PRUNED: Prune(rate=0.5).run(victim=victim, data=data, progress=progress).model,
        # The innocent shares task and data with the owner, but neither weights, seed nor order of training.
        Origin.INNOCENT: train_unmarked(
            architecture=victim.description.architecture,
            spec=dataset.spec,
            inputs=dataset.train.inputs,
            labels=dataset.train.labels,
            plan=replace(plan, seed=plan.seed + 1000),
            title="training an independent model",
            progress=progress,
        ),
    }
    for origin, model in made.items():
        save_model(folder / _slug(origin), model.network, model.description)
    judged = data.evaluation
    return {
        origin: accuracy(model.network, inputs=judged.inputs, labels=judged.labels) for origin, model in made.items()
    }


@contextlib.contextmanager
def _served(models: dict[Origin, Path]) -> Iterator[dict[Origin, str]]:
    """Serve every model in a process of its own and yield the endpoints."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for number, folder in enumerate(models.values()):
            command = [sys.executable, "-m", "auditor", "serve", str(folder), "--port", "0", "--threads", "1"]
            # A service does not say where it comes from: the audit sees a neutral name.
            command += ["--name", f"service-{number + 1}"]
            processes.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
            )
        yield {origin: _endpoint(process) for origin, process in zip(models, processes, strict=True)}
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _endpoint(process: "subprocess.Popen[str]") -> str:
    """Return the address a service prints when it is ready; reading in a thread allows a time limit."""
    lines: Queue[str] = Queue()
    stream = process.stdout
    if stream is None:
        raise SuspectUnavailableError("a demonstration service has no output")
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=READY_WITHIN_S)
    except Empty as error:
        raise SuspectUnavailableError(f"a demonstration service was not ready in {READY_WITHIN_S:.0f} s") from error
    if not line.startswith(READY_PREFIX):
        raise SuspectUnavailableError("a demonstration service did not start")
    return line.split()[-1]


def _slug(origin: Origin) -> str:
    return origin.value.replace(" ", "-")
