"""What an owner keeps between commitment and randomness: seed, carriers and measurements, for the owner only."""

import os
from pathlib import Path

import numpy as np

from auditor.errors import UsageError
from auditor.evidence import encryption
from auditor.evidence.commitment import Material, open_commitment, pack_material, unpack_material
from auditor.evidence.safe_npz import ArrayRule, read_npz, write_npz
from auditor.evidence.signing import SigningKey
from auditor.guard_keys import MEASURED_SETTING, PROBE_DATA_SETTING, ProbeData, pack, unpack
from auditor.guards.owner import CommittedGuard

DRAFT_NAME = "k.guard-draft.npz"
LOCKED_NAME = DRAFT_NAME + ".age"
_RULE = ArrayRule(descr="|u1", n_dims=1)
_RULES = {"seed": _RULE, "material": _RULE, "measured": _RULE}


def write_draft(folder: Path, committed: CommittedGuard, *, locks: encryption.Locks | None = None) -> None:
    """Keep the draft as a new file that only its owner may read, encrypted where ``locks`` say to whom."""
    material = pack_material(Material(carriers=committed.carriers, commitment=committed.envelope))
    parts = {"seed": committed.seed, "material": material, "measured": pack(committed.measured)}
    data = write_npz({name: np.frombuffer(part, dtype=np.uint8) for name, part in parts.items()})
    held = locks or encryption.Locks()
    name = DRAFT_NAME if held.enc == encryption.OPEN else LOCKED_NAME
    data = encryption.encrypt(data, held)
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def read_draft(folder: Path, *, key: SigningKey, unlocks: encryption.Unlocks | None = None) -> CommittedGuard:
    """Return what ``--commit-only`` left in ``folder``.

    Raises:
        UsageError: there is nothing, nothing to open it with, or key or measurements are not those committed to.
        EvidenceError: the files are damaged, or encrypted to somebody else.
    """
    arrays = read_npz(_stored(folder, unlocks), rules=_RULES, what=DRAFT_NAME)
    material = unpack_material(arrays["material"].tobytes())
    commitment = open_commitment(material.commitment)
    measured = unpack(arrays["measured"].tobytes())
    if commitment.owner_public_key != key.public.hex():
        raise UsageError("the owner's key is not the one that was committed with")
    if commitment.generator.settings.get(MEASURED_SETTING) != measured.measured_sha256():
        raise UsageError("the measurements are not those that were committed to")
    n_probes, n_repeats = commitment.plan["opening_keys"], commitment.plan["n_repeats"]
    data_name = commitment.generator.settings.get("data")
    probe_data = commitment.generator.settings.get(PROBE_DATA_SETTING, ProbeData.HELD_OUT.value)
    if not (isinstance(n_probes, int) and isinstance(n_repeats, int) and isinstance(data_name, str)):
        raise UsageError(f"{DRAFT_NAME}: belongs to another kind of commitment")
    if probe_data not in tuple(ProbeData):
        raise UsageError(f"{DRAFT_NAME}: belongs to another kind of commitment")
    return CommittedGuard(
        seed=arrays["seed"].tobytes(),
        measured=measured,
        carriers=material.carriers,
        data=data_name,
        n_probes=n_probes,
        n_repeats=n_repeats,
        envelope=material.commitment,
        probe_data=ProbeData(probe_data),
    )


def _stored(folder: Path, unlocks: encryption.Unlocks | None) -> bytes:
    locked = (folder / LOCKED_NAME).is_file()
    try:
        data = (folder / (LOCKED_NAME if locked else DRAFT_NAME)).read_bytes()
    except OSError as error:
        raise UsageError(f"{folder}: no {DRAFT_NAME} of `guard --commit-only` in it") from error
    if not locked:
        return data
    by_passphrase = b"\n-> scrypt " in data[:200]
    enc = encryption.TO_PASSPHRASE if by_passphrase else encryption.TO_RECIPIENTS
    return encryption.decrypt(data, enc=enc, unlocks=unlocks, what=LOCKED_NAME)
