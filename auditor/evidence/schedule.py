"""The drawn order of the questions: a pure function of sealed protocol and judge's nonce, re-derived by ``check``."""

import hashlib
import hmac
from functools import lru_cache

from auditor.draws import DrawStream
from auditor.errors import SealError
from auditor.records import Probe, Protocol, SampleKind


def kind_at(protocol: Protocol, index: int) -> SampleKind:
    """Return the kind of the sealed sample at ``index``: keys come first, then shams, then controls."""
    if not 0 <= index < protocol.n_keys + protocol.n_shams + protocol.n_controls:
        raise SealError(f"the seal knows no sample with index {index}")
    if index < protocol.n_keys:
        return SampleKind.KEY
    return SampleKind.SHAM if index < protocol.n_keys + protocol.n_shams else SampleKind.CONTROL


def opening_length(protocol: Protocol) -> int:
    """Return the number of probes of stage 1."""
    return protocol.opening_keys + protocol.n_shams + protocol.n_controls + protocol.n_repeats


MIN_NONCE_BYTES = 16
MAX_NONCE_BYTES = 64


def judge_seed(nonce: bytes, merkle_root: str) -> bytes:
    """Return the seed of the order that a judge's nonce draws: HMAC-SHA256(nonce, root).

    The root is fixed by the seal, so that neither side can choose both inputs once the nonce is given.

    Raises:
        SealError: the nonce is too short or too long.
    """
    if not MIN_NONCE_BYTES <= len(nonce) <= MAX_NONCE_BYTES:
        raise SealError(f"a judge's nonce has {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES} bytes")
    return hmac.digest(nonce, b"auditor/1 judge's order\x00" + bytes.fromhex(merkle_root), hashlib.sha256)


@lru_cache(maxsize=2)
def draw_schedule(protocol: Protocol, *, judge: bytes | None = None) -> tuple[Probe, ...]:
    """Return every planned probe in the order in which the suspect is asked.

    Stage 1 mixes the first ``opening_keys`` keys with all shams and controls in an order drawn from the sealed
    seed, so that a suspect cannot tell by position what is a key; ``n_repeats`` of these probes are asked again,
    at random places after their first asking. Stage 2 asks the remaining keys. Keys keep their sealed order
    throughout, because each step of the e-process belongs to one drawn key; with a judge's nonce they keep the order
    that the nonce draws, and the nonce thereby decides which keys are asked at all. A guard's probes come from a pool
    of which only stage 1 is asked: which ones is drawn by the nonce, and by the sealed seed where there is none.

    Args:
        protocol: the sealed protocol.
        judge: :func:`judge_seed`, or None for the order that the sealed seed draws.

    Raises:
        SealError: the protocol's numbers contradict one another.
    """
    if not 0 < protocol.opening_keys <= protocol.n_keys:
        raise SealError("the sealed number of opening keys does not fit the number of keys")
    if protocol.n_repeats > protocol.opening_keys + protocol.n_shams + protocol.n_controls:
        raise SealError("the seal states more repeats than there are samples to repeat")
    n_samples = protocol.n_keys + protocol.n_shams + protocol.n_controls
    stream = DrawStream(bytes.fromhex(protocol.order_seed) if judge is None else judge)
    in_sealed_order = judge is None and protocol.n_asked == protocol.n_keys
    keys = tuple(range(protocol.n_keys)) if in_sealed_order else stream.permutation(protocol.n_keys)
    opening = [*keys[: protocol.opening_keys], *range(protocol.n_keys, n_samples)]

    shuffled = [opening[i] for i in stream.permutation(len(opening))]
    key_slots = [slot for slot, index in enumerate(shuffled) if index < protocol.n_keys]
    for key, slot in zip(keys, key_slots, strict=False):
        shuffled[slot] = key

    asked: list[tuple[int, bool]] = [(index, False) for index in shuffled]
    for index in stream.choose(shuffled, protocol.n_repeats):
        first = asked.index((index, False))
        asked.insert(first + 1 + stream.integer(len(asked) - first), (index, True))
    asked += [(index, False) for index in keys[protocol.opening_keys : protocol.n_asked]]
    return tuple(
        Probe(position=position, index=index, kind=kind_at(protocol, index), repeat=repeat)
        for position, (index, repeat) in enumerate(asked)
    )
