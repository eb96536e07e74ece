"""Which pictures a suspect of a guarded service will be asked: chosen by seed and clean model, never by a table."""

from typing import TYPE_CHECKING

import numpy as np

from auditor.datasets import Dataset
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.evidence.commitment import Carrier, Carriers
from auditor.guard_keys import SCHEME, ProbeData
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
    """Return probes, then controls; controls are held-out pictures whatever the probes are.

    Raises:
        UsageError: fewer held-out pictures than are wanted.
    """
    pool = dataset.carriers
    whole = sizes.n_probes if data is ProbeData.HELD_OUT else 0
    wanted = whole + sizes.n_controls
    if min(sizes.n_probes, sizes.n_controls) < 1 or wanted > len(pool):
        raise UsageError(f"{wanted} probes and controls wanted; {dataset.name} holds out {len(pool)} images")
    rows = Secret(seed).stream(f"{SCHEME} carriers").permutation(len(pool))[:wanted]
    inputs: Inputs = pool.inputs[np.array(rows, dtype=np.intp)]
    natural = [int(pool.labels[row]) for row in rows]
    if data is ProbeData.MIXTURES:
        mixed, labels = _mixtures(pool.inputs, seed=seed, n=sizes.n_probes, network=network)
        inputs, natural = np.concatenate([mixed, inputs]), [*labels, *natural]
    items = tuple(
        Carrier(kind=SampleKind.KEY if i < sizes.n_probes else SampleKind.CONTROL, pattern=-1, natural=label)
        for i, label in enumerate(natural)
    )
    return Carriers(items=items, inputs=inputs)


def _mixtures(pool: Inputs, *, seed: bytes, n: int, network: "nn.Module") -> tuple[Inputs, list[int]]:
    from auditor.models import predict

    drawn = UniformDraws(Secret(seed).derive(f"{SCHEME} mixtures"), below=len(pool))
    pairs = drawn.take(2 * MIXED_PER_PROBE * n).reshape(2, -1)
    mixed = ((pool[pairs[0]].astype(np.uint16) + pool[pairs[1]]) // 2).astype(np.uint8)
    clean = predict(network, mixed)
    best = np.sort(clean, axis=1)[:, -2:]
    rows = np.argsort(best[:, 1] - best[:, 0], kind="stable")[:n]
    return mixed[rows], [int(label) for label in clean[rows].argmax(axis=1)]
