import hashlib
import hmac
import struct
from collections import Counter
from itertools import permutations
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.draws import DrawStream, Secret

SEED = bytes(range(32))
KNOWN_PERMUTATION = (7, 2, 5, 3, 0, 4, 1, 6)
KNOWN_NORMALS_SHA256 = "41b9ed74a0fdbaecb1b507a249c7c84e158c98ce2f3b0f137db3db58b81c1a93"


def hkdf_by_hand(key: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, an empty salt and 32 bytes of output."""
    extracted = hmac.new(b"\0" * 32, key, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def test_derivation_is_rfc_5869():
    secret = Secret(SEED, b"public")
    assert secret.derive("pattern") == hkdf_by_hand(SEED + b"public", b"auditor/1 pattern")


def test_purposes_and_randomness_are_independent():
    assert Secret(SEED).derive("a") != Secret(SEED).derive("b")
    assert Secret(SEED).derive("a") != Secret(SEED, b"x").derive("a")


def test_the_secret_does_not_print_itself():
    assert SEED.hex() not in repr(Secret(SEED))
    assert repr(SEED) not in f"{Secret(SEED)!r}"


def test_stream_is_shake_256_of_seed_block_and_size():
    assert DrawStream(SEED).octets(10) == hashlib.shake_256(SEED + struct.pack(">QI", 0, 4096)).digest(4096)[:10]


@given(st.lists(st.integers(0, 9000), max_size=6))
def test_octets_do_not_depend_on_how_they_are_asked_for_in_small_pieces(sizes):
    stream = DrawStream(SEED)
    whole = DrawStream(SEED)
    pieces = b"".join(stream.octets(min(n, 100)) for n in sizes)
    assert pieces == b"".join(whole.octets(1) for _ in range(len(pieces)))


def test_integers_are_uniform():
    stream = DrawStream(SEED)
    counts = Counter(stream.integer(7) for _ in range(21_000))
    assert stats.chisquare([counts[i] for i in range(7)]).pvalue > 1e-3


def test_normals_follow_the_normal_law():
    values = DrawStream(SEED).normal((200, 100)).ravel()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert np.array_equal(values * 1024, np.rint(values * 1024))


def test_permutations_and_derangements_are_uniform():
    stream = DrawStream(SEED)
    counts = Counter(stream.permutation(3) for _ in range(12_000))
    assert stats.chisquare([counts[p] for p in permutations(range(3))]).pvalue > 1e-3
    deranged = Counter(stream.derangement(4) for _ in range(18_000))
    assert len(deranged) == 9
    assert stats.chisquare(list(deranged.values())).pvalue > 1e-3


def test_choose_gives_distinct_items():
    chosen = DrawStream(SEED).choose(range(50), 20)
    assert len(set(chosen)) == 20
    with pytest.raises(ValueError, match="more items"):
        DrawStream(SEED).choose(range(3), 4)


def test_normals_are_the_inverse_distribution_function_of_the_stream():
    words = struct.unpack(">64I", DrawStream(SEED).octets(256))
    by_hand = [round(NormalDist().inv_cdf((w + 0.5) / 2**32) * 1024) / 1024 for w in words]
    assert DrawStream(SEED).normal((64,)).tolist() == by_hand


def test_known_answers_stay_the_same_on_every_platform():
    # A change here would make every sealed key set impossible to re-derive.
    stream = Secret(SEED).stream("known answer")
    assert stream.permutation(8) == KNOWN_PERMUTATION
    assert hashlib.sha256(stream.normal((1000,)).tobytes()).hexdigest() == KNOWN_NORMALS_SHA256
