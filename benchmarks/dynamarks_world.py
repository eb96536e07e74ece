"""The world of one seed: data, owner's model, keys, probes, and how a thief trains."""

import hashlib
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(tempfile.gettempdir()) / "auditor-benchmark-dynamarks"
CLIENTS = tuple(f"client-{i:02d}" for i in range(10))
OWN, OTHER = CLIENTS[0], CLIENTS[1]
EPOCHS, BATCH, RATE = 4, 256, 0.2
N_PROBES, N_MIXTURES, N_AMBIGUOUS = 1_000, 20_000, 5_000


class World:
    """Everything one seed shares: data, owner's model, keys, probes."""

    def __init__(self, seed: int) -> None:
        from auditor import datasets
        from auditor.draws import Secret
        from auditor.guard_keys import client_keys, projection_key
        from auditor.models import predict

        self.seed = seed
        self.data = datasets.load("fashion-mnist")
        self.owner, self.thief = self.data.train.halves()
        self.secret = Secret(hashlib.sha256(f"benchmark secret {seed}".encode()).digest())
        self.teacher = self.cached("teacher", lambda: self._unmarked(self.owner, seed=seed))
        self.projection_key = projection_key(self.secret.seed)
        self.client_keys = client_keys(self.secret, CLIENTS)
        self.probes = self.data.carriers.inputs[:N_PROBES]
        self.reference = predict(self.teacher, self.probes).astype(np.float64)

    @cached_property
    def clean(self) -> Any:
        """The service's own answers to everything the thief asks."""
        from auditor.models import predict

        return predict(self.teacher, self.thief.inputs)

    @cached_property
    def thresholds(self) -> dict[int, Any]:
        """Median projections per predicted class, by number of bits."""
        from auditor.guard_keys import median_thresholds
        from auditor.models import predict

        predicted = predict(self.teacher, self.owner.inputs).argmax(axis=1)
        return {
            bits: median_thresholds(
                inputs=self.owner.inputs, labels=predicted, n_classes=10, key=self.projection_key, bits=bits
            )
            for bits in (0, 1, 2)
        }

    @cached_property
    def clean_labels(self) -> Any:
        """The owner's model's labels of the test images."""
        from auditor.models import predict

        return predict(self.teacher, self.data.test.inputs).argmax(axis=1)

    @property
    def ambiguous(self) -> Any:
        """Mixtures of two held-out images each, those of the lowest margins."""
        return self.mixtures[0]

    @property
    def ambiguous_reference(self) -> Any:
        """The clean answers to them."""
        return self.mixtures[1]

    @cached_property
    def mixtures(self) -> tuple[Any, Any]:
        from auditor.models import predict

        generator = np.random.default_rng(self.seed)
        pairs = generator.integers(0, len(self.data.carriers), size=(2, N_MIXTURES))
        images = self.data.carriers.inputs.astype(np.uint16)
        mixed = ((images[pairs[0]] + images[pairs[1]]) // 2).astype(np.uint8)
        reference = predict(self.teacher, mixed).astype(np.float64)
        two = np.sort(reference, axis=1)[:, -2:]
        rows = np.argsort(two[:, 1] - two[:, 0], kind="stable")[:N_AMBIGUOUS]
        return mixed[rows], reference[rows]

    def _unmarked(self, part: Any, *, seed: int, epochs: int = 3) -> Any:
        from auditor.training import Device, TrainingPlan, train_unmarked

        plan = TrainingPlan(
            epochs=epochs, batch_size=BATCH, learning_rate=RATE, bfloat16=True, seed=seed, device=Device.CPU
        )
        return train_unmarked(
            architecture="small-cnn", spec=self.data.spec, inputs=part.inputs, labels=part.labels, plan=plan
        ).network

    def independent(self, number: int) -> Any:
        return self.cached(
            f"independent-{number}", lambda: self._unmarked(self.thief, seed=1000 + 10 * self.seed + number)
        )

    def cached(self, name: str, make: Callable[[], Any], architecture: str = "small-cnn") -> Any:
        """Return a network from the cache, or make and keep it; a lost cache costs time only."""
        import torch

        from auditor.models import build, describe

        file = CACHE / f"{self.seed}-{name}.pt"
        if file.exists():
            network = build(describe(architecture, input_shape=self.data.spec.shape, classes=self.data.classes), seed=0)
            network.load_state_dict(torch.load(file, weights_only=True))
            return network
        network = make()
        CACHE.mkdir(exist_ok=True)
        torch.save(network.state_dict(), file)
        return network

    def guard_keys(self, *, mu: float = 0.1, bits: int = 1, depth: float = 0.0) -> Any:
        from auditor.guard_keys import GuardKeys, GuardSettings, reference_units

        return GuardKeys(
            settings=GuardSettings(mu=mu, sigma=mu / 2, bits=bits, depth=depth),
            classes=self.data.classes,
            shape=self.data.spec.shape,
            model_sha256="00" * 32,
            projection_key=self.projection_key,
            thresholds=self.thresholds[bits],
            reference=reference_units(self.reference),
            clients=CLIENTS,
            client_keys=self.client_keys,
        )

    def answers(self, *, client: str = OWN, mu: float = 0.1, bits: int = 1, depth: float = 0.0) -> Any:
        from auditor.guards.dynamarks import DynaMarks

        keys = self.guard_keys(mu=mu, bits=bits, depth=depth)
        return DynaMarks(keys, client_id=client)(self.clean, self.thief.inputs)


def distil(
    world: World,
    inputs: Any,
    answers: Any,
    *,
    seed: int,
    architecture: str = "small-cnn",
    epochs: int = EPOCHS,
    start: Any = None,
    rate: float = RATE,
) -> Any:
    """Return a network trained with cross-entropy on the given distributions."""
    import copy

    import torch

    from auditor.models import build, describe

    shape, classes = world.data.spec.shape, world.data.classes
    network = build(describe(architecture, input_shape=shape, classes=classes), seed=seed)
    network = copy.deepcopy(start) if start is not None else network
    network = network.to(memory_format=torch.channels_last)
    x = torch.from_numpy(inputs.astype(np.float32)) / 255.0
    q = torch.from_numpy(np.asarray(answers, dtype=np.float32))
    rate = rate if architecture == "small-cnn" else rate / 4
    steps = epochs * -(-len(x) // BATCH)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for rows in order.split(BATCH):
            if len(rows) < 2:
                continue
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(x[rows].contiguous(memory_format=torch.channels_last))
            loss = -(q[rows] * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


def one_hot(labels: Any) -> Any:
    return np.eye(10, dtype=np.float32)[labels]


class Mean:
    """Several networks whose probabilities are averaged."""

    def __init__(self, networks: list[Any]) -> None:
        self.networks = networks


class Vote(Mean):
    """Several networks whose first labels are counted; shares of the votes stand in for probabilities."""


def probabilities(model: Any, inputs: Any) -> Any:
    from auditor.models import predict

    networks = model.networks if isinstance(model, Mean) else [model]
    found = [predict(network, inputs).astype(np.float64) for network in networks]
    return np.mean([one_hot(each.argmax(axis=1)) for each in found] if isinstance(model, Vote) else found, axis=0)


def worst_images(network: Any, images: Any, answers: Any, *, radius: float, steps: int = 3) -> Any:
    """Return images moved within a radius, by signed ascent of the cross-entropy to the given answers."""
    import torch

    moved = images.clone()
    for _ in range(steps):
        moved.requires_grad_(True)
        loss = -(answers * torch.log_softmax(network(moved), dim=1)).sum()
        (gradient,) = torch.autograd.grad(loss, moved)
        step = moved.detach() + radius / 2 * gradient.sign()
        moved = torch.minimum(torch.maximum(step, images - radius), images + radius).clamp(0.0, 1.0)
    return moved


def prune(network: Any, share: float) -> Any:
    import copy

    import torch

    pruned = copy.deepcopy(network)
    with torch.no_grad():
        weights = [p for p in pruned.parameters() if p.ndim > 1]
        cut = torch.quantile(torch.cat([w.abs().flatten() for w in weights]), share)
        for weight in weights:
            weight[weight.abs() < cut] = 0.0
    return pruned
