"""The innocents: models that never saw the mark they are accused of, each a folder or file that an adapter opens.

``easy`` groups have nothing to do with an owner; ``hard`` ones are as close to an owner as an innocent can be.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import innocents_keys as keysets
import numpy as np
import numpy.typing as npt

from auditor import wrapped
from auditor.attacks.base import AttackData
from auditor.attacks.distill import Distill
from auditor.attacks.extract import Extract, Taught
from auditor.attacks.imitate import SURROGATE_PLAN, Lesson, train_surrogate
from auditor.attacks.objectives import WorstCase
from auditor.canonical import sha256_hex
from auditor.datasets import Part
from auditor.guard_keys import unpack as unpack_guard
from auditor.guards.dynamarks import DynaMarks
from auditor.models import SMALL_CNN, LoadedModel, build, describe, predict
from auditor.records import Inputs, Silent
from auditor.suspects.base import Description, LocalSuspect, Suspect
from auditor.suspects.sklearn_file import SklearnSuspect
from auditor.suspects.torch_file import TorchFileSuspect
from auditor.training import TrainingPlan, fit
from auditor.transforms import InputChange, InputKind
from auditor.wrapped import Wrapping, wrap

SKLEARN_FILE = "model.skops"
PUBLISHED = keysets.CACHE / "third-party" / "digit_recognizer" / "models" / "handwriting_model.pth"
"""Weights of digit-recognizer-py 0.1.0 (MIT, on PyPI): a network that others trained, on data that we do not have."""
PUBLISHED_FRAMES = {"whole frame": (28, 0), "centred": (20, 4)}
"""Side that an image is enlarged to, and the border around it: as the package resizes, and as MNIST frames digits."""


@dataclass(frozen=True, kw_only=True)
class Innocent:
    """One innocent; everything that could change its answers is in here."""

    group: str
    data: str
    seed: int
    kind: str = "network"
    """``network``, ``sklearn``, ``published`` (by others), ``twin``, ``tuned`` (from the public base model),
    ``student``, ``marked``, ``surrogate`` or ``client`` (of a guarded service)."""
    architecture: str = SMALL_CNN
    options: tuple[tuple[str, int], ...] = ()
    epochs: int = 10
    images: int = 0
    """Training images, drawn by the seed; 0 takes all of the owner's."""
    shift: int = 0
    smoothing: float = 0.05
    wrong_labels: float = 0.0
    """Share of training labels that are replaced by uniform ones."""
    train_noise: float = 0.0
    """Standard deviation of the noise on one copy of the training images, for pixels in [0, 1]."""
    serve_noise: float = 0.0
    """The same for images on their way in: a function of the image."""
    fresh_noise: bool = False
    """Whether noise on the way in is drawn anew for every question."""
    radius: float = 0.0
    """Of adversarial training from the first step."""
    reject: str = ""
    """What an additional last class holds: ``noise`` images, or noisy images of the task."""
    with_carriers: bool = False
    """Whether the held-out images that keys are made of were trained on, under their true labels."""
    scheme: str = ""
    owner: int = 0
    """Of which owner a hard negative is; for ``marked`` and ``surrogate`` the number of the key set it carries."""
    taught: str = ""
    estimator: str = ""


def planned(data: str) -> list[Innocent]:
    """Return every innocent of a data set."""
    return [*easy(data), *hard(data)]


