import contextlib
import hashlib
import hmac
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import SealError
from auditor.evidence.merkle import MerkleTree, audit_path, leaf_hash, leaf_salt, root_from_path, tree_root

# The eight inputs of the Certificate Transparency reference tests, with the roots over their prefixes.
CT_INPUTS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def plain_leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word by word."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])).digest()


@pytest.mark.parametrize("n", range(1, 9))
def test_published_roots_of_all_prefixes(n):
    leaves = [plain_leaf(bytes.fromhex(text)) for text in CT_INPUTS[:n]]
    assert tree_root(leaves).hex() == CT_ROOTS[n - 1]


@pytest.mark.parametrize("n", range(1, 70))
def test_root_follows_the_recursive_definition(n):
    leaves = [plain_leaf(bytes([i])) for i in range(n)]
    assert tree_root(leaves) == recursive_root(leaves)


@given(st.integers(1, 300), st.data())
@settings(max_examples=100, deadline=None)
def test_every_audit_path_leads_to_the_root_and_no_other_place(n, data):
    leaves = [plain_leaf(struct.pack(">I", i)) for i in range(n)]
    index = data.draw(st.integers(0, n - 1))
    path = audit_path(leaves, index)
    root = tree_root(leaves)
    assert root_from_path(leaves[index], index, n, path) == root
    other = data.draw(st.integers(0, n - 1))
    if other != index:
        assert _root_or_none(leaves[index], other, n, path) != root
        assert _root_or_none(leaves[other], index, n, path) != root


def _root_or_none(leaf, index, n, path):
    try:
        return root_from_path(leaf, index, n, path)
    except SealError:
        return None


@given(st.integers(0, 20), st.integers(0, 20), st.lists(st.binary(min_size=0, max_size=33), max_size=8))
@settings(max_examples=200)
def test_hostile_paths_raise_only_seal_errors(index, n, path):
    if index < n:
        with contextlib.suppress(SealError):
            assert len(root_from_path(plain_leaf(b"x"), index, n, path)) == 32
    else:
        with pytest.raises(SealError, match="outside"):
            root_from_path(plain_leaf(b"x"), index, n, path)


@pytest.mark.parametrize("change", ["shorter", "longer", "not a hash"])
def test_a_path_of_another_length_is_refused(change):
    leaves = [plain_leaf(bytes([i])) for i in range(6)]
    path = audit_path(leaves, 2)
    broken = {"shorter": path[:-1], "longer": (*path, path[0]), "not a hash": (b"short", *path[1:])}[change]
    with pytest.raises(SealError):
        root_from_path(leaves[2], 2, 6, broken)


def test_leaf_is_the_documented_hash():
    header, salt, data = b'{"index":0}', bytes(range(32)), b"pixels"
    written_out = b"\x00" + salt + len(header).to_bytes(4, "big") + header + data
    assert leaf_hash(header, salt, data) == hashlib.sha256(written_out).digest()


def test_salts_are_the_documented_keyed_hash_and_differ():
    seed = bytes(32)
    expected = hmac.new(seed, b"auditor/1 leaf salt\x00" + (7).to_bytes(8, "big"), hashlib.sha256).digest()
    assert leaf_salt(seed, 7) == expected
    assert len({leaf_salt(seed, i) for i in range(1000)}) == 1000


def test_an_empty_tree_commits_to_nothing():
    with pytest.raises(ValueError, match="empty"):
        MerkleTree([])
    with pytest.raises(ValueError, match="no leaf"):
        MerkleTree([plain_leaf(b"")]).path(1)
    with pytest.raises(ValueError, match="32 bytes"):
        leaf_hash(b"", b"short", b"")
