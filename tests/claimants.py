"""Real claimants on digits: an owner, independent models, and a thief who puts a mark of his own over the owner's."""

from dataclasses import replace
from pathlib import Path

from auditor import datasets
from auditor.draws import Secret
from auditor.evidence.seal import RandomnessSource
from auditor.evidence.signing import SigningKey
from auditor.models import LoadedModel, load_model, save_model
from auditor.schemes.delivery import deliver
from auditor.schemes.embedding import RECIPES, measure
from auditor.schemes.measured import Limits
from auditor.schemes.new_label import NewLabel
from auditor.schemes.owner import KeySizes, OwnerResult, build_keys, build_protocol, commit, train_owner
from auditor.training import fit, train_unmarked

SEALED_AT = "2026-01-01T00:00:01.000Z"
RECIPE = RECIPES["digits"]


def digits():
    return datasets.load("digits")


def owner_of(folder: Path, dataset, *, seed: bytes, nonce: bytes, training_seed: int, twin: LoadedModel) -> OwnerResult:
    """Commit, draw, train and seal as an owner does; the folder holds the model and ``k.npz``."""
    scheme, plan, key = (
        NewLabel(RECIPE.settings),
        replace(RECIPE.plan, seed=training_seed, threads=1),
        SigningKey.from_seed(seed),
    )
    committed = commit(
        scheme=scheme, dataset=dataset, seed=seed, sizes=KeySizes(), key=key, committed_at="2026-01-01T00:00:00.000Z"
    )
    made = train_owner(
        scheme=scheme,
        dataset=dataset,
        secret=Secret(seed, nonce),
        plan=plan,
        committed=committed,
        randomness=nonce,
        twin=twin,
    )
    folder.mkdir(parents=True)
    deliver(folder, result=made, plan=plan, key=key, sealed_at=SEALED_AT, source=RandomnessSource.NONCE)
    return made


def overwriter_of(folder: Path, dataset, *, victim: Path, seed: bytes, nonce: bytes, twin: LoadedModel) -> OwnerResult:
    """Steal a model, train a properly drawn mark of one's own over the one inside, and seal that as an owner does."""
    scheme, key = NewLabel(RECIPE.settings), SigningKey.from_seed(seed)
    plan = replace(RECIPE.plan, seed=77, threads=1, epochs=max(2, RECIPE.plan.epochs // 4),
                   learning_rate=RECIPE.plan.learning_rate / 4)  # fmt: skip
    committed = commit(
        scheme=scheme, dataset=dataset, seed=seed, sizes=KeySizes(), key=key, committed_at="2026-02-01T00:00:00.000Z"
    )
    secret = Secret(seed, nonce).drawn_after(committed.envelope)
    mark = scheme.draw(secret, dataset.spec, code=False)
    stolen = load_model(victim)
    fit(
        stolen.network, inputs=dataset.train.inputs, labels=dataset.train.labels, plan=plan,
        supplement=scheme.supplement(dataset.train, mark, secret, batch_size=plan.batch_size),
    )  # fmt: skip
    model = LoadedModel(network=stolen.network, description=replace(stolen.description, weights_sha256=""))
    keys = build_keys(
        scheme=scheme,
        dataset=dataset,
        secret=secret,
        mark=mark,
        sizes=KeySizes(),
        committed=committed,
        randomness=nonce,
    )
    record = measure(
        scheme=scheme, model=model, mark=mark, dataset=dataset, secret=secret, seed=plan.seed,
        twin=measure_clean(twin, dataset), limits=Limits(),
    )  # fmt: skip
    made = OwnerResult(
        network=model.network, description=model.description, twin=twin, keys=keys, record=record,
        protocol=build_protocol(scheme=scheme, secret=secret, sizes=KeySizes(), record=record),
    )  # fmt: skip
    folder.mkdir(parents=True)
    deliver(
        folder, result=made, plan=plan, key=key, sealed_at="2026-02-01T00:00:01.000Z", source=RandomnessSource.NONCE
    )
    return made


def measure_clean(model: LoadedModel, dataset):
    from auditor.models import labels_of
    from auditor.schemes.measured import Share

    hits = int((labels_of(model.network, dataset.test.inputs) == dataset.test.labels).sum())
    return Share(hits=hits, trials=len(dataset.test))


def innocent(folder: Path, dataset, *, seed: int) -> None:
    """Train a model that never saw a mark."""
    made = train_unmarked(
        architecture="small-cnn", spec=dataset.spec, inputs=dataset.train.inputs, labels=dataset.train.labels,
        plan=replace(RECIPE.plan, seed=seed, threads=1, epochs=max(2, RECIPE.plan.epochs // 2)),
    )  # fmt: skip
    save_model(folder, made.network, made.description)
