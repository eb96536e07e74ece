"""Small guards and random answers for the tests of guards."""

import numpy as np

from auditor.draws import Secret
from auditor.guard_keys import GuardKeys, GuardSettings, client_keys, median_thresholds, projection_key

SHAPE = (1, 8, 8)
SEED = bytes(range(32))


def random_inputs(n: int, *, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(n, *shape), dtype=np.uint8)


def random_answers(n: int, *, classes: int = 5, seed: int = 0, sharpness: float = 3.0) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).normal(size=(n, classes))
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def small_keys(
    *,
    settings: GuardSettings | None = None,
    classes: int = 5,
    clients: tuple[str, ...] = ("alice", "bob"),
    seed: bytes = SEED,
    probes: int = 4,
    shape: tuple[int, int, int] = SHAPE,
) -> GuardKeys:
    chosen = settings or GuardSettings()
    key = projection_key(seed)
    inputs = random_inputs(400, seed=7, shape=shape)
    labels = np.arange(400, dtype=np.int64) % classes
    return GuardKeys(
        settings=chosen,
        classes=tuple(f"class {i}" for i in range(classes)),
        shape=shape,
        model_sha256="ab" * 32,
        projection_key=key,
        thresholds=median_thresholds(inputs=inputs, labels=labels, n_classes=classes, key=key, bits=chosen.bits),
        reference=np.full((probes, classes), 1_000_000 // classes, dtype=np.int64),
        clients=clients,
        client_keys=client_keys(Secret(seed), clients),
    )
