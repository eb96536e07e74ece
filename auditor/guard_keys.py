"""The secret parameters of a guarded service: cells, target tables, and their committed form ``guard.json``.

The served side marks with these functions and the judge's side reads cells and targets with the same ones. Everything
is integer arithmetic on the uint8 grid, so that both sides find the same cells on every platform.

Notes:
    Projections follow from the owner's seed alone, so that thresholds and reference answers can be measured and
    committed to before the public randomness. Client keys, and with them tables and signs, follow from seed and
    randomness together. Every entry of a table is uniform over the classes other than its cell's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from auditor.canonical import Fields, JsonValue, canonical_bytes, decimal_string, parse_canonical_object, sha256_hex
from auditor.draws import NORMAL_GRID, DrawStream, Secret
from auditor.errors import MalformedError, UsageError
from auditor.records import Inputs

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SCHEMA = "mlaudit.guard/1"
WHAT = "guard.json"
SCHEME = "dynamarks"
VERSION = 1
KEY_BYTES = 32
GRID_SIDE = 8
"""Images are summed over at most 8 × 8 blocks before they are projected: only coarse features survive extraction."""
GUARD_SETTING = "guard_sha256"
"""Generator setting of a seal: digest of ``guard.json``, known only after the draw."""
MEASURED_SETTING = "measured_sha256"
"""Generator setting of commitment and seal: digest of all that was measured before the draw."""
PROBE_DATA_SETTING = "probe_data"
"""Generator setting that names the kind of probes; absent for held-out pictures."""
MICRO = 1_000_000
"""Reference probabilities are kept in millionths."""
MIN_CLASSES = 3
MAX_CLIENTS = 1_000
MAX_BITS = 4
POOL_FACTOR = 2
"""Probes that are committed to for every one that is asked, where nothing else is stated."""
MAX_ID = 200
_EXACT_FLOAT32 = 1 << 24


class ProbeData(StrEnum):
    """Where probes come from."""

    HELD_OUT = "held-out"
    """Pictures of the task as they are."""
    MIXTURES = "mixtures"
    """Even mixtures of two of them: the quarter on which the clean model's first two classes are closest, so that a
    small shift may change the label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Public strength of the mark; an answer is expected to change by at most 2 mu in L1, 0.2 by default."""

    mu: float = 0.1
    """Mean share of probability moved to the target class, in (0, 0.45]."""
    sigma: float = 0.05
    """Standard deviation of that share from query to query; the share itself lies in [0, 2 mu]."""
    margin: float = 0.02
    """Lead that the first class keeps over the target class, in (0, 0.5)."""
    bits: int = 1
    """Secret projections per input; a class has 2**bits cells."""
    depth: float = 0.0
    """Second channel: relative change of mu by a drawn sign per cell, in [0, 1); 0 switches it off."""
    label_share: float = 0.0
    """Label channel: share of queries answered with a drawn wrong class, at most 0.005; 0 keeps every argmax."""

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise UsageError(f"guard: {problem}")

    def _problem(self) -> str:
        if not (0 < self.mu <= 0.45 and 0 <= self.sigma <= 0.45):
            return "mu must lie in (0, 0.45] and sigma in [0, 0.45]"
        if not 0 < self.margin < 0.5:
            return "the margin must lie between 0 and 0.5"
        if not 0 <= self.bits <= MAX_BITS:
            return f"the number of bits must lie in 0-{MAX_BITS}"
        if not (0 <= self.depth < 1 and 0 <= self.label_share <= 0.005):
            return "the depth must lie in [0, 1) and the share of changed labels in [0, 0.005]"
        return ""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the settings as decimal strings and integers."""
        return {
            "mu": decimal_string(self.mu),
            "sigma": decimal_string(self.sigma),
            "margin": decimal_string(self.margin),
            "bits": self.bits,
            "depth": decimal_string(self.depth),
            "label_share": decimal_string(self.label_share),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTable:
    """What one client's key determines."""

    targets: tuple[int, ...]
    """Target class of every cell."""
    signs: tuple[int, ...]
    """+1 or -1 for every cell; used by the second channel only."""
    strength_key: bytes = field(repr=False)
    """Key of the function that draws the strength of every query."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuardKeys:
    """Everything a guard and its later verification need; its text form shows no key."""

    settings: GuardSettings
    classes: tuple[str, ...]
    """Names of the model's outputs, in order."""
    shape: tuple[int, int, int]
    model_sha256: str
    """Digest of the guarded model's weights."""
    projection_key: bytes
    thresholds: Integers
    """Median projection of the owner's data per predicted class, shape (classes, bits)."""
    reference: Integers
    """The clean model's answers to the sealed probes in millionths, shape (probes, classes)."""
    clients: tuple[str, ...]
    """Ids of the clients, fixed before the draw so that none can be searched for afterwards."""
    client_keys: Mapping[str, bytes] = field(default_factory=dict)
    """32 bytes by client id; empty before the draw."""

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise UsageError(f"guard: {problem}")

    def __repr__(self) -> str:
        return f"GuardKeys(n_clients={len(self.client_keys)}, n_classes={len(self.classes)})"

    @property
    def n_cells(self) -> int:
        """Classes times 2**bits."""
        return len(self.classes) << self.settings.bits

    def table(self, client_id: str) -> ClientTable:
        """Return the table of one client.

        Raises:
            UsageError: no key was drawn for this client.
        """
        if client_id not in self.client_keys:
            raise UsageError("guard: no key was drawn for this client")
        return draw_table(self.client_keys[client_id], n_classes=len(self.classes), bits=self.settings.bits)

    def measured_sha256(self) -> str:
        """Return the digest of all that was measured before the draw; the commitment names it."""
        return sha256_hex(canonical_bytes(_measured_object(self)))


def projection_key(seed: bytes) -> bytes:
    """Return the key of the projections; no public randomness goes in."""
    return Secret(seed).derive("dynamarks projections")


def client_problem(clients: Sequence[str]) -> str:
    """Return what is wrong with a list of client ids, or an empty text."""
    if not 1 <= len(clients) <= MAX_CLIENTS or any(not 0 < len(client) <= MAX_ID for client in clients):
        return f"1 to {MAX_CLIENTS} clients are needed, with ids of 1 to {MAX_ID} characters"
    return "two clients have the same id" if len(set(clients)) != len(clients) else ""


def client_keys(secret: Secret, clients: Sequence[str]) -> dict[str, bytes]:
    """Return one independent key per client.

    Raises:
        UsageError: no client, two with one id, or an id that is empty or too long.
    """
    problem = client_problem(clients)
    if problem:
        raise UsageError(f"guard: {problem}")
    return {client: secret.derive(f"dynamarks client {client}") for client in clients}


def draw_table(client_key: bytes, *, n_classes: int, bits: int) -> ClientTable:
    """Return targets, uniform over the classes other than each cell's own, fair signs, and the strength key."""
    secret = Secret(client_key)
    stream = secret.stream("dynamarks table")
    targets = []
    for cell in range(n_classes << bits):
        drawn = stream.integer(n_classes - 1)
        targets.append(drawn + (drawn >= cell >> bits))
    signs = secret.stream("dynamarks signs")
    return ClientTable(
        targets=tuple(targets),
        signs=tuple(1 - 2 * signs.integer(2) for _ in targets),
        strength_key=secret.derive("dynamarks strength"),
    )


def blocks(shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Return the 0/1 matrix that sums pixels over blocks, shape (pixels, blocks)."""
    channels, height, width = shape
    rows, columns = min(GRID_SIDE, height), min(GRID_SIDE, width)
    block_row = np.arange(height) * rows // height
    block_column = np.arange(width) * columns // width
    number = (
        np.arange(channels)[:, None, None] * rows * columns
        + block_row[None, :, None] * columns
        + block_column[None, None]
    ).reshape(-1)
    matrix = np.zeros((number.size, channels * rows * columns), dtype=np.float32)
    matrix[np.arange(number.size), number] = 1.0
    return matrix


def pooled(inputs: Inputs, matrix: npt.NDArray[np.float32]) -> Floats:
    """Return the exact sums of pixels over blocks, shape (n, blocks), whole numbers."""
    # Sums of whole numbers are exact in single precision, in any order, while they stay below 2**24.
    kind = np.float32 if 255 * len(matrix) < _EXACT_FLOAT32 else np.float64
    flat = inputs.reshape(len(inputs), -1).astype(kind)
    return np.asarray(flat @ matrix.astype(kind, copy=False), dtype=np.float64)


def projections(key: bytes, *, n_blocks: int, bits: int) -> Floats:
    """Return secret directions with whole-number components, shape (blocks, bits)."""
    return np.asarray(DrawStream(key).normal((bits, n_blocks)).T * NORMAL_GRID)


def cells_of(features: Floats, labels: Integers, *, directions: Floats, thresholds: Integers) -> Integers:
    """Return the cell of every input: predicted class times 2**bits plus its bit code.

    Args:
        features: :func:`pooled` sums.
        labels: predicted class of every input.
        directions: :func:`projections`.
        thresholds: shape (classes, bits).
    """
    bits = directions.shape[1]
    above = features @ directions > thresholds[labels]
    return np.asarray(labels * (1 << bits) + above @ (1 << np.arange(bits, dtype=np.int64)), dtype=np.int64)


def probe_cells(keys: GuardKeys, inputs: Inputs, reference: Floats) -> Integers:
    """Return the cells of probes, by the clean model's answers to them."""
    matrix = blocks(keys.shape)
    directions = projections(keys.projection_key, n_blocks=matrix.shape[1], bits=keys.settings.bits)
    labels = np.argmax(reference, axis=1).astype(np.int64)
    return cells_of(pooled(inputs, matrix), labels, directions=directions, thresholds=keys.thresholds)


def median_thresholds(*, inputs: Inputs, labels: Integers, n_classes: int, key: bytes, bits: int) -> Integers:
    """Return the median projection per predicted class, rounded down; 0 for a class that was never predicted."""
    shape = (inputs.shape[1], inputs.shape[2], inputs.shape[3])
    matrix = blocks(shape)
    values = pooled(inputs, matrix) @ projections(key, n_blocks=matrix.shape[1], bits=bits)
    thresholds = np.zeros((n_classes, bits), dtype=np.int64)
    for label in range(n_classes):
        if np.any(labels == label):
            thresholds[label] = np.floor(np.median(values[labels == label], axis=0))
    return thresholds


def pack(keys: GuardKeys) -> bytes:
    """Return the bytes of ``guard.json``."""
    listed: dict[str, JsonValue] = {client: key.hex() for client, key in keys.client_keys.items()}
    return canonical_bytes({"schema": SCHEMA, "measured": _measured_object(keys), "client_keys": listed})


def unpack(data: bytes) -> GuardKeys:
    """Read ``guard.json``.

    Raises:
        MalformedError: the bytes are something else.
    """
    top = Fields(parse_canonical_object(data, what=WHAT), what=WHAT)
    if top.text("schema") != SCHEMA:
        raise MalformedError(f"{WHAT}: unknown schema")
    measured, clients = top.object("measured"), top.raw("client_keys")
    top.finish()
    if not isinstance(clients, Mapping) or not all(isinstance(key, str) for key in clients.values()):
        raise MalformedError(f"{WHAT}: client keys must be an object of texts")
    settings = measured.object("settings")
    try:
        keys = GuardKeys(
            settings=GuardSettings(
                mu=settings.decimal("mu"), sigma=settings.decimal("sigma"), margin=settings.decimal("margin"),
                bits=settings.integer("bits", high=MAX_BITS), depth=settings.decimal("depth"),
                label_share=settings.decimal("label_share"),
            ),
            classes=measured.texts("classes"),
            shape=_shape(measured.items("shape", max_items=3)),
            model_sha256=measured.hex("model_sha256", n_bytes=32),
            projection_key=bytes.fromhex(measured.hex("projection_key", n_bytes=32)),
            thresholds=_table(measured.raw("thresholds")),
            reference=_table(measured.raw("reference")),
            clients=measured.texts("clients"),
            client_keys={client: bytes.fromhex(str(key)) for client, key in clients.items()},
        )  # fmt: skip
    except (UsageError, ValueError, OverflowError) as error:
        raise MalformedError(f"{WHAT}: {error}") from error
    settings.finish()
    measured.finish()
    return keys


def reference_units(probabilities: npt.ArrayLike) -> Integers:
    """Return probabilities in whole millionths."""
    return np.rint(np.asarray(probabilities, dtype=np.float64) * MICRO).astype(np.int64)


def _measured_object(keys: GuardKeys) -> dict[str, JsonValue]:
    return {
        "settings": keys.settings.as_json(),
        "classes": list(keys.classes),
        "shape": list(keys.shape),
        "model_sha256": keys.model_sha256,
        "projection_key": keys.projection_key.hex(),
        "thresholds": [[int(value) for value in row] for row in keys.thresholds],
        "reference": [[int(value) for value in row] for row in keys.reference],
        "clients": list(keys.clients),
    }


def _problem(keys: GuardKeys) -> str:
    n = len(keys.classes)
    if n < MIN_CLASSES:
        return f"a table of targets needs at least {MIN_CLASSES} classes"
    if keys.thresholds.shape != (n, keys.settings.bits):
        return "the thresholds do not fit the classes"
    if keys.reference.ndim != 2 or keys.reference.shape[1] != n or keys.reference.min(initial=0) < 0:
        return "the reference answers do not fit the classes"
    if len(keys.projection_key) != KEY_BYTES or any(len(key) != KEY_BYTES for key in keys.client_keys.values()):
        return "a key has 32 bytes"
    if keys.client_keys and set(keys.client_keys) != set(keys.clients):
        return "the client keys are not those of the clients"
    return client_problem(keys.clients)


def _shape(items: Sequence[JsonValue]) -> tuple[int, int, int]:
    sides = [side for side in items if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(sides) != 3 or len(items) != 3:
        raise MalformedError(f"{WHAT}: shape must hold three sizes")
    return sides[0], sides[1], sides[2]


def _table(value: JsonValue) -> Integers:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) for row in value):
        raise MalformedError(f"{WHAT}: a table must be a list of rows")
    rows = [row for row in value if isinstance(row, list)]
    if len({len(row) for row in rows}) != 1 or any(type(item) is not int for row in rows for item in row):
        raise MalformedError(f"{WHAT}: a table must hold whole numbers in rows of one length")
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(rows[0]))
