"""Re-derivation of key sets: sound ones pass, and every kind of tampering fails with its named step."""

import dataclasses

import numpy as np
import pytest
from cases import NONCE, SEED, make_keys, small_protocol

from auditor.canonical import sha256_hex
from auditor.errors import EvidenceError, SealError
from auditor.evidence.commitment import open_commitment, pack_material, unpack_material
from auditor.evidence.generation import rederive
from auditor.evidence.keyset import check_sealed, pack, parse_sealed, sealed_bytes
from auditor.evidence.seal import GRINDING_LOG2, RandomnessSource, generation_problem, sign_seal
from auditor.evidence.signing import SigningKey

STRONG = "0.4"
OWNER = SigningKey.generate()


@pytest.fixture(scope="module")
def made():
    return make_keys(small_protocol(), owner=OWNER, beta=STRONG)


def reseal(keys, seal, owner, **changes):
    """Seal a changed key set anew, as a dishonest owner would, and open it as a judge does."""
    values = {"payload_sha256": sha256_hex(pack(keys)), "merkle_root": keys.root().hex()} | changes
    seal = dataclasses.replace(seal, **values)
    opened = check_sealed(parse_sealed(sealed_bytes(keys, seal_envelope=sign_seal(seal, owner))))
    return opened.keys, opened.seal


def fails(keys, seal, owner, step, **changes):
    keys, seal = reseal(keys, seal, owner, **changes)
    with pytest.raises(SealError, match=f"step '{step}'") as caught:
        rederive(keys, seal)
    assert "\n" not in str(caught.value)
    assert SEED.hex() not in str(caught.value)


def with_pixel(keys, index):
    inputs = keys.inputs.copy()
    inputs[index, 0, 0, 0] ^= 1
    return dataclasses.replace(keys, inputs=inputs)


def with_material(keys, **changes):
    material = dataclasses.replace(unpack_material(keys.generation), **changes)
    return dataclasses.replace(keys, generation=pack_material(material))


@pytest.mark.parametrize("source", list(RandomnessSource))
def test_a_sound_key_set_follows_from_its_commitment(source):
    randomness = b"" if source is RandomnessSource.NONE else b"\x31" * 32
    keys, seal, owner = make_keys(small_protocol(), source=source, randomness=randomness, beta=STRONG)
    keys, seal = reseal(keys, seal, owner)
    derived = rederive(keys, seal)
    assert derived.n_carriers == len(keys.samples)
    assert source.value in derived.summary
    assert generation_problem(seal) == ""


def test_randomness_draws_everything_but_the_carriers(made):
    keys, seal, _ = made
    drawn_anew = {"randomness": b"\x23" * 32, "dealt_by": NONCE}
    other, other_seal, _ = make_keys(small_protocol(), owner=OWNER, beta=STRONG, **drawn_anew)
    assert unpack_material(keys.generation).commitment == unpack_material(other.generation).commitment
    n_drawn = seal.protocol.n_keys + seal.protocol.n_shams
    assert (keys.inputs[:n_drawn] != other.inputs[:n_drawn]).any(axis=(1, 2, 3)).mean() > 0.9
    assert (keys.inputs[n_drawn:] == other.inputs[n_drawn:]).all()
    assert keys.keyset_id != other.keyset_id
    assert keys.salt_seed != other.salt_seed
    assert seal.protocol.order_seed != other_seal.protocol.order_seed


def test_an_altered_commitment(made):
    keys, seal, owner = made
    material = unpack_material(keys.generation)
    other = make_keys(small_protocol(p_min=0.4), owner=owner, beta=STRONG)[0]
    foreign = unpack_material(other.generation).commitment
    fails(with_material(keys, commitment=foreign), seal, owner, "commitment")
    # The seal names the other commitment: its plan is still not the sealed one.
    fails(with_material(keys, commitment=foreign), seal, owner, "commitment", commitment_sha256=sha256_hex(foreign))
    broken = material.commitment.replace(b'"payload":"e', b'"payload":"f')
    assert broken != material.commitment
    fails(with_material(keys, commitment=broken), seal, owner, "commitment", commitment_sha256=sha256_hex(broken))


def test_a_commitment_of_another_owner_or_a_later_date(made):
    keys, seal, owner = made
    foreign = unpack_material(make_keys(small_protocol(), beta=STRONG)[0].generation).commitment
    assert open_commitment(foreign).owner_public_key != seal.owner_public_key
    fails(with_material(keys, commitment=foreign), seal, owner, "commitment", commitment_sha256=sha256_hex(foreign))
    fails(keys, seal, owner, "commitment", sealed_at="2025-12-30T00:00:00.000Z")


