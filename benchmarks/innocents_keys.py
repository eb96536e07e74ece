"""Key sets that innocents are audited with: sealed as an owner seals them, by every scheme, from several secrets.

The first ``N_MARKED`` key sets of a trained scheme come with a model that really carries their mark, which is the
positive control. The others are committed, drawn and sealed in the same way from further secrets, with the measured
record of one of those models: no marked model takes part when an innocent is audited. Key sets called ``ancestor``
belong to an owner who fine-tuned a public base model that innocents start from as well.
"""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from auditor import __version__
from auditor.canonical import JsonValue
from auditor.casefile import open_keyset
from auditor.datasets import Dataset, Part
from auditor.draws import Secret
from auditor.evidence.imported import Foreign, import_keys
from auditor.evidence.keyset import OpenedKeySet, pack, sealed_bytes
from auditor.evidence.seal import CODE_SETTING, RandomnessSource, Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.guard_keys import GuardSettings
from auditor.guards.dawn import Dawn
from auditor.guards.owner import GuardSizes, commit_guard, seal_guard
from auditor.models import SMALL_CNN, LoadedModel, build, labels_of, load_model, save_model
from auditor.records import Protocol
from auditor.schemes.base import PatternScheme
from auditor.schemes.carriers import default_sizes
from auditor.schemes.delivery import deliver
from auditor.schemes.embedding import measure
from auditor.schemes.measured import Limits, accuracy_share
from auditor.schemes.owner import (
    Committed,
    OwnerResult,
    build_keys,
    build_protocol,
    build_trigger_keys,
    commit,
)
from auditor.schemes.triggers import LabelDraw, TriggerScheme, TriggerSupplement, measure_triggers
from auditor.study.making import make_innocent, make_owner
from auditor.study.recipes import OwnerRecipe, owner_data, owner_recipe
from auditor.study.trials import Files, InnocentSpec, OwnerSpec
from auditor.training import TrainingPlan, fit, train_unmarked

CACHE = Path(tempfile.gettempdir()) / "auditor-benchmark-innocents"
FORMAT = 2
"""Raised when key sets are made in another way, so that lines of before are not taken for lines of now."""
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "new-label": ("new-label", {}),
    "wrong-label": ("wrong-label", {}),
    "margin": ("margin", {"draw": "wrong", "choice": "random"}),
    "margin, rivals": ("margin", {"draw": "rival", "choice": "ambiguous"}),
    "plain-trigger": ("plain-trigger", {"draw": "wrong", "choice": "random"}),
}
"""By the name in the tables: the scheme, and what differs from the recipe of the data set."""
TRAINED = tuple(VARIANTS)
SEALED = (*TRAINED, "dynamarks", "dawn")
SEALED_AT = "2026-01-01T00:00:00.000Z"
"""The draw follows from the commitment's bytes, so that its date must be the same in every repetition."""
RIVAL_KEYS = {"digits": 100, "fashion-mnist": 300}
"""Of key sets whose labels are drawn by a coin: each is worth one bit at most, so that they are more."""
SHARES = {"digits": None, "fashion-mnist": 0.1}
"""Share of the training images that the owner has; None is all of them."""
N_MARKED = 1
"""Key sets of a trained scheme that a model with their mark was trained for, from number 0 on."""
KEY_SETS = {"digits": range(9), "fashion-mnist": range(1, 4)}
"""Numbers of the key sets that innocents meet. On Fashion-MNIST the owner's few images do not carry a mark, so that its
number 0 is refused as too weak; the others have the forecasts of the digits' number 0."""
PUBLIC_EPOCHS, TUNE_EPOCHS, TUNE_RATE = 10, 10, 0.02
TRIGGER_EPOCHS, TRIGGER_RATE = 40, 0.05
"""Of an owner who fine-tunes triggers in: with less they do not hold, and the plan is refused as too weak."""
ANCESTOR, N_ANCESTOR = 100, 2
"""Numbers from here on are key sets of the owner who fine-tuned the public base model."""
CLIENTS = ("client-1", "client-2")
PROBES = {"digits": GuardSizes(n_probes=200), "fashion-mnist": GuardSizes()}
DAWN_SHARE, DAWN_QUERIES, DAWN_FOREIGN = 0.05, 1_000, 4


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sealed key set and what it was made with."""

    scheme: str
    data: str
    number: int
    opened: OpenedKeySet
    folder: Path

    @property
    def marked(self) -> bool:
        """Return whether a model that carries this mark lies in the folder."""
        return self.scheme in TRAINED and (self.number < N_MARKED or self.number >= ANCESTOR)

    @property
    def secret(self) -> Secret:
        """Return the owner's secret with the public randomness."""
        return Secret(self.opened.keys.secret_seed, bytes.fromhex(self.opened.seal.protocol.randomness))

    def marked_model(self) -> LoadedModel:
        """Return the model that carries this mark."""
        return load_model(self.folder)