def easy(data: str) -> Iterator[Innocent]:
    """Yield the models that have nothing to do with an owner."""
    small = data == "digits"
    if small:
        for frame in PUBLISHED_FRAMES:
            yield Innocent(group="third party", data=data, seed=0, kind="published", taught=frame)
    images, epochs = (500, 6) if small else (1_500, 2)

    def several(group: str, seeds: int, **changes: Any) -> Iterator[Innocent]:
        for seed in range(seeds):
            settings = {"images": images, "epochs": epochs, **changes}
            yield Innocent(group=group, data=data, seed=1000 + seed, **settings)

    for width in (4, 8, 16) if small else (4, 8):
        yield from several("small CNN", 10 if small else 4, options=cnn(width))
    yield from several("small CNN, other depth of pooling", 6 if small else 2, options=cnn(8, pools=2 if small else 3))
    for hidden in (16, 64, 256) if small else (64,):
        yield from several("perceptron", 9 if small else 4, architecture="mlp", options=(("hidden", hidden),))
    networks = (("resnet18", 7), ("resnet34", 3), ("resnet50", 2)) if small else (("resnet18", 1),)
    for name, seeds in networks:
        yield from several("residual network", seeds, architecture=name, options=(("width", 4),), epochs=6)
    yield from several("augmented: shifted", 5 if small else 2, options=cnn(8), shift=1 if small else 2)
    yield from several("augmented: noise", 5 if small else 1, options=cnn(8), train_noise=0.2)
    yield from several("no label smoothing", 3, options=cnn(8), smoothing=0.0)
    for share in (0.2, 0.5, 1.0) if small else (0.2, 1.0):
        group = "random labels" if share == 1 else "partly wrong labels"
        yield from several(group, 5 if small else 1, options=cnn(8), wrong_labels=share)
    for radius in (0.1, 0.2) if small else (0.1,):
        yield from several("adversarially trained", 4 if small else 1, options=cnn(8), radius=radius)
    for name in ESTIMATORS:
        for seed in range(3 if small else 1):
            yield Innocent(
                group="scikit-learn", data=data, seed=1000 + seed, kind="sklearn", estimator=name, images=images
            )


def hard(data: str) -> Iterator[Innocent]:
    """Yield the models that come as close to an owner as an innocent can."""
    small = data == "digits"
    owners = keysets.N_MARKED
    epochs, images = (10, 0) if small else (2, 1_500)

    def several(group: str, seeds: int, **changes: Any) -> Iterator[Innocent]:
        for seed in range(seeds):
            yield Innocent(group=group, data=data, seed=2000 + seed, **{"epochs": epochs, "images": images, **changes})

    full = 30 if small else 2
    yield from several("owner's architecture, data and recipe, other seed", 6 if small else 2, epochs=full, images=0)
    for owner in range(owners):
        yield Innocent(group="owner's unmarked twin", data=data, seed=0, kind="twin", owner=owner)
    if small:
        yield Innocent(group="owner's unmarked twin", data=data, seed=0, kind="twin", owner=keysets.ANCESTOR)
        yield from several("fine-tuned from the owner's public base model", 12, kind="tuned")
    for owner in range(owners):
        for taught in ("soft", "hard", "distil"):
            yield from several(
                "student of the unmarked twin", 2 if small else 1, kind="student", owner=owner, taught=taught
            )
    if small:
        for scheme in keysets.TRAINED:
            for owner in range(owners):
                yield Innocent(
                    group="another owner's marked model", data=data, seed=0, kind="marked", scheme=scheme, owner=owner
                )
                yield Innocent(
                    group="surrogate of another owner's marked model", data=data, seed=2000, kind="surrogate",
                    scheme=scheme, owner=owner, epochs=15, taught="soft",
                )  # fmt: skip
        for number in range(3):
            yield Innocent(
                group="surrogate of another owner's guarded service", data=data, seed=2000, kind="client", owner=number,
                epochs=20, scheme="dynamarks",
            )  # fmt: skip
    yield from several(
        "trained on the key carriers too", 5 if small else 1, options=cnn(8), with_carriers=True, images=0
    )
    for noise in (0.05, 0.15, 0.3) if small else (0.1,):
        yield from several("noisy inputs, fixed", 3 if small else 1, options=cnn(8), serve_noise=noise)
    yield from several("noisy inputs, drawn anew", 4 if small else 1, options=cnn(8), serve_noise=0.2, fresh_noise=True)
    for noise in (0.1, 0.3) if small else (0.1,):
        yield from several(
            "reject class for noisy images", 4 if small else 1, options=cnn(8), reject="noisy", train_noise=noise
        )
    yield from several("reject class for pure noise", 4 if small else 1, options=cnn(8), reject="noise")