def test_altered_randomness(made):
    keys, seal, owner = made
    fails(with_material(keys, randomness=b"\x21" * 32), seal, owner, "randomness")
    # The seal follows the altered randomness: then the carriers were not dealt by it.
    protocol = dataclasses.replace(seal.protocol, randomness="21" * 32)
    changed = with_material(keys, randomness=b"\x21" * 32)
    fails(changed, dataclasses.replace(seal, protocol=protocol), owner, "pattern and labels")


def test_a_token_over_something_else():
    keys, seal, owner = make_keys(small_protocol(), source=RandomnessSource.TOKEN, beta=STRONG)
    token = b"token" + bytes(32)
    protocol = dataclasses.replace(seal.protocol, randomness=sha256_hex(token))
    fails(with_material(keys, randomness=token), dataclasses.replace(seal, protocol=protocol), owner, "randomness")


def test_a_swapped_carrier(made):
    keys, seal, owner = made
    carriers = unpack_material(keys.generation).carriers
    inputs = carriers.inputs.copy()
    inputs[[0, 4]] = inputs[[4, 0]]
    fails(with_material(keys, carriers=dataclasses.replace(carriers, inputs=inputs)), seal, owner, "carriers")
    items = (dataclasses.replace(carriers.items[0], natural=3), *carriers.items[1:])
    fails(with_material(keys, carriers=dataclasses.replace(carriers, items=items)), seal, owner, "carriers")


def test_one_changed_pixel_of_a_resealed_key_set(made):
    keys, seal, owner = made
    n_keys, n_shams = seal.protocol.n_keys, seal.protocol.n_shams
    fails(with_pixel(keys, 0), seal, owner, "keys")
    fails(with_pixel(keys, n_keys), seal, owner, "sham patterns")
    fails(with_pixel(keys, n_keys + n_shams), seal, owner, "controls")


def test_replaced_sham_patterns(made):
    keys, seal, owner = made
    first, last = seal.protocol.n_keys, seal.protocol.n_keys + seal.protocol.n_shams
    inputs = keys.inputs.copy()
    # Shams without any pattern would never hit and lower the null rate.
    inputs[first:last] = unpack_material(keys.generation).carriers.inputs[first:last]
    fails(dataclasses.replace(keys, inputs=inputs), seal, owner, "sham patterns")


def test_another_label_or_order(made):
    keys, seal, owner = made
    samples = (dataclasses.replace(keys.samples[0], expected=1), *keys.samples[1:])
    fails(dataclasses.replace(keys, samples=samples), seal, owner, "pattern and labels")
    protocol = dataclasses.replace(seal.protocol, order_seed="00" * 32)
    fails(keys, dataclasses.replace(seal, protocol=protocol), owner, "names and order")


def test_another_seed_than_the_committed_one(made):
    keys, seal, owner = made
    other = make_keys(small_protocol(), owner=owner, seed=b"\x07" * 32, beta=STRONG)[0]
    mixed = dataclasses.replace(other, generation=keys.generation)
    with pytest.raises(SealError, match="seed"):
        reseal(mixed, seal, owner)


def test_without_randomness_the_tries_must_be_declared():
    _, seal, owner = make_keys(small_protocol(), source=RandomnessSource.NONE, randomness=b"")
    assert seal.protocol.grinding_log2 == GRINDING_LOG2 == 64
    hidden = dataclasses.replace(seal, protocol=dataclasses.replace(seal.protocol, grinding_log2=10))
    with pytest.raises(SealError, match="2\\^64 tries must be declared"):
        sign_seal(hidden, owner)
    claimed = dataclasses.replace(seal, randomness_source=RandomnessSource.BEACON)
    with pytest.raises(SealError, match="source"):
        sign_seal(claimed, owner)


@pytest.mark.parametrize("change", [{"name": "imported"}, {"name": "else"}, {"version": 2}])
def test_generators_nobody_can_repeat(made, change):
    _, seal, _ = made
    generator = dataclasses.replace(seal.generator, **change)
    assert "not verifiable" in generation_problem(dataclasses.replace(seal, generator=generator))
    assert "not verifiable" in generation_problem(dataclasses.replace(seal, commitment_sha256=""))


def test_material_that_is_cut_or_flipped_never_passes(made):
    keys, seal, _ = made
    data = keys.generation
    rng = np.random.default_rng(1)
    for position in rng.integers(0, len(data), 60):
        flipped = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        for altered in (flipped, data[:position]):
            with pytest.raises(EvidenceError):
                rederive(dataclasses.replace(keys, generation=altered), seal)
