"""A Merkle tree over salted leaves: commit to many samples, open a few, reveal nothing about the rest.

The tree is that of RFC 6962 (SHA-256, one tag byte before leaves and another before nodes). A leaf is::

    SHA-256(0x00 | salt | u32 header length, big-endian | header | data)

Without a salt a ten-class label or a public image could be guessed from its leaf.
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence

from auditor.errors import SealError

HASH_BYTES = 32
LEAF_TAG = b"\x00"
NODE_TAG = b"\x01"
SALT_DOMAIN = b"auditor/1 leaf salt\x00"


def leaf_salt(salt_seed: bytes, index: int) -> bytes:
    """Return the 32-byte salt of leaf ``index``: HMAC-SHA256(seed, domain | u64 index, big-endian)."""
    return hmac.digest(salt_seed, SALT_DOMAIN + struct.pack(">Q", index), "sha256")


def leaf_hash(header: bytes, salt: bytes, data: bytes) -> bytes:
    """Return the hash of one salted leaf.

    Args:
        header: canonical JSON that says what ``data`` is.
        salt: 32 bytes.
        data: raw array bytes, C order.
    """
    if len(salt) != HASH_BYTES:
        raise ValueError("a salt has 32 bytes")
    return hashlib.sha256(b"".join((LEAF_TAG, salt, struct.pack(">I", len(header)), header, data))).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(NODE_TAG + left + right).digest()


class MerkleTree:
    """All levels of one tree, so that many audit paths cost one pass over the leaves."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ValueError("an empty tree commits to nothing")
        levels = [tuple(leaves)]
        while len(levels[-1]) > 1:
            level = levels[-1]
            above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            if len(level) % 2:
                # A node without a neighbour moves up unchanged: the same tree as RFC 6962's recursive split.
                above.append(level[-1])
            levels.append(tuple(above))
        self._levels = tuple(levels)

    @property
    def root(self) -> bytes:
        """The 32-byte root."""
        return self._levels[-1][0]

    def path(self, index: int) -> tuple[bytes, ...]:
        """Return the audit path of a leaf: its sibling hashes from the bottom up."""
        if not 0 <= index < len(self._levels[0]):
            raise ValueError("no leaf has this index")
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index //= 2
        return tuple(path)


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over one or more leaf hashes."""
    return MerkleTree(leaves).root


def audit_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the audit path of one leaf; see :class:`MerkleTree` for many."""
    return MerkleTree(leaves).path(index)


def root_from_path(leaf: bytes, index: int, n_leaves: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a leaf hash and its audit path lead to; the caller compares it with the sealed root.

    Raises:
        SealError: the index lies outside the tree, or the path has the wrong length for this place in it.
    """
    if not 0 <= index < n_leaves:
        raise SealError("an opening names a leaf outside the sealed tree")
    rest = list(path)
    found, last = leaf, n_leaves - 1
    while last > 0:
        if index % 2 or index < last:
            if not rest or len(rest[0]) != HASH_BYTES:
                raise SealError("an audit path is too short or holds something that is not a hash")
            sibling = rest.pop(0)
            found = node_hash(sibling, found) if index % 2 else node_hash(found, sibling)
        index, last = index // 2, last // 2
    if rest:
        raise SealError("an audit path is too long")
    return found
