import hashlib
import hmac
import math
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from guard_cases import SEED, SHAPE, random_answers, random_inputs, small_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import UsageError
from auditor.guard_keys import GuardSettings, blocks, pooled, probe_cells
from auditor.guards import Guard
from auditor.guards.dynamarks import DynaMarks
from auditor.guards.keyed_draws import QueryDraws


def guard(client: str = "alice", **options: object) -> DynaMarks:
    return DynaMarks(small_keys(**options), client_id=client)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    mu=st.floats(0.001, 0.45),
    sharpness=st.floats(0.01, 30.0),
    precision=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_the_first_class_is_kept_whatever_the_scores_are(
    seed: int, mu: float, sharpness: float, precision: type[np.floating]
) -> None:
    clean = random_answers(64, seed=seed, sharpness=sharpness).astype(precision)
    answers = guard(settings=GuardSettings(mu=mu, sigma=mu / 2))(clean, random_inputs(64, seed=seed))
    assert answers.dtype == precision
    assert np.array_equal(answers.argmax(axis=1), clean.argmax(axis=1))
    assert np.allclose(answers.astype(float).sum(axis=1), clean.astype(float).sum(axis=1), atol=3e-3)
    assert answers.min() >= 0


def test_ties_stay_with_the_class_that_was_first() -> None:
    clean = np.array([[0.4, 0.4, 0.2, 0.0, 0.0]] * 8, dtype=np.float32)
    answers = guard()(clean, random_inputs(8))
    assert (answers.argmax(axis=1) == 0).all()


def test_the_l1_change_is_twice_the_share_times_one_minus_the_target() -> None:
    keys = small_keys()
    inputs, clean = random_inputs(300), random_answers(300)
    answers = DynaMarks(keys, client_id="alice")(clean, inputs)
    rows = np.arange(300)
    target = np.argmax(answers - clean, axis=1)
    share = (answers[rows, target] - clean[rows, target]) / (1 - clean[rows, target])
    changed = share > 0
    assert np.allclose(np.abs(answers - clean).sum(axis=1), 2 * share * (1 - clean[rows, target]))
    lead = answers[rows, clean.argmax(axis=1)] - answers[rows, target]
    assert (lead[changed] >= keys.settings.margin - 1e-12).all()
    assert changed.mean() > 0.5


def test_same_query_same_answer_in_any_batch() -> None:
    inputs, clean = random_inputs(50), random_answers(50)
    whole = guard()(clean, inputs)
    again = guard()(clean, inputs)
    one_by_one = np.concatenate([guard()(clean[i : i + 1], inputs[i : i + 1]) for i in range(50)])
    assert np.array_equal(whole, again)
    assert np.array_equal(whole, one_by_one)


def test_near_copies_share_the_strength_of_a_query() -> None:
    inputs = np.full((1, *SHAPE), 100, dtype=np.uint8)
    clean = random_answers(1)
    assert np.array_equal(guard()(clean, inputs), guard()(clean, inputs + 3))


def test_clients_get_different_answers() -> None:
    inputs, clean = random_inputs(50), random_answers(50)
    assert not np.allclose(guard("alice")(clean, inputs), guard("bob")(clean, inputs))


