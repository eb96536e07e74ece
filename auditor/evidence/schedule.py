"""The drawn order of the questions: a pure function of the sealed protocol, re-derived by ``check``."""

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


def draw_schedule(protocol: Protocol) -> tuple[Probe, ...]:
    """Return every planned probe in the order in which the suspect is asked.

    Stage 1 mixes the first ``opening_keys`` keys with all shams and controls in an order drawn from the sealed
    seed, so that a suspect cannot tell by position what is a key; ``n_repeats`` of these probes are asked again,
    at random places after their first asking. Stage 2 asks the remaining keys. Keys keep their sealed order
    throughout, because each step of the e-process belongs to one drawn key.

    Raises:
        SealError: the protocol's numbers contradict one another.
    """
    if not 0 < protocol.opening_keys <= protocol.n_keys:
        raise SealError("the sealed number of opening keys does not fit the number of keys")
    if protocol.n_repeats > protocol.opening_keys + protocol.n_shams + protocol.n_controls:
        raise SealError("the seal states more repeats than there are samples to repeat")
    n_samples = protocol.n_keys + protocol.n_shams + protocol.n_controls
    opening = [*range(protocol.opening_keys), *range(protocol.n_keys, n_samples)]

    stream = DrawStream(bytes.fromhex(protocol.order_seed))
    shuffled = [opening[i] for i in stream.permutation(len(opening))]
    key_slots = [slot for slot, index in enumerate(shuffled) if index < protocol.opening_keys]
    for key, slot in enumerate(key_slots):
        shuffled[slot] = key

    asked: list[tuple[int, bool]] = [(index, False) for index in shuffled]
    for index in stream.choose(shuffled, protocol.n_repeats):
        first = asked.index((index, False))
        asked.insert(first + 1 + stream.integer(len(asked) - first), (index, True))
    asked += [(index, False) for index in range(protocol.opening_keys, protocol.n_keys)]
    return tuple(
        Probe(position=position, index=index, kind=kind_at(protocol, index), repeat=repeat)
        for position, (index, repeat) in enumerate(asked)
    )