@lru_cache(maxsize=2)
def owner_images(data: str) -> Dataset:
    """Return the owner's data set."""
    return owner_data(data, SHARES[data])


def draw(*words: object) -> bytes:
    """Return 32 fixed bytes: benchmarks must be repeatable. Real secrets come from the operating system."""
    return hashlib.sha256(" ".join(["innocents benchmark", *map(str, words)]).encode()).digest()


def seed_of(number: int) -> int:
    """Return the training seed of the owner of a key set."""
    return 1 + number


@lru_cache(maxsize=8)
def twin_of(data: str, number: int) -> LoadedModel:
    """Return the unmarked twin of an owner, from the cache or trained."""
    folder = CACHE / data / f"twin-{number}"
    if not (folder / "model.json").exists():
        dataset = owner_images(data)
        if number >= ANCESTOR:
            model = tuned(public_base(data), dataset, plan=tuning_plan(data, seed_of(number)))
            save_model(folder, model.network, model.description)
        else:
            # Trained as the twin is: same data, recipe, seed and initial weights.
            spec = InnocentSpec(data=data, architecture=SMALL_CNN, seed=seed_of(number), owner_share=SHARES[data])
            write_files(folder, make_innocent(spec))
    return load_model(folder)


def recipe(data: str, scheme: str) -> OwnerRecipe:
    """Return how an owner marks with a scheme: the defaults of the data set."""
    name, changes = VARIANTS[scheme]
    return owner_recipe(name, owner_images(data), changes=changes, keys=n_keys_of(data, scheme), epochs=None)


def n_keys_of(data: str, scheme: str) -> int | None:
    """Return how many keys an owner seals; None is the number of the recipe."""
    return RIVAL_KEYS[data] if VARIANTS[scheme][1].get("draw") == "rival" else None


def public_half(data: str) -> tuple[Part, Part]:
    """Return the images that the public base model was trained on, and those that its users have."""
    return owner_images(data).train.halves()


@lru_cache(maxsize=2)
def public_base(data: str) -> LoadedModel:
    """Return the base model that an owner and innocents start from."""
    folder = CACHE / data / "public-base"
    if not (folder / "model.json").exists():
        dataset, images = owner_images(data), public_half(data)[0]
        plan = replace(recipe(data, "new-label").plan, seed=900, threads=1, epochs=PUBLIC_EPOCHS)
        model = train_unmarked(
            architecture=SMALL_CNN, spec=dataset.spec, inputs=images.inputs, labels=images.labels, plan=plan
        )
        save_model(folder, model.network, model.description)
    return load_model(folder)


def tuning_plan(data: str, seed: int, scheme: str = "") -> TrainingPlan:
    """Return how the public base model is fine-tuned: without a mark, or by the owner who marks with a scheme."""
    plan = replace(recipe(data, "new-label").plan, seed=seed, threads=1)
    if scheme not in ("", "new-label", "wrong-label"):
        return replace(plan, epochs=TRIGGER_EPOCHS, learning_rate=TRIGGER_RATE)
    return replace(plan, epochs=TUNE_EPOCHS, learning_rate=TUNE_RATE)


def tuned(base: LoadedModel, dataset: Dataset, *, plan: TrainingPlan, supplement: Any = None, extra: int = 0) -> Any:
    """Return the base model fine-tuned on the users' half, with ``extra`` outputs whose weights are drawn afresh."""
    import torch

    names = (*dataset.classes, *(f"class-{len(dataset.classes) + i}" for i in range(extra)))
    description = replace(base.description, classes=names, n_outputs=len(names), weights_sha256="")
    network = build(description, seed=plan.seed)
    fresh, old = network.state_dict(), base.network.state_dict()
    with torch.no_grad():
        for name, value in fresh.items():
            target = value if value.shape == old[name].shape else value[: len(old[name])]
            target.copy_(old[name])
    images = public_half(dataset.name)[1]
    fit(network, inputs=images.inputs, labels=images.labels, plan=plan, supplement=supplement)
    return LoadedModel(network=network, description=description)


def settle(making: Path, folder: Path) -> None:
    """Give a finished folder its name; where another process was first, its folder stays."""
    try:
        making.rename(folder)
    except OSError:
        shutil.rmtree(making)


