"""Thieves who know how a guard works, but not its secret: how each of their surrogates is made."""

from collections.abc import Callable
from typing import Any

import numpy as np
from dynamarks_suspects import BUDGET, SETTINGS, Thief
from dynamarks_world import BATCH, CLIENTS, EPOCHS, OWN, RATE, Vote, World, distil, one_hot, worst_images

COLLUDING = (2, 3, 10)
COPIES = 4
LARGEST_SHARE = 0.2
"""Twice the strength: no answer moves more to its target."""
NOISE = 0.3
RADIUS = 0.1
"""Largest change of a pixel in adversarial training, for pixels in [0, 1]."""

THIEVES: dict[str, str] = {
    **{f"thief-colluding-{n}": f"{n} clients ask the same images and average their answers" for n in COLLUDING},
    "thief-shifted": f"asks {COPIES} copies of each image, moved by up to two pixels, and averages the answers",
    "thief-confident": "keeps the half of the answers whose first score is highest, for twice the epochs",
    "thief-smoothed-labels": "keeps the first label and smooths it (0.9)",
    "thief-smoothed-answers": "mixes each answer with as much of the uniform one",
    "thief-temperature": "flattens each answer (square root)",
    "thief-ranks": "keeps the order of the classes only (weights 1/rank)",
    "thief-first-score": "keeps the first score, spreads the rest evenly",
    "thief-first-score-depth-2": "the same against a guard with the second channel, two secret bits",
    "thief-clipped": f"drops every score but the first below {LARGEST_SHARE}, twice the strength",
    "thief-majority": "lets three surrogates vote, of three clients",
    "thief-outvoted": "lets its surrogate vote with two independent models",
    "thief-relabelled": "trains on with two noisy copies of each image, true labels",
    "thief-relabelled-own": "trains on with two noisy copies, labels of the surrogate",
    "thief-adversarial": "trains on images made worst within a radius of 0.1, half of each batch",
}
"""What each of them does."""
THIEF_SETTINGS: dict[str, dict[str, Any]] = {"thief-first-score-depth-2": SETTINGS["depth-2"]}
"""Settings of the guard's keys where they are not the default ones."""
COLLUDERS = {**{f"thief-colluding-{n}": CLIENTS[:n] for n in COLLUDING}, "thief-majority": CLIENTS[:3]}
"""Clients of whom any is a right name; of all others only the first client is."""


def thieves(world: World) -> dict[str, Callable[[], Any]]:
    """Return how every thief's suspect of a seed is made, by name."""
    thief = Thief(world)

    def trained(name: str, answers: Callable[[], Any]) -> Callable[[], Any]:
        return thief.soft(name, answers)

    made: dict[str, Callable[[], Any]] = {
        "thief-shifted": trained("thief-shifted", lambda: _shifted(thief)),
        "thief-confident": lambda: world.cached("thief-confident", lambda: _confident(thief)),
        "thief-smoothed-labels": trained(
            "thief-smoothed-labels", lambda: 0.9 * one_hot(world.answers().argmax(axis=1)) + 0.01
        ),
        "thief-smoothed-answers": trained("thief-smoothed-answers", lambda: 0.5 * world.answers() + 0.05),
        "thief-temperature": trained("thief-temperature", lambda: _normal(np.sqrt(world.answers()))),
        "thief-ranks": trained("thief-ranks", lambda: _ranks(world.answers())),
        "thief-first-score": trained("thief-first-score", lambda: _first_score(world.answers())),
        "thief-first-score-depth-2": trained("thief-first-score-depth-2", lambda: _first_score(_with_signs(world))),
        "thief-clipped": trained("thief-clipped", lambda: _clipped(world.answers())),
        "thief-majority": lambda: Vote([_of_client(thief, number) for number in range(3)]),
        "thief-outvoted": lambda: Vote([thief.marked(), *(world.independent(i) for i in range(2))]),
        "thief-relabelled": lambda: world.cached("thief-relabelled", lambda: _relabelled(thief, own=False)),
        "thief-relabelled-own": lambda: world.cached("thief-relabelled-own", lambda: _relabelled(thief, own=True)),
        "thief-adversarial": lambda: world.cached("thief-adversarial", lambda: _adversarial(thief)),
    }
    for n in COLLUDING:
        made[f"thief-colluding-{n}"] = trained(
            f"thief-colluding-{n}",
            lambda n=n: np.mean([world.answers(client=client) for client in CLIENTS[:n]], axis=0),
        )
    return made