def cnn(width: int, *, pools: int | None = None) -> tuple[tuple[str, int], ...]:
    """Return the options of a small network of the given width."""
    widths = (("width1", width), ("width2", 2 * width), ("width3", 4 * width))
    return widths if pools is None else (*widths, ("pools", pools))


def make(innocent: Innocent, folder: Path) -> None:
    """Train an innocent and write what an adapter opens."""
    folder.mkdir(parents=True)
    if innocent.kind == "published":
        return
    if innocent.kind == "sklearn":
        _write_sklearn(innocent, folder)
        return
    makers = {
        "network": network, "tuned": fine_tuned, "student": student, "surrogate": surrogate, "client": client_surrogate,
        "twin": lambda i: keysets.twin_of(i.data, i.owner),
        "marked": lambda i: keysets.claim(i.data, i.scheme, i.owner).marked_model(),
    }  # fmt: skip
    model = makers[innocent.kind](innocent)
    if innocent.serve_noise and not innocent.fresh_noise:
        change = InputChange(kind=InputKind.NOISE, strength=innocent.serve_noise, seed=innocent.seed)
        model = wrap([model], Wrapping(inputs=(change,)))
    wrapped.save(folder, model)


def suspect(innocent: Innocent, folder: Path) -> Suspect:
    """Return the adapter that the tool itself would open."""
    if innocent.kind == "published":
        return Published(PUBLISHED, *PUBLISHED_FRAMES[innocent.taught])
    if innocent.kind == "sklearn":
        own = innocent.estimator in UNTRUSTED
        return OwnFile(folder / SKLEARN_FILE) if own else SklearnSuspect(folder / SKLEARN_FILE)
    opened = TorchFileSuspect(folder)
    return Restless(opened, innocent.serve_noise) if innocent.fresh_noise else opened


class OwnFile(LocalSuspect):
    """A scikit-learn model with parts that the tool's adapter does not trust; the benchmark wrote the file itself."""

    def __init__(self, path: Path) -> None:
        import skops.io

        super().__init__()
        self._model = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        self._sha256 = sha256_hex(path.read_bytes())

    def describe(self) -> Description:
        """Return the file's name and digest."""
        return Description(suspect=self._suspect_id(name=SKLEARN_FILE, sha256=self._sha256))

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        return np.asarray(self._model.predict_proba(inputs.reshape(len(inputs), -1) / 255.0))


class Restless(LocalSuspect):
    """A service that adds noise of its own to every image, drawn anew for every question."""

    def __init__(self, inner: TorchFileSuspect, noise: float) -> None:
        super().__init__()
        self._inner, self._noise = inner, noise
        self._generator = np.random.default_rng(1)

    def describe(self) -> Description:
        """Return what the model behind it is."""
        return self._inner.describe()

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        return self._inner._outputs(with_noise(inputs, self._noise, self._generator))