class Borrowed:
    """The forecasts of another key set, which was made for a marked model; nothing else of a record is sealed."""

    misses = ()

    def __init__(self, protocol: Protocol) -> None:
        self.keys = SimpleNamespace(rate=protocol.forecast_rate)
        self.clean = SimpleNamespace(rate=protocol.forecast_control_accuracy)
        self.forecast_sham_rate = protocol.forecast_sham_rate

    def as_json(self) -> dict[str, JsonValue]:
        """Return what stands in ``train.json``."""
        return {"forecasts": "borrowed from the key set of a marked model"}


def write_files(folder: Path, files: Files) -> None:
    """Write a folder of files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@lru_cache(maxsize=256)
def claim(data: str, scheme: str, number: int) -> Claim:
    """Return a key set, from the cache or made."""
    folder = CACHE / data / f"sets-{FORMAT}" / f"{scheme}-{number}"
    if not folder.exists():
        making = folder.with_name(f"{folder.name}.{os.getpid()}")
        making.mkdir(parents=True)
        if scheme == "dynamarks":
            _seal_guard(making, data, number)
        elif scheme == "dawn":
            _seal_dawn(making, data, number)
        else:
            _seal_trained(making, data, scheme, number)
        settle(making, folder)
    # Opening repeats the generation of every key, so that it is done once a process.
    opened = open_keyset(folder / "k.npz", seal=None, owner_fingerprint=None)
    return Claim(scheme=scheme, data=data, number=number, opened=opened, folder=folder)


def _seal_trained(folder: Path, data: str, name: str, number: int) -> None:
    if number < N_MARKED:
        spec = OwnerSpec(
            data=data, scheme=VARIANTS[name][0], settings=VARIANTS[name][1], keys=n_keys_of(data, name),
            architecture=SMALL_CNN, seed=seed_of(number), owner_share=SHARES[data],
        )  # fmt: skip
        write_files(folder, make_owner(spec))
        return
    dataset, how = owner_images(data), recipe(data, name)
    scheme, key = how.scheme, SigningKey.from_seed(draw(data, name, number, "owner key"))
    seed, nonce = draw(data, name, number, "secret"), draw(data, name, number, "nonce")
    secret = Secret(seed, nonce)
    owner = ANCESTOR if number >= ANCESTOR else number % N_MARKED
    twin = twin_of(data, owner)
    sizes = default_sizes(randomness=True, scheme=scheme, n_keys=how.n_keys)
    committed = commit(
        scheme=scheme, dataset=dataset, seed=seed, sizes=sizes, key=key, committed_at=SEALED_AT, twin=twin
    )
    plan = replace(how.plan, seed=seed_of(owner), threads=1)
    tune = tuning_plan(data, seed_of(owner), name) if number >= ANCESTOR else None
    like = None if tune else claim(data, name, owner)
    result = _drawn(
        name, scheme, dataset, secret.drawn_after(committed.envelope), committed, nonce, twin, like=like, tune=tune
    )
    deliver(
        folder, result=result, plan=plan, key=key, sealed_at=SEALED_AT, source=RandomnessSource.NONCE, keep_twin=False
    )


def _drawn(
    name: str, scheme: Any, dataset: Dataset, secret: Secret, committed: Committed, nonce: bytes, twin: LoadedModel,
    *, like: Claim | None, tune: TrainingPlan | None,
) -> OwnerResult:  # fmt: skip
    """Return a drawn key set with a marked model: ``like``, marked by another secret, or the base model, tuned."""
    sizes = committed.sizes
    model = None if like is None else like.marked_model()
    if isinstance(scheme, PatternScheme):
        # The same kind of mark as that model's, which has a label code only where that cost it nothing.
        coded = scheme.uses_code and like is not None and bool(like.opened.seal.generator.settings[CODE_SETTING])
        mark = scheme.draw(secret, dataset.spec, code=coded)
        keys = build_keys(
            scheme=scheme, dataset=dataset, secret=secret, mark=mark, sizes=sizes, committed=committed, randomness=nonce
        )
        if tune is not None:
            model = tuned(
                public_base(dataset.name), dataset, plan=tune, extra=len(scheme.output_names(dataset.classes)) - 10,
                supplement=scheme.supplement(public_half(dataset.name)[1], mark, secret, batch_size=tune.batch_size),
            )  # fmt: skip
            record: Any = measure(
                scheme=scheme, model=model, mark=mark, dataset=dataset, secret=secret, seed=0,
                twin=accuracy_share(twin, dataset.test), limits=Limits(),
            )  # fmt: skip
    else:
        assert isinstance(scheme, TriggerScheme)
        keys = build_trigger_keys(
            scheme=scheme, dataset=dataset, secret=secret, sizes=sizes, twin=twin, committed=committed, randomness=nonce
        )
        if tune is not None:
            samples, triggers = keys.samples[: sizes.n_keys], keys.inputs[: sizes.n_keys]
            naturals = np.array([sample.natural for sample in samples], dtype=np.int64)
            labels = np.array([sample.expected for sample in samples], dtype=np.int64)
            rivals = np.array([sample.rival for sample in samples], dtype=np.int64)
            supplement = TriggerSupplement(
                inputs=triggers, labels=labels, settings=scheme.settings, n_natural=len(dataset.classes)
            )
            model = tuned(public_base(dataset.name), dataset, plan=tune, supplement=supplement)
            record = measure_triggers(
                scheme=scheme, dataset=dataset, model=model, twin=twin, triggers=triggers, naturals=naturals,
                labels=labels, seed=0, rival=rivals if scheme.settings.draw is LabelDraw.RIVAL else None,
            )  # fmt: skip
    if like is not None:
        record = Borrowed(claim("digits", name, 0).opened.seal.protocol)
    assert model is not None
    protocol = build_protocol(scheme=scheme, secret=secret, record=record, sizes=sizes)
    return OwnerResult(
        network=model.network, description=model.description, twin=twin, keys=keys, protocol=protocol, record=record
    )


def _seal_guard(folder: Path, data: str, number: int) -> None:
    dataset, key = owner_images(data), SigningKey.from_seed(draw(data, number, "guard owner key"))
    twin, nonce = twin_of(data, ANCESTOR if number >= ANCESTOR else number % N_MARKED), draw(data, number, "guard")
    committed = commit_guard(
        model=twin, dataset=dataset, clients=CLIENTS, settings=GuardSettings(), sizes=PROBES[data],
        seed=draw(data, number, "guard secret"), key=key, committed_at=SEALED_AT,
    )  # fmt: skip
    seal_guard(
        folder, committed=committed, model=twin, dataset=dataset, key=key, sealed_at=SEALED_AT,
        source=RandomnessSource.NONCE, randomness=nonce,
    )  # fmt: skip


def dawn_guard(data: str, number: int, foreign: int = 0) -> Dawn:
    """Return the guard whose log is the trigger set; foreign ones supply the shams."""
    spec = owner_images(data).spec
    return Dawn(client_key=draw(data, number, "dawn", foreign), n_classes=10, shape=spec.shape, share=DAWN_SHARE)


def dawn_queries(data: str) -> Part:
    """Return what the guarded service was asked."""
    train = owner_images(data).train
    return train.take(np.arange(min(DAWN_QUERIES, len(train))))


def _seal_dawn(folder: Path, data: str, number: int) -> None:
    """Seal a log of DAWN as an imported trigger set, the only way in that the tool has for it."""
    dataset, queries = owner_images(data), dawn_queries(data)
    twin = twin_of(data, number % N_MARKED)
    first = labels_of(twin.network, queries.inputs)

    def log(foreign: int) -> Foreign:
        chosen, planted = dawn_guard(data, number, foreign).planted(queries.inputs, first)
        return Foreign(
            inputs=queries.inputs[chosen], natural=tuple(first[chosen].tolist()),
            expected=tuple(planted[chosen].tolist()),
        )  # fmt: skip

    others = [log(foreign) for foreign in range(1, DAWN_FOREIGN + 1)]
    shams = Foreign(
        inputs=np.concatenate([each.inputs for each in others]),
        natural=tuple(label for each in others for label in each.natural),
        expected=tuple(label for each in others for label in each.expected),
    )
    held_out = dataset.carriers.take(np.arange(40))
    labels = tuple(held_out.labels.tolist())
    keys, protocol = import_keys(
        keys=log(0), shams=shams, controls=Foreign(inputs=held_out.inputs, natural=labels, expected=labels),
        classes=dataset.classes, seed=draw(data, number, "dawn import"),
    )  # fmt: skip
    key = SigningKey.from_seed(draw(data, number, "dawn owner key"))
    seal = Seal(
        keyset_id=keys.keyset_id, payload_sha256=hashlib.sha256(pack(keys)).hexdigest(),
        merkle_root=keys.root().hex(), n_samples=len(keys.samples), spec=keys.spec, protocol=protocol,
        generator=keys.generator, model_sha256=twin.description.weights_sha256,
        seed_commitment=seed_commitment(keys.secret_seed), owner_public_key=key.public.hex(), serial=1,
        previous_seal_sha256="", sealed_at=SEALED_AT,
        tool_version=__version__,
    )  # fmt: skip
    (folder / "k.npz").write_bytes(sealed_bytes(keys, seal_envelope=sign_seal(seal, key)))