def _with_signs(world: World) -> Any:
    return world.answers(**THIEF_SETTINGS["thief-first-score-depth-2"])


def _normal(answers: Any) -> Any:
    return answers / answers.sum(axis=1, keepdims=True)


def _ranks(answers: Any) -> Any:
    places = np.argsort(np.argsort(-answers, axis=1, kind="stable"), axis=1) + 1
    return _normal(1.0 / places)


def _first_score(answers: Any) -> Any:
    first, n = answers.max(axis=1, keepdims=True), answers.shape[1]
    return np.where(one_hot(answers.argmax(axis=1)) > 0, first, (1.0 - first) / (n - 1))


def _clipped(answers: Any) -> Any:
    kept = (answers >= LARGEST_SHARE) | (one_hot(answers.argmax(axis=1)) > 0)
    return _normal(np.where(kept, answers, 0.0))


def _shifted(thief: Thief) -> Any:
    """Return the average answer to moved copies, for the images that training uses."""
    from auditor.guards.dynamarks import DynaMarks
    from auditor.models import predict
    from auditor.training import shift_images

    world, x = thief.world, thief.inputs[:BUDGET]
    guard, generator = DynaMarks(world.guard_keys(), client_id=OWN), np.random.default_rng(world.seed)
    copies = [shift_images(x, limit=2, generator=generator) for _ in range(COPIES)]
    return np.mean([guard(predict(world.teacher, moved), moved) for moved in copies], axis=0)


def _confident(thief: Thief) -> Any:
    answers = thief.world.answers()[:BUDGET]
    rows = np.argsort(-answers.max(axis=1), kind="stable")[: BUDGET // 2]
    return distil(thief.world, thief.inputs[rows], answers[rows], seed=thief.first, epochs=2 * EPOCHS)


def _of_client(thief: Thief, number: int) -> Any:
    if number == 0:
        return thief.marked()
    name = "other-client" if number == 1 else f"thief-of-client-{number}"
    return thief.soft(name, lambda: thief.world.answers(client=CLIENTS[number]))()


def _relabelled(thief: Thief, *, own: bool) -> Any:
    from auditor.models import predict

    world, x = thief.world, thief.inputs[:BUDGET]
    generator, start = np.random.default_rng([world.seed, 41]), thief.marked()
    noise = [generator.normal(0.0, 255 * NOISE, size=x.shape).astype(np.float32) for _ in range(2)]
    images = np.concatenate([x, *(np.clip(np.rint(x + each), 0, 255).astype(np.uint8) for each in noise)])
    labels = predict(start, images).argmax(axis=1) if own else np.tile(world.thief.labels[:BUDGET], 3)
    return distil(world, images, one_hot(labels), seed=thief.first, epochs=2, start=start, rate=0.02)


def _adversarial(thief: Thief) -> Any:
    import torch

    from auditor.models import build, describe

    world = thief.world
    network = build(
        describe("small-cnn", input_shape=world.data.spec.shape, classes=world.data.classes), seed=thief.first
    )
    x = torch.from_numpy(thief.inputs[:BUDGET].astype(np.float32)) / 255.0
    q = torch.from_numpy(np.asarray(world.answers()[:BUDGET], dtype=np.float32))
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * -(-len(x) // BATCH))
    generator = torch.Generator().manual_seed(thief.first)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            images, wanted = x[rows], q[rows]
            half = len(rows) // 2
            network.eval()
            worst = worst_images(network, images[:half], wanted[:half], radius=RADIUS)
            network.train()
            logits = network(torch.cat([worst, images[half:]]))
            loss = -(wanted * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network