class Published(LocalSuspect):
    """The network of digit-recognizer-py behind a resize of the images; its weights are read without running code."""

    def __init__(self, weights: Path, side: int, border: int) -> None:
        import torch
        from torch import nn

        super().__init__()
        layers: list[nn.Module] = []
        for channels in ((1, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(*channels, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1152, 256), nn.ReLU(), nn.Linear(256, 10))
        values = torch.load(weights, weights_only=True).values()
        network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
        self._network, self._side, self._border = network.eval(), side, border
        self._sha256 = sha256_hex(weights.read_bytes())

    def describe(self) -> Description:
        """Return the weights' name and digest."""
        return Description(suspect=self._suspect_id(name="digit-recognizer-py 0.1.0", sha256=self._sha256))

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        import torch
        from torch.nn import functional

        images = torch.from_numpy(inputs.astype(np.float32)) / 255.0
        large = functional.interpolate(images, size=(self._side, self._side), mode="bilinear")
        framed = functional.pad(large, (self._border,) * 4)
        with torch.inference_mode():
            logits = self._network((framed - 0.1307) / 0.3081)
            return np.asarray(torch.softmax(logits, dim=1).numpy())


def with_noise(inputs: Inputs, noise: float, generator: np.random.Generator) -> Inputs:
    """Return the images with Gaussian noise, cut to the range of a pixel."""
    moved = inputs + 255.0 * noise * generator.standard_normal(inputs.shape)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def training_part(innocent: Innocent, generator: np.random.Generator) -> Part:
    """Return the images and labels that an innocent is trained on."""
    dataset = keysets.owner_images(innocent.data)
    part = dataset.train
    if innocent.with_carriers:
        part = joined(part, dataset.carriers)
    if innocent.images:
        part = part.take(generator.permutation(len(part))[: innocent.images])
    if innocent.wrong_labels:
        labels = part.labels.copy()
        chosen = generator.random(len(labels)) < innocent.wrong_labels
        labels[chosen] = generator.integers(0, len(dataset.classes), size=int(chosen.sum()))
        part = Part(inputs=part.inputs, labels=labels)
    if innocent.train_noise and not innocent.reject:
        noisy = with_noise(part.inputs, innocent.train_noise, generator)
        part = joined(part, Part(inputs=noisy, labels=part.labels))
    if innocent.reject:
        extra = len(part) // 4
        inputs = part.inputs[:extra]
        if innocent.reject == "noise":
            inputs = generator.integers(0, 256, size=inputs.shape).astype(np.uint8)
        else:
            inputs = with_noise(inputs, innocent.train_noise, generator)
        part = joined(part, Part(inputs=inputs, labels=np.full(extra, len(dataset.classes), dtype=np.int64)))
    return part


def joined(first: Part, second: Part) -> Part:
    """Return two parts as one."""
    return Part(
        inputs=np.concatenate([first.inputs, second.inputs]), labels=np.concatenate([first.labels, second.labels])
    )


def plan_of(innocent: Innocent) -> TrainingPlan:
    """Return how a network is trained."""
    return TrainingPlan(
        epochs=innocent.epochs, batch_size=64, learning_rate=0.05, seed=innocent.seed, threads=1, shift=innocent.shift,
        label_smoothing=innocent.smoothing,
    )  # fmt: skip


def network(innocent: Innocent) -> LoadedModel:
    """Return a network trained from drawn weights."""
    dataset, generator = keysets.owner_images(innocent.data), np.random.default_rng(innocent.seed)
    part = training_part(innocent, generator)
    names = (*dataset.classes, "rejected") if innocent.reject else dataset.classes
    options = dict(innocent.options) or None
    description = describe(innocent.architecture, input_shape=dataset.spec.shape, classes=names, options=options)
    made = build(description, seed=innocent.seed)
    objective = None
    if innocent.radius:
        objective = WorstCase(radius=innocent.radius, step=innocent.radius / 2, steps=3, clean_share=0.5)
    fit(made, inputs=part.inputs, labels=part.labels, plan=plan_of(innocent), objective=objective)
    return LoadedModel(network=made, description=description)


def fine_tuned(innocent: Innocent) -> LoadedModel:
    """Return the public base model, fine-tuned without a mark on the images that its users have."""
    dataset = keysets.owner_images(innocent.data)
    base = keysets.public_base(innocent.data)
    found: LoadedModel = keysets.tuned(base, dataset, plan=keysets.tuning_plan(innocent.data, innocent.seed))
    return found


def student(innocent: Innocent) -> LoadedModel:
    """Return a student of the unmarked twin: of its probabilities, its labels, or distilled with true labels."""
    dataset = keysets.owner_images(innocent.data)
    data = AttackData(own=dataset.train, evaluation=dataset.test)
    plan = replace(SURROGATE_PLAN, epochs=innocent.epochs, seed=innocent.seed, threads=1)
    made = (
        Distill(plan=plan) if innocent.taught == "distil" else Extract(plan=plan, taught=Taught(innocent.taught))
    ).run(victim=keysets.twin_of(innocent.data, innocent.owner), data=data)
    return made.model


def surrogate(innocent: Innocent) -> LoadedModel:
    """Return a surrogate extracted from a marked model: it carries that mark, and no other."""
    dataset = keysets.owner_images(innocent.data)
    victim = keysets.claim(innocent.data, innocent.scheme, innocent.owner).marked_model()
    plan = replace(SURROGATE_PLAN, epochs=innocent.epochs, seed=innocent.seed, threads=1)
    made = Extract(plan=plan, taught=Taught(innocent.taught)).run(
        victim=victim, data=AttackData(own=dataset.train, evaluation=dataset.test)
    )
    return made.model


def client_surrogate(innocent: Innocent) -> LoadedModel:
    """Return a surrogate of another owner's guarded service, trained on the first client's answers."""
    dataset = keysets.owner_images(innocent.data)
    return taught_by_guard(innocent.data, innocent.owner, dataset.train, epochs=innocent.epochs, seed=innocent.seed)


def taught_by_guard(data: str, number: int, part: Part, *, epochs: int, seed: int) -> LoadedModel:
    """Return a student of a service that a sealed guard protects."""
    guard = unpack_guard(keysets.claim(data, "dynamarks", number).opened.keys.guard)
    clean = predict(keysets.twin_of(data, number % keysets.N_MARKED).network, part.inputs)
    answers = DynaMarks(guard, client_id=keysets.CLIENTS[0])(clean, part.inputs)
    lesson = Lesson(inputs=part.inputs, labels=part.labels, probabilities=answers.astype(np.float64))
    plan = replace(SURROGATE_PLAN, epochs=epochs, seed=seed, threads=1)
    names = keysets.owner_images(data).classes
    return train_surrogate(lesson, architecture=SMALL_CNN, names=names, plan=plan, progress=Silent())


def taught_by_dawn(data: str, number: int, *, epochs: int, seed: int) -> LoadedModel:
    """Return a model trained on the labels that a DAWN service gave."""
    queries, twin = keysets.dawn_queries(data), keysets.twin_of(data, number % keysets.N_MARKED)
    answers = keysets.dawn_guard(data, number)(predict(twin.network, queries.inputs), queries.inputs)
    lesson = Lesson(inputs=queries.inputs, labels=answers.argmax(axis=1).astype(np.int64), probabilities=None)
    plan = replace(SURROGATE_PLAN, epochs=epochs, seed=seed, threads=1)
    names = keysets.owner_images(data).classes
    return train_surrogate(lesson, architecture=SMALL_CNN, names=names, plan=plan, progress=Silent())


def _write_sklearn(innocent: Innocent, folder: Path) -> None:
    import skops.io

    generator = np.random.default_rng(innocent.seed)
    part = training_part(innocent, generator)
    model = ESTIMATORS[innocent.estimator](innocent.seed)
    model.fit(part.inputs.reshape(len(part), -1) / 255.0, part.labels)
    skops.io.dump(model, folder / SKLEARN_FILE)


def _logistic(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200, random_state=seed)


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=40, random_state=seed)


def _extra_trees(seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(n_estimators=40, random_state=seed)


def _tree(seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(random_state=seed)


def _svm(seed: int) -> Any:
    from sklearn.svm import SVC

    return SVC(random_state=seed)


def _linear_svm(seed: int) -> Any:
    from sklearn.svm import SVC

    return SVC(kernel="linear", random_state=seed)


def _nearest(seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=1 + 2 * (seed % 3))


def _perceptron(seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=0.005, max_iter=400, random_state=seed)


def _discriminant(seed: int) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis()


def _bayes(seed: int) -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(var_smoothing=1e-2)


ESTIMATORS = {
    "logistic regression": _logistic,
    "random forest": _forest,
    "extra trees": _extra_trees,
    "decision tree": _tree,
    "support vectors": _svm,
    "linear support vectors": _linear_svm,
    "nearest neighbours": _nearest,
    "perceptron": _perceptron,
    "linear discriminant": _discriminant,
    "naive Bayes": _bayes,
}
UNTRUSTED = ("random forest", "extra trees", "decision tree", "perceptron")
"""Estimators with parts that skops does not trust, so that the tool's own adapter refuses their files."""
