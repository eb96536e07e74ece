"""Key sets encrypted to their parties: pyrage and Debian's age read each other."""

import shutil
import subprocess

import pyrage
import pytest
from cases import seal_keys, small_protocol

from auditor.errors import EvidenceError, UsageError
from auditor.evidence.encryption import Locks, Unlocks, decrypt, encrypt, identities_from_text
from auditor.evidence.keyset import open_sealed, pack, read_sealed

needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="Debian's package age is not installed")
OWNER, JUDGE, STRANGER = (pyrage.x25519.Identity.generate() for _ in range(3))
PARTIES = Locks(recipients=(str(OWNER.to_public()), str(JUDGE.to_public())))


@pytest.fixture
def locked(tmp_path):
    seal_keys(tmp_path / "k.npz", small_protocol(), locks=PARTIES)
    return tmp_path / "k.npz"


@pytest.mark.parametrize("who", [OWNER, JUDGE])
def test_every_recipient_opens_the_key_set_and_its_seal_holds(locked, who):
    opened = open_sealed(locked, unlocks=Unlocks(identities=(str(STRANGER), str(who))))
    assert opened.seal.n_samples == len(opened.keys.samples)
    assert b"secret_seed" not in locked.read_bytes()


def test_the_seal_does_not_depend_on_the_encryption(tmp_path, locked):
    opened = open_sealed(locked, unlocks=Unlocks(identities=(str(OWNER),)))
    assert pack(opened.keys) == encrypt(pack(opened.keys), Locks())
    assert read_sealed(locked).envelope == opened.envelope


def test_a_stranger_gets_one_line(locked):
    with pytest.raises(EvidenceError, match="cannot be decrypted") as caught:
        open_sealed(locked, unlocks=Unlocks(identities=(str(STRANGER),)))
    assert "\n" not in str(caught.value)
    assert str(STRANGER) not in str(caught.value)
    with pytest.raises(UsageError, match="identity is needed"):
        open_sealed(locked)
    with pytest.raises(UsageError, match="not an age identity"):
        open_sealed(locked, unlocks=Unlocks(identities=("AGE-SECRET-KEY-1NONSENSE",)))


def test_a_passphrase_is_the_alternative(tmp_path):
    seal_keys(tmp_path / "k.npz", small_protocol(), locks=Locks(passphrase="correct horse"))
    assert read_sealed(tmp_path / "k.npz").enc == "age-scrypt"
    assert open_sealed(tmp_path / "k.npz", unlocks=Unlocks(passphrase="correct horse")).keys.samples
    with pytest.raises(EvidenceError, match="cannot be decrypted"):
        open_sealed(tmp_path / "k.npz", unlocks=Unlocks(passphrase="wrong"))
    with pytest.raises(UsageError, match="passphrase, which was not given"):
        open_sealed(tmp_path / "k.npz")


def test_secrets_do_not_show():
    assert "horse" not in repr(Locks(passphrase="correct horse"))
    assert "SECRET" not in repr(Unlocks(identities=(str(OWNER),), passphrase="horse"))


def test_locks_that_make_no_sense():
    with pytest.raises(UsageError, match="not both"):
        Locks(recipients=("age1x",), passphrase="x")
    with pytest.raises(UsageError, match="not an age recipient"):
        encrypt(b"x", Locks(recipients=("age1x",)))
    with pytest.raises(UsageError, match="no age identity"):
        identities_from_text("# created\n\n", what="id.txt")


@needs_age
def test_debians_age_decrypts_the_payload_to_the_sealed_digest(locked, tmp_path):
    (tmp_path / "id.txt").write_text(f"# judge\n{JUDGE}\n")
    (tmp_path / "payload.age").write_bytes(read_sealed(locked).payload)
    command = ["age", "--decrypt", "-i", str(tmp_path / "id.txt"), str(tmp_path / "payload.age")]
    plain = subprocess.run(command, capture_output=True, check=True).stdout
    opened = open_sealed(locked, unlocks=Unlocks(identities=(str(JUDGE),)))
    assert plain == pack(opened.keys)


@needs_age
def test_what_debians_age_encrypts_is_read(tmp_path):
    command = ["age", "-r", str(OWNER.to_public())]
    stored = subprocess.run(command, input=b"payload", capture_output=True, check=True).stdout
    unlocks = Unlocks(identities=identities_from_text(f"{OWNER}\n", what="id"))
    assert decrypt(stored, enc="age-x25519", unlocks=unlocks, what="k.npz") == b"payload"


def test_altered_ciphertext_never_opens():
    stored = encrypt(b"payload" * 20, PARTIES)
    unlocks = Unlocks(identities=(str(OWNER),))
    for position in range(0, len(stored), 7):
        altered = stored[:position] + bytes([stored[position] ^ 1]) + stored[position + 1 :]
        for data in (altered, stored[:position]):
            with pytest.raises(EvidenceError):
                decrypt(data, enc="age-x25519", unlocks=unlocks, what="k.npz")
