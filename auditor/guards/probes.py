"""The pool that a suspect's questions come from: chosen by seed and clean model, before there is any table.

Which probes of the pool are asked is decided after the seal, by the judge's nonce (evidence/schedule.py).
"""

from typing import TYPE_CHECKING

import numpy as np

from auditor.datasets import Dataset
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.evidence.commitment import Carrier, Carriers
from auditor.guard_keys import POOL_FACTOR, SCHEME, ProbeData
from auditor.records import Inputs, SampleKind
from auditor.stats.redraw import UniformDraws

if TYPE_CHECKING:
    from torch import nn

    from auditor.guards.owner import GuardSizes

MIXED_PER_PROBE = 4
"""Mixtures made for every one that is kept."""


def choose_carriers(
    dataset: Dataset, *, seed: bytes, sizes: "GuardSizes", data: ProbeData, network: "nn.Module"
) -> Carriers:
    """Return the pool of probes, then controls; controls are held-out pictures whatever the probes are.

    Raises:
        UsageError: fewer held-out pictures than are wanted, or a pool of fewer probes than are to be asked.
    """
    pool = dataset.carriers
    n_pool = pool_size(sizes, data=data, n_held_out=len(pool))
    wanted = sizes.n_controls + (n_pool if data is ProbeData.HELD_OUT else 0)
    if min(sizes.n_probes, sizes.n_controls) < 1 or wanted > len(pool):
        raise UsageError(f"{wanted} probes and controls wanted; {dataset.name} holds out {len(pool)} images")
    if n_pool < sizes.n_probes:
        raise UsageError(f"{sizes.n_probes} probes cannot be asked from a pool of {n_pool}")
    rows = Secret(seed).stream(f"{SCHEME} carriers").permutation(len(pool))[:wanted]
    inputs: Inputs = pool.inputs[np.array(rows, dtype=np.intp)]
    natural = [int(pool.labels[row]) for row in rows]
    if data is ProbeData.MIXTURES:
        mixed, labels = _mixtures(pool.inputs, seed=seed, n=n_pool, network=network)
        inputs, natural = np.concatenate([mixed, inputs]), [*labels, *natural]
    items = tuple(
        Carrier(kind=SampleKind.KEY if i < n_pool else SampleKind.CONTROL, pattern=-1, natural=label)
        for i, label in enumerate(natural)
    )
    return Carriers(items=items, inputs=inputs)


def pool_size(sizes: "GuardSizes", *, data: ProbeData, n_held_out: int) -> int:
    """Return how many probes are committed to: as stated, else twice those to be asked, as far as pictures reach.

    At least as many as are to be asked, so that too few pictures are noticed by whoever takes them.
    """
    if sizes.n_pool is not None:
        return sizes.n_pool
    doubled = POOL_FACTOR * sizes.n_probes
    if data is ProbeData.MIXTURES:
        return doubled
    return max(sizes.n_probes, min(doubled, n_held_out - sizes.n_controls))


def _mixtures(pool: Inputs, *, seed: bytes, n: int, network: "nn.Module") -> tuple[Inputs, list[int]]:
    from auditor.models import predict

    drawn = UniformDraws(Secret(seed).derive(f"{SCHEME} mixtures"), below=len(pool))
    pairs = drawn.take(2 * MIXED_PER_PROBE * n).reshape(2, -1)
    mixed = ((pool[pairs[0]].astype(np.uint16) + pool[pairs[1]]) // 2).astype(np.uint8)
    clean = predict(network, mixed)
    best = np.sort(clean, axis=1)[:, -2:]
    rows = np.argsort(best[:, 1] - best[:, 0], kind="stable")[:n]
    return mixed[rows], [int(label) for label in clean[rows].argmax(axis=1)]
