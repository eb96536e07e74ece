"""Encryption of the key set's payload to its parties, in the age format (age-encryption.org/v1).

The seal names the digest of the plaintext, so that a key set can be encrypted anew for another judge without a new
seal. Recipients are X25519 keys (``age1…``); a passphrase (scrypt) is the alternative, never an addition.
"""

from dataclasses import dataclass, field
from types import ModuleType

from auditor.errors import EvidenceError, MissingPartError, UsageError

OPEN = "none"
TO_RECIPIENTS = "age-x25519"
TO_PASSPHRASE = "age-scrypt"
ENCODINGS = (OPEN, TO_RECIPIENTS, TO_PASSPHRASE)
MAX_RECIPIENTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Locks:
    """Whom a payload is encrypted to; without recipients and passphrase it stays open."""

    recipients: tuple[str, ...] = ()
    passphrase: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.recipients and self.passphrase:
            raise UsageError("a key set is encrypted to recipients or with a passphrase, not both")
        if len(self.recipients) > MAX_RECIPIENTS:
            raise UsageError(f"at most {MAX_RECIPIENTS} recipients")

    @property
    def enc(self) -> str:
        """Return the name of the encryption for the file's header."""
        if self.recipients:
            return TO_RECIPIENTS
        return TO_PASSPHRASE if self.passphrase else OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocks:
    """What a reader can open an encrypted payload with; its text form shows nothing of it."""

    identities: tuple[str, ...] = field(default=(), repr=False)
    """Secret keys, ``AGE-SECRET-KEY-1…``."""
    passphrase: str = field(default="", repr=False)


def identities_from_text(text: str, *, what: str) -> tuple[str, ...]:
    """Return the secret keys of an identity file as ``age-keygen`` writes it.

    Raises:
        UsageError: there is none.
    """
    found = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if not found:
        raise UsageError(f"{what}: no age identity in it")
    return found


def encrypt(payload: bytes, locks: Locks) -> bytes:
    """Return the stored form of a payload.

    Raises:
        UsageError: a recipient is not an X25519 age recipient.
    """
    if locks.enc == OPEN:
        return payload
    pyrage = _pyrage()
    if locks.passphrase:
        return bytes(pyrage.passphrase.encrypt(payload, locks.passphrase))
    try:
        recipients = [pyrage.x25519.Recipient.from_str(text) for text in locks.recipients]
    except pyrage.RecipientError as error:
        raise UsageError("a recipient is not an age recipient (age1…)") from error
    return bytes(pyrage.encrypt(payload, recipients))


def decrypt(stored: bytes, *, enc: str, unlocks: Unlocks | None, what: str) -> bytes:
    """Return the payload.

    Raises:
        UsageError: it is encrypted and nothing to open it with was given.
        EvidenceError: what was given does not open it, or the ciphertext was altered.
    """
    if enc == OPEN:
        return stored
    held = unlocks or Unlocks()
    if enc == TO_RECIPIENTS and not held.identities:
        raise UsageError(f"{what} is encrypted to age recipients; an identity is needed to open it")
    if enc == TO_PASSPHRASE and not held.passphrase:
        raise UsageError(f"{what} is encrypted with a passphrase, which was not given")
    pyrage = _pyrage()
    try:
        if enc == TO_PASSPHRASE:
            return bytes(pyrage.passphrase.decrypt(stored, held.passphrase))
        identities = [pyrage.x25519.Identity.from_str(text) for text in held.identities]
        return bytes(pyrage.decrypt(stored, identities))
    except pyrage.IdentityError as error:
        raise UsageError("an identity is not an age identity (AGE-SECRET-KEY-1…)") from error
    except pyrage.DecryptError as error:
        raise EvidenceError(f"{what} cannot be decrypted: it is not meant for this key, or was altered") from error


def _pyrage() -> ModuleType:
    try:
        import pyrage
        import pyrage.passphrase
        import pyrage.x25519
    except ImportError as error:
        raise MissingPartError("an encrypted key set needs the package pyrage") from error
    module: ModuleType = pyrage
    return module
