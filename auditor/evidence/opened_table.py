"""Opens the table of a served scheme: the sealed bytes of ``guard.json``, and the cell of every asked probe."""

from collections.abc import Mapping

import numpy as np

from auditor.analysis.drawn_table import OpenedTable
from auditor.canonical import sha256_hex
from auditor.errors import SealError
from auditor.evidence.schedule import kind_at
from auditor.evidence.seal import Seal
from auditor.guard_keys import GUARD_SETTING, MEASURED_SETTING, MICRO, client_problem, probe_cells, unpack
from auditor.records import NullBasis, SampleKind


def open_table(guard: bytes, *, seal: Seal, data: Mapping[int, bytes]) -> OpenedTable | None:
    """Return the opened table, or None where the seal's null basis is another.

    Args:
        guard: bytes of ``guard.json``.
        seal: the opened seal.
        data: uint8 values of at least every asked sample, by index, already compared with the sealed root.

    Raises:
        SealError: the guard is not the sealed one or does not fit the seal.
        MalformedError: it is sealed but cannot be read.
    """
    if seal.protocol.null_basis is not NullBasis.DRAWN_TABLE:
        if guard:
            raise SealError("a guard was opened that the seal does not know")
        return None
    if sha256_hex(guard) != seal.generator.settings.get(GUARD_SETTING):
        raise SealError("the opened guard is not the sealed one")
    keys = unpack(guard)
    fits = (keys.classes, keys.shape, keys.model_sha256) == (seal.spec.classes, seal.spec.shape, seal.model_sha256)
    if not fits or len(keys.reference) != seal.protocol.n_keys or not keys.client_keys:
        raise SealError("the sealed guard contradicts the seal")
    if keys.measured_sha256() != seal.generator.settings.get(MEASURED_SETTING) or client_problem(keys.clients):
        raise SealError("the sealed guard is not what was measured before the draw")
    probes = sorted(index for index in data if kind_at(seal.protocol, index) is SampleKind.KEY)
    if not probes:
        return OpenedTable(keys=keys, cells={})
    inputs = np.stack([np.frombuffer(data[index], dtype=np.uint8).reshape(seal.spec.shape) for index in probes])
    cells = probe_cells(keys, inputs, keys.reference[probes] / MICRO)
    return OpenedTable(keys=keys, cells=dict(zip(probes, cells.tolist(), strict=True)))
