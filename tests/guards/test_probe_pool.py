"""Which probes of the sealed pool are asked: the judge's nonce picks them, and no table or owner has a say in it."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocols import a_protocol

from auditor import casefile, datasets
from auditor.audit import Request, tighten
from auditor.errors import SealError, UsageError
from auditor.evidence.generation import rederive
from auditor.evidence.keyset import OpenedKeySet, open_sealed
from auditor.evidence.schedule import draw_schedule, judge_seed, opening_length
from auditor.evidence.seal import RandomnessSource
from auditor.evidence.signing import SigningKey
from auditor.guard_keys import GuardSettings, ProbeData, unpack
from auditor.guards.owner import CommittedGuard, GuardSizes, commit_guard, seal_guard
from auditor.guards.probes import pool_size
from auditor.models import LoadedModel, build, describe
from auditor.records import Design, NullBasis, Probe, Protocol, SampleKind

NONCE = bytes(range(32))
ROOT = "ab" * 32
SIZES = GuardSizes(n_probes=20, n_pool=60, n_controls=10, n_repeats=5)


def a_guards_protocol(**changes: object) -> Protocol:
    plain = {
        "null_basis": NullBasis.DRAWN_TABLE, "design": Design.FIXED, "n_shams": 0, "n_sham_patterns": 0,
        "n_keys": 60, "opening_keys": 20, "n_controls": 10, "n_repeats": 5,
    }  # fmt: skip
    return a_protocol(**(plain | changes))


def picked(schedule: tuple[Probe, ...]) -> list[int]:
    return [probe.index for probe in schedule if probe.kind is SampleKind.KEY and not probe.repeat]


def nonce(number: int) -> bytes:
    return judge_seed(number.to_bytes(16, "big"), ROOT)


@pytest.mark.parametrize("by_nonce", [True, False])
def test_every_subset_of_the_pool_is_equally_likely_in_every_order(by_nonce: bool) -> None:
    """Pool of 4, two asked: the twelve ordered pairs against chi-square, by nonce and by the sealed seed."""
    counts, rounds = Counter(), 6_000
    for number in range(rounds):
        protocol = a_guards_protocol(n_keys=4, opening_keys=2, n_controls=1, n_repeats=0)
        if by_nonce:
            schedule = draw_schedule(protocol, judge=nonce(number))
        else:
            schedule = draw_schedule(replace(protocol, order_seed=number.to_bytes(32, "big").hex()))
        counts[tuple(picked(schedule))] += 1
    assert len(counts) == 12
    expected = rounds / 12
    # 31.3 is exceeded with probability 0.001 at 11 degrees of freedom.
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 31.3


def test_the_probes_that_an_owner_would_like_are_picked_no_more_often_than_any() -> None:
    """Whatever two of five probes the tables make attractive, one nonce in ten picks exactly them."""
    protocol = a_guards_protocol(n_keys=5, opening_keys=2, n_controls=1, n_repeats=0)
    counts = Counter(tuple(sorted(picked(draw_schedule(protocol, judge=nonce(n))))) for n in range(4_000))
    # 400 ± 4.5 standard deviations of a binomial with 4,000 trials and rate 1/10.
    assert all(314 < counts[pair] < 486 for pair in combinations(range(5), 2))


@settings(max_examples=40)
@given(st.binary(min_size=16, max_size=64), st.integers(1, 40), st.integers(0, 30))
def test_as_many_are_asked_as_were_sealed_and_nothing_after_them(given_nonce: bytes, n_asked: int, spare: int) -> None:
    protocol = a_guards_protocol(n_keys=n_asked + spare, opening_keys=n_asked)
    schedule = draw_schedule(protocol, judge=judge_seed(given_nonce, ROOT))
    assert len(schedule) == opening_length(protocol)
    assert len(set(picked(schedule))) == len(picked(schedule)) == n_asked == protocol.n_asked


def test_older_seals_whose_pool_is_asked_whole_keep_their_order() -> None:
    protocol = a_guards_protocol(n_keys=20)
    assert picked(draw_schedule(protocol)) == list(range(20))
    assert sorted(picked(draw_schedule(protocol, judge=nonce(1)))) == list(range(20))


def test_other_schemes_may_still_ask_every_key() -> None:
    protocol = a_protocol()
    assert protocol.n_asked == protocol.n_keys
    assert len(picked(draw_schedule(protocol))) == 60


def test_no_request_asks_more_of_the_pool() -> None:
    protocol = a_guards_protocol()
    assert tighten(protocol, Request()).max_keys == 20
    assert tighten(protocol, Request()).deviations == ()
    for wrong in (19, 21, 60):
        with pytest.raises(UsageError):
            tighten(protocol, Request(max_keys=wrong))


@pytest.mark.parametrize(
    ("sizes", "data", "wanted"),
    [
        (GuardSizes(n_probes=500), ProbeData.HELD_OUT, 1_000),
        (GuardSizes(n_probes=1_500), ProbeData.HELD_OUT, 1_960),
        (GuardSizes(n_probes=1_990), ProbeData.HELD_OUT, 1_990),
        (GuardSizes(n_probes=5_000), ProbeData.MIXTURES, 10_000),
        (GuardSizes(n_probes=500, n_pool=600), ProbeData.HELD_OUT, 600),
    ],
)
def test_the_pool_is_twice_what_is_asked_as_far_as_pictures_reach(
    sizes: GuardSizes, data: ProbeData, wanted: int
) -> None:
    assert pool_size(sizes, data=data, n_held_out=2_000) == wanted


def committed_with(key: SigningKey, model: LoadedModel, sizes: GuardSizes) -> CommittedGuard:
    return commit_guard(
        model=model, dataset=datasets.load("digits"), clients=("alice", "bob"), settings=GuardSettings(), sizes=sizes,
        seed=b"\x05" * 32, key=key, committed_at="2026-01-01T00:00:00.000Z",
    )  # fmt: skip


def sealed_as(
    folder: Path, committed: CommittedGuard, *, key: SigningKey, model: LoadedModel, drawn: bytes
) -> OpenedKeySet:
    folder.mkdir()
    seal_guard(
        folder, committed=committed, model=model, dataset=datasets.load("digits"), key=key,
        sealed_at="2026-01-02T00:00:00.000Z", source=RandomnessSource.NONCE, randomness=drawn,
    )  # fmt: skip
    return open_sealed(folder / "k.npz")


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    data = datasets.load("digits")
    description = describe("small-cnn", input_shape=data.spec.shape, classes=data.classes)
    network = build(description, seed=1)
    network.eval()
    return LoadedModel(network=network, description=replace(description, weights_sha256="ab" * 32))


@pytest.fixture(scope="module")
def opened(key: SigningKey, model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> OpenedKeySet:
    folder = tmp_path_factory.mktemp("pool") / "g"
    return sealed_as(folder, committed_with(key, model, SIZES), key=key, model=model, drawn=b"\x07" * 32)


def test_commitment_and_seal_state_both_numbers(opened: OpenedKeySet) -> None:
    protocol = opened.seal.protocol
    assert (protocol.n_asked, protocol.n_keys) == (20, 60)
    assert len(unpack(opened.keys.guard).reference) == 60
    assert "all samples follow" in rederive(opened.keys, opened.seal).summary


def test_randomness_that_comes_later_draws_tables_and_pick_but_not_the_pool(
    opened: OpenedKeySet, key: SigningKey, model: LoadedModel, tmp_path: Path
) -> None:
    committed = committed_with(key, model, SIZES)
    other = sealed_as(tmp_path / "g", committed, key=key, model=model, drawn=b"\x08" * 32)
    assert (opened.keys.inputs == other.keys.inputs).all()
    tables = [unpack(each.keys.guard).table("alice").targets for each in (opened, other)]
    assert tables[0] != tables[1]
    picks = [picked(draw_schedule(each.seal.protocol)) for each in (opened, other)]
    assert sorted(picks[0]) != sorted(picks[1])
    assert all(sorted(pick) != list(range(20)) for pick in picks)


def test_an_owner_who_knows_the_tables_can_change_nothing_that_decides_the_pick(opened: OpenedKeySet) -> None:
    """The pick follows from nonce, root, numbers and seed: each of them is committed, or drawn and derived again."""
    keys, seal = opened.keys, opened.seal

    def with_protocol(**changes: object) -> object:
        return replace(seal, protocol=replace(seal.protocol, **changes))  # type: ignore[arg-type]

    order = [1, 0, *range(2, len(keys.samples))]
    moved = replace(keys, inputs=keys.inputs[order].copy())
    fewer = [*range(40), *range(60, len(keys.samples))]
    smaller = replace(
        keys,
        samples=tuple(replace(keys.samples[row], index=index) for index, row in enumerate(fewer)),
        inputs=keys.inputs[fewer].copy(),
    )
    for changed_keys, changed_seal, step in (
        (keys, with_protocol(opening_keys=19), "commitment"),
        (keys, with_protocol(n_keys=61), "commitment"),
        (smaller, with_protocol(n_keys=40), "commitment"),
        (keys, with_protocol(order_seed="00" * 32), "names and order"),
        (moved, seal, "keys"),
        (smaller, seal, "pattern and labels"),
        (replace(keys, salt_seed=bytes(32)), seal, "names and order"),
    ):
        with pytest.raises(SealError, match=f"step '{step}'"):
            rederive(changed_keys, changed_seal)  # type: ignore[arg-type]


def test_the_nonce_picks_others_than_the_sealed_seed_does(opened: OpenedKeySet) -> None:
    request = casefile.request(opened, alpha=None, max_queries=None, operator="", judge_nonce=NONCE)
    assert request.max_keys is None
    judge = judge_seed(NONCE, opened.seal.merkle_root)
    assert sorted(picked(draw_schedule(opened.seal.protocol, judge=judge))) != sorted(
        picked(draw_schedule(opened.seal.protocol))
    )


def test_too_small_a_pool_is_refused(key: SigningKey, model: LoadedModel) -> None:
    with pytest.raises(UsageError, match="20 probes cannot be asked from a pool of 19"):
        committed_with(key, model, replace(SIZES, n_pool=19))
    with pytest.raises(UsageError, match="holds out 250"):
        committed_with(key, model, replace(SIZES, n_pool=241))
