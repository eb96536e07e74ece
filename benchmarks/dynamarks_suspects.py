"""Every suspect of a seed, as how it is made: extraction, removal, strengths, negatives."""

from collections.abc import Callable
from typing import Any

import numpy as np
from dynamarks_tests import revealed
from dynamarks_world import CLIENTS, OTHER, OWN, Mean, World, distil, one_hot, prune

BUDGET = 15_000
FURTHER_BUDGETS = (1_000, 5_000, 50_000)
MUS = ("0.005", "0.01", "0.02", "0.05", "0.2")
DEPTH = 0.8
"""Relative change of the strength by a drawn sign, where the second channel is measured."""

SUSPECT_NAMES = (
    "soft-15000", "independent", "unguarded", "other-client", "soft-1000", "soft-5000", "mlp-15000",
    "trained-on-top-3", "trained-on-rounded", "trained-on-labels", "fine-tuned-1", "fine-tuned-5", "pruned-30",
    "pruned-50", "pruned-70", "second-distillation", "ensemble-1", "ensemble-3", "sharpened", "noisy",
    *(f"mu-{mu}" for mu in MUS), "bits-0", "bits-2", "depth-1", "depth-2", "soft-50000", "mlp-1000", "mlp-5000",
    "mlp-50000", "trained-on-labels-1000", "trained-on-labels-5000", "trained-on-labels-50000",
    "trained-on-top-3-1000", "trained-on-top-3-5000", "trained-on-top-3-50000", "trained-on-rounded-1000",
    "trained-on-rounded-5000", "trained-on-rounded-50000", *(f"soft-5000-{client}" for client in CLIENTS[2:]),
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "bits-0": {"bits": 0}, "bits-2": {"bits": 2}, "depth-1": {"depth": DEPTH}, "depth-2": {"bits": 2, "depth": DEPTH},
}  # fmt: skip
"""Settings of the guard's keys where they are not the default ones, by name of the suspect."""


def squared(answers: Any) -> Any:
    return answers**2 / (answers**2).sum(axis=1, keepdims=True)


def best_three(answers: Any) -> Any:
    kept = np.where(np.isinf(revealed(answers, "top-3")), 0.0, answers)
    return kept / kept.sum(axis=1, keepdims=True)


def rounded(answers: Any) -> Any:
    kept = np.round(answers, 1) + 1e-6
    return kept / kept.sum(axis=1, keepdims=True)


def labels_only(answers: Any) -> Any:
    return one_hot(answers.argmax(axis=1))


REDUCED = {"top-3": best_three, "rounded": rounded, "labels": labels_only}