def test_answers_follow_from_the_standard_library_alone() -> None:
    """HKDF, HMAC, cells, target and strength computed anew, with hashlib and hmac only."""

    def hkdf(key: bytes, purpose: str) -> bytes:
        middle = hmac.new(bytes(32), key, hashlib.sha256).digest()
        return hmac.new(middle, b"auditor/1 " + purpose.encode() + b"\x01", hashlib.sha256).digest()

    class Stream:
        def __init__(self, seed: bytes) -> None:
            self.data = hashlib.shake_256(seed + (0).to_bytes(8, "big") + (4096).to_bytes(4, "big")).digest(4096)

        def take(self, n: int) -> int:
            head, self.data = self.data[:n], self.data[n:]
            return int.from_bytes(head, "big")

    keys = small_keys()
    client_key = hkdf(SEED, "dynamarks client alice")
    assert keys.client_keys["alice"] == client_key
    stream = Stream(hkdf(client_key, "dynamarks table"))
    targets = []
    for cell in range(10):
        drawn = stream.take(8) % 4
        targets.append(drawn + (drawn >= cell // 2))
    strength_key = hkdf(client_key, "dynamarks strength")
    directions = Stream(hkdf(SEED, "dynamarks projections"))
    weights = [round(1024 * NormalDist().inv_cdf((directions.take(4) + 0.5) / 2**32)) for _ in range(64)]

    inputs, clean = random_inputs(20), random_answers(20)
    answers = DynaMarks(keys, client_id="alice")(clean, inputs)
    for image, p, answer in zip(inputs, clean, answers, strict=True):
        y = int(p.argmax())
        pixels = [int(v) for v in image.reshape(-1)]
        bit = sum(w * v for w, v in zip(weights, pixels, strict=True)) > keys.thresholds[y, 0]
        k = targets[2 * y + bit]
        word = hmac.new(strength_key, bytes(v // 16 for v in pixels), hashlib.sha256).digest()[:4]
        z = NormalDist().inv_cdf((int.from_bytes(word, "big") + 0.5) / 2**32)
        lead = float(p[y] - p[k])
        a = min(max(0.1 + 0.05 * z, 0.0), 0.2, max(0.0, (lead - 0.02) / (1 + lead)))
        expected = [(1 - a) * float(q) + a * (j == k) for j, q in enumerate(p)]
        assert answer == pytest.approx(expected, abs=1e-9)


def test_mean_strength_is_mu_where_nothing_limits_it() -> None:
    clean = np.tile([1.0, 0.0, 0.0, 0.0, 0.0], (4000, 1))
    answers = guard()(clean, random_inputs(4000))
    share = 1 - answers[:, 0]
    assert share.mean() == pytest.approx(0.1, abs=4 * 0.05 / math.sqrt(4000))
    assert share.min() >= 0
    assert share.max() <= 0.2


def test_signs_change_the_strength_of_whole_cells() -> None:
    keys = small_keys(settings=GuardSettings(depth=0.8))
    clean = np.tile([1.0, 0.0, 0.0, 0.0, 0.0], (4000, 1))
    share = 1 - DynaMarks(keys, client_id="alice")(clean, random_inputs(4000))[:, 0]
    signs = keys.table("alice").signs[:2]
    expected = {0.1 * (1 + 0.8 * sign) for sign in signs}
    assert all(min(abs(m - share.mean()) for m in (0.02, 0.18, 0.1)) < 0.02 for _ in expected)


def test_the_label_channel_changes_few_queries_and_says_which() -> None:
    inputs, clean = random_inputs(20_000, shape=SHAPE), random_answers(20_000)
    guarded = guard(settings=GuardSettings(label_share=0.005)).answer(clean, inputs)
    moved = guarded.probabilities.argmax(axis=1) != clean.argmax(axis=1)
    assert np.array_equal(moved, guarded.relabelled)
    assert abs(moved.mean() - 0.005) < 4 * math.sqrt(0.005 / 20_000)


def test_torch_tensors_keep_their_type() -> None:
    import torch

    clean = torch.tensor(random_answers(5), dtype=torch.float32)
    answers = guard()(clean, torch.tensor(random_inputs(5)))
    assert isinstance(answers, torch.Tensor)
    assert answers.dtype == torch.float32
    assert np.allclose(answers.numpy(), guard()(clean.numpy(), random_inputs(5)), atol=1e-6)


def test_floats_on_the_grid_are_the_same_query() -> None:
    inputs, clean = random_inputs(5), random_answers(5)
    assert np.array_equal(guard()(clean, inputs), guard()(clean, inputs / 255.0))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([[0.5, 0.6, -0.1, 0.0, 0.0]]), "negative"),
        (np.array([[0.5, 0.1, 0.1, 0.0, 0.0]]), "sum to one"),
        (np.array([[math.nan, 0.1, 0.1, 0.0, 0.0]]), "finite"),
        (np.array([[0.5, 0.5]]), "shape"),
        (np.array([0.2] * 5), "shape"),
        (np.array([[3.0, -1.0, 2.0, 0.1, 0.2]]), "sum to one"),
    ],
)
def test_scores_that_are_no_distribution_are_refused(scores: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        guard()(scores, random_inputs(1))


@pytest.mark.parametrize(
    "inputs",
    [
        random_inputs(2),
        random_inputs(1).reshape(1, 64),
        random_inputs(1, shape=(1, 4, 4)),
        random_inputs(1).astype(np.int32),
        random_inputs(1) * 1.0,
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: np.ndarray) -> None:
    with pytest.raises(UsageError):
        guard()(random_answers(1), inputs)


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(UsageError, match="no key was drawn"):
        guard("mallory")


def test_a_guard_that_moves_a_first_class_is_a_bug() -> None:
    from auditor.guards import Guarded

    class Broken(Guard):
        name = "broken"

        @property
        def n_classes(self) -> int:
            return 5

        def _answer(self, probabilities: np.ndarray, inputs: np.ndarray) -> Guarded:
            return Guarded(probabilities=np.roll(probabilities, 1, axis=1), relabelled=np.zeros(len(inputs), bool))

    clean = random_answers(6)
    # The clean answer is sent instead: a broken guard must not change what the model says.
    assert np.array_equal(Broken()(clean, random_inputs(6)), clean)


def test_importing_guards_does_not_import_torch() -> None:
    code = "import sys, auditor.guards, auditor.guards.dynamarks, auditor.guards.dawn, auditor.guards.coswm; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 9, 21), (1, 5, 8), (3, 160, 140)])
def test_block_sums_are_those_of_the_keys(shape: tuple[int, int, int]) -> None:
    inputs = random_inputs(7, shape=shape)
    inputs[0] = 255
    draws = QueryDraws(SEED, shape=shape)
    expected = pooled(inputs, blocks(shape))
    assert np.array_equal(draws.sums(inputs), expected)
    levels = (expected.astype(np.int64) // (16 * blocks(shape).sum(axis=0).astype(np.int64))).astype(np.uint8)
    assert levels.max() == 15
    digests = [hmac.new(SEED, row.tobytes(), hashlib.sha256).digest()[:16] for row in levels]
    assert np.array_equal(draws.words(draws.sums(inputs)), np.frombuffer(b"".join(digests), dtype=">u4").reshape(-1, 4))


@pytest.mark.parametrize("bits", [0, 1, 2, 4])
def test_the_served_cells_are_those_of_the_judge(bits: int) -> None:
    keys = small_keys(settings=GuardSettings(bits=bits))
    inputs, clean = random_inputs(300), random_answers(300, sharpness=6.0)
    raised = np.argmax(DynaMarks(keys, client_id="alice")(clean, inputs) - clean, axis=1)
    moved = np.sort(clean, axis=1)[:, -1] > 0.9
    expected = np.array(keys.table("alice").targets)[probe_cells(keys, inputs, clean)]
    assert moved.sum() > 100
    assert np.mean(raised[moved] == expected[moved]) > 0.97


@pytest.mark.parametrize("precision", ["float16", "float64"])
def test_tensors_of_any_precision_keep_their_first_class(precision: str) -> None:
    torch = pytest.importorskip("torch")
    clean = torch.from_numpy(random_answers(4000, sharpness=1.0)).to(getattr(torch, precision))
    answers = DynaMarks(small_keys(), client_id="alice")(clean, random_inputs(4000))
    assert answers.dtype == clean.dtype
    assert torch.equal(answers.argmax(dim=1), clean.argmax(dim=1))
    # Eight bits are too few for rows that sum to one.
    with pytest.raises(UsageError, match="sum to one"):
        DynaMarks(small_keys(), client_id="alice")(clean.to(torch.bfloat16), random_inputs(4000))
