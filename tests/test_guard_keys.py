import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from auditor.draws import Secret
from auditor.errors import MalformedError, UsageError
from auditor.guard_keys import (
    GuardKeys,
    GuardSettings,
    blocks,
    client_keys,
    draw_table,
    median_thresholds,
    pack,
    pooled,
    probe_cells,
    projection_key,
    projections,
    reference_units,
    unpack,
)

SEED = bytes(range(32))


def keys(**changes: object) -> GuardKeys:
    base = GuardKeys(
        settings=GuardSettings(),
        classes=("a", "b", "c"),
        shape=(1, 4, 4),
        model_sha256="00" * 32,
        projection_key=projection_key(SEED),
        thresholds=np.zeros((3, 1), dtype=np.int64),
        reference=np.array([[500_000, 300_000, 200_000]]),
        clients=("x", "y"),
        client_keys=client_keys(Secret(SEED), ("x", "y")),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_guard_json_reads_back_as_it_was() -> None:
    data = pack(keys())
    assert pack(unpack(data)) == data
    assert "x" not in repr(keys())


def test_no_byte_of_guard_json_can_change_unnoticed() -> None:
    data = pack(keys())
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        try:
            found = unpack(bytes(changed))
        except MalformedError:
            continue
        assert pack(found) == bytes(changed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda o: o.update(schema="other"),
        lambda o: o["measured"].update(thresholds=[[0], [0]]),
        lambda o: o["measured"].update(thresholds=[[0], [0], [True]]),
        lambda o: o["measured"].update(reference=[[1, 2]]),
        lambda o: o["measured"].update(shape=[1, 4]),
        lambda o: o["measured"].update(clients=["x", "x"]),
        lambda o: o["measured"].update(clients=["x", "z"]),
        lambda o: o["measured"]["settings"].update(mu="0.9"),
        lambda o: o.update(client_keys={"x": "00", "y": "00"}),
        lambda o: o.update(client_keys=[]),
        lambda o: o["measured"].update(extra=1),
    ],
)
def test_malformed_guard_json_is_refused(spoil: object) -> None:
    found = json.loads(pack(keys()))
    spoil(found)  # type: ignore[operator]
    with pytest.raises(MalformedError):
        unpack(json.dumps(found, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("a", "b"), "thresholds": np.zeros((2, 1), dtype=np.int64), "reference": np.zeros((1, 2), int)},
        {"thresholds": np.zeros((3, 2), dtype=np.int64)},
        {"reference": np.array([[1, 2]])},
        {"clients": ()},
        {"client_keys": {"x": b"short", "y": b"short"}},
    ],
)
def test_contradictions_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        keys(**change)


@pytest.mark.parametrize(
    "options", [{"mu": 0.0}, {"mu": 0.5}, {"sigma": -1.0}, {"margin": 0.0}, {"bits": 5}, {"label_share": 0.01}]
)
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        GuardSettings(**options)  # type: ignore[arg-type]


def test_two_clients_with_one_id_are_refused() -> None:
    with pytest.raises(UsageError, match="same id"):
        client_keys(Secret(SEED), ("x", "y", "x"))
    with pytest.raises(UsageError):
        client_keys(Secret(SEED), ())
    with pytest.raises(UsageError):
        client_keys(Secret(SEED), ("",))


def test_targets_are_uniform_over_the_other_classes() -> None:
    counts = np.zeros((8, 4), dtype=int)
    for i in range(600):
        for cell, target in enumerate(draw_table(i.to_bytes(32, "big"), n_classes=4, bits=1).targets):
            counts[cell, target] += 1
    for cell, row in enumerate(counts):
        assert row[cell // 2] == 0
        assert stats.chisquare(np.delete(row, cell // 2)).pvalue > 1e-5


def test_blocks_cover_every_pixel_once_and_sums_are_exact() -> None:
    generator = np.random.default_rng(0)
    for shape in ((1, 28, 28), (3, 32, 20), (1, 5, 3), (2, 8, 8)):
        inputs = generator.integers(0, 256, size=(3, *shape), dtype=np.uint8)
        matrix = blocks(shape)
        assert (matrix.sum(axis=1) == 1).all()
        found = pooled(inputs, matrix)
        rows, columns = min(8, shape[1]), min(8, shape[2])
        for n in range(3):
            expected = np.zeros((shape[0], rows, columns), dtype=int)
            for c in range(shape[0]):
                for i in range(shape[1]):
                    for j in range(shape[2]):
                        expected[c, i * rows // shape[1], j * columns // shape[2]] += int(inputs[n, c, i, j])
            assert np.array_equal(found[n], expected.reshape(-1))


def test_thresholds_halve_every_class() -> None:
    inputs = np.random.default_rng(1).integers(0, 256, size=(900, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(900) % 3
    key = projection_key(SEED)
    thresholds = median_thresholds(inputs=inputs, labels=labels, n_classes=4, key=key, bits=2)
    values = pooled(inputs, blocks((1, 8, 8))) @ projections(key, n_blocks=64, bits=2)
    for label in range(3):
        above = (values[labels == label] > thresholds[label]).mean(axis=0)
        assert np.allclose(above, 0.5, atol=0.01)
    assert (thresholds[3] == 0).all()


def test_cells_name_class_and_bits() -> None:
    reference = np.array([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])
    made = keys(thresholds=np.array([[10**9], [0], [0]]))
    inputs = np.random.default_rng(2).integers(0, 256, size=(3, 1, 4, 4), dtype=np.uint8)
    cells = probe_cells(made, inputs, reference)
    direction = projections(made.projection_key, n_blocks=16, bits=1)[:, 0]
    assert cells[2] == 0
    for i in (0, 1):
        assert cells[i] == 2 + (float(inputs[i].reshape(-1) @ direction) > 0)


def test_what_was_measured_does_not_depend_on_the_draw() -> None:
    other = keys(client_keys=client_keys(Secret(SEED, b"randomness"), ("x", "y")))
    assert keys().measured_sha256() == other.measured_sha256() == keys(client_keys={}).measured_sha256()
    assert pack(keys()) != pack(other)
    with pytest.raises(UsageError, match="no key"):
        keys(client_keys={}).table("x")


def test_reference_answers_are_whole_millionths() -> None:
    assert reference_units([[0.1234567, 0.5]]).tolist() == [[123457, 500000]]