class Thief:
    """Trains surrogates on what the guarded service of a world answers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.first = 7000 + 100 * world.seed
        self.inputs = world.thief.inputs

    def soft(self, name: str, answers: Callable[[], Any], **options: Any) -> Callable[[], Any]:
        """Train on the first 15,000 queries with the given answers."""
        architecture, x = options.get("architecture", "small-cnn"), self.inputs[:BUDGET]
        return lambda: self.world.cached(
            name, lambda: distil(self.world, x, answers()[:BUDGET], seed=self.first, **options), architecture
        )

    def marked(self) -> Any:
        """Return the surrogate of 15,000 queries that removal starts from."""
        return self.soft("soft-15000", self.world.answers)()

    def asked(self, n: int) -> tuple[Any, Any]:
        """Return n queries with client 0's answers; beyond the thief's images, copies moved by up to two pixels."""
        from auditor.guards.dynamarks import DynaMarks
        from auditor.models import predict
        from auditor.training import shift_images

        x, world = self.inputs, self.world
        if n <= len(x):
            return x[:n], world.answers()[:n]
        moved = shift_images(x[: n - len(x)], limit=2, generator=np.random.default_rng(world.seed))
        answers = DynaMarks(world.guard_keys(), client_id=OWN)(predict(world.teacher, moved), moved)
        return np.concatenate([x, moved]), np.concatenate([world.answers(), answers])

    def budget(
        self, name: str, n: int, *, change: Callable[[Any], Any] | None = None, architecture: str = "small-cnn"
    ) -> Callable[[], Any]:
        """Train on n queries for as many epochs as keep the number of steps alike."""
        steps, least, most = (120_000, 4, 80) if architecture == "mlp" else (60_000, 2 if n > 30_000 else 4, 40)

        def train() -> Any:
            inputs, answers = self.asked(n)
            taught = answers if change is None else change(answers)
            epochs = max(least, min(most, steps // n))
            return distil(self.world, inputs, taught, seed=self.first, architecture=architecture, epochs=epochs)

        return lambda: self.world.cached(name, train, architecture)

    def tuned(self, epochs: int) -> Callable[[], Any]:
        """Fine-tune the marked surrogate on true labels."""
        x, labels = self.inputs[:BUDGET], one_hot(self.world.thief.labels[:BUDGET])
        return lambda: distil(self.world, x, labels, seed=self.first, epochs=epochs, start=self.marked(), rate=0.02)

    def second(self) -> Any:
        """Distil the marked surrogate on other images."""
        from auditor.models import predict

        rest = self.inputs[BUDGET : 2 * BUDGET]
        return distil(self.world, rest, predict(self.marked(), rest), seed=self.first + 1)

    def noisy(self) -> Any:
        """Return the answers with noise added by the thief."""
        world = self.world
        answers = world.answers() + np.random.default_rng(world.seed).normal(0.0, 0.05, size=world.clean.shape)
        answers = np.clip(answers, 1e-6, None)
        return answers / answers.sum(axis=1, keepdims=True)

    def by_client(self, number: int) -> Any:
        """Train on 5,000 queries of another client."""
        answers = self.world.answers(client=CLIENTS[number])
        return distil(self.world, self.inputs[:5_000], answers[:5_000], seed=self.first + 10 + number, epochs=12)


def suspects(world: World) -> dict[str, Callable[[], Any]]:
    """Return how every suspect of a seed is made, by name."""
    thief = Thief(world)
    made: dict[str, Callable[[], Any]] = {
        "soft-15000": thief.marked,
        "independent": lambda: world.independent(0),
        "unguarded": thief.soft("unguarded", lambda: world.clean),
        "other-client": thief.soft("other-client", lambda: world.answers(client=OTHER)),
        "mlp-15000": thief.soft("mlp-15000", world.answers, architecture="mlp", epochs=8),
        "fine-tuned-1": thief.tuned(1),
        "fine-tuned-5": thief.tuned(5),
        "second-distillation": thief.second,
        "ensemble-1": lambda: Mean([thief.marked(), world.independent(0)]),
        "ensemble-3": lambda: Mean([thief.marked(), *(world.independent(i) for i in range(3))]),
        "sharpened": thief.soft("sharpened", lambda: squared(world.answers())),
        "noisy": thief.soft("noisy", thief.noisy),
    }
    for share in (30, 50, 70):
        made[f"pruned-{share}"] = lambda share=share: prune(thief.marked(), share / 100)
    for mu in MUS:
        made[f"mu-{mu}"] = thief.soft(f"mu-{mu}", lambda mu=mu: world.answers(mu=float(mu)))
    for name, settings in SETTINGS.items():
        made[name] = thief.soft(name, lambda settings=settings: world.answers(**settings))
    for name, change in REDUCED.items():
        made[f"trained-on-{name}"] = thief.soft(f"trained-on-{name}", lambda change=change: change(world.answers()))
    for n in FURTHER_BUDGETS:
        made[f"soft-{n}"] = thief.budget(f"soft-{n}", n)
        made[f"mlp-{n}"] = thief.budget(f"mlp-{n}", n, architecture="mlp")
        for name, change in REDUCED.items():
            made[f"trained-on-{name}-{n}"] = thief.budget(f"trained-on-{name}-{n}", n, change=change)
    for number, client in enumerate(CLIENTS):
        made[f"soft-5000-{client}"] = lambda number=number: thief.by_client(number)
    return made
