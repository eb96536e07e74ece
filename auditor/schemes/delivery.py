"""What the owner gets on disk: model, twin, sealed key set, the seal to publish, and the record of the training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditor import __version__
from auditor.canonical import JsonValue, canonical_bytes, decimal_string, sha256_hex
from auditor.errors import UsageError
from auditor.evidence.commitment import unpack_material
from auditor.evidence.encryption import Locks
from auditor.evidence.keyset import pack, write_sealed
from auditor.evidence.seal import RandomnessSource, Seal, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.models import save_model
from auditor.schemes.owner import OwnerResult
from auditor.training import TrainingPlan

TRAIN_SCHEMA = "mlaudit.train/1"
KEYS_NAME = "k.npz"
SEAL_NAME = "k.seal.json"
COMMITMENT_NAME = "k.commit.json"
RECORD_NAME = "train.json"
TWIN_NAME = "twin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Digests of what was written."""

    model_sha256: str
    seal_sha256: str
    owner_fingerprint: str


def new_folder(path: Path) -> Path:
    """Create an output folder, or take an empty one.

    Raises:
        UsageError: it is a file, or already holds something.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is there already and not an empty folder; nothing was written")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be created ({type(error).__name__})") from error
    return path


def deliver(
    folder: Path,
    *,
    result: OwnerResult,
    plan: TrainingPlan,
    key: SigningKey,
    sealed_at: str,
    keep_twin: bool = True,
    source: RandomnessSource = RandomnessSource.NONE,
    locks: Locks | None = None,
    division: Mapping[str, JsonValue] | None = None,
) -> Delivery:
    """Write ``model.safetensors``, ``model.json``, ``k.npz``, ``k.seal.json``, ``train.json`` and ``twin/``.

    Where the key set rests on a commitment, ``k.commit.json`` is written too, unless it is there already.

    Args:
        folder: an existing folder.
        result: what training returned.
        plan: the recipe it was trained with, for the record.
        key: the owner's signing key.
        sealed_at: the owner's clock, RFC 3339 UTC with milliseconds.
        keep_twin: whether the unmarked twin is written too.
        source: where the public randomness came from.
        locks: whom ``k.npz`` is encrypted to; None leaves it open.
        division: how the training images were divided, for the record.
    """
    description = save_model(folder, result.network, result.description)
    keys = result.keys
    commitment = unpack_material(keys.generation).commitment if keys.generation else b""
    if commitment and not (folder / COMMITMENT_NAME).exists():
        (folder / COMMITMENT_NAME).write_bytes(commitment)
    seal = Seal(
        keyset_id=keys.keyset_id,
        payload_sha256=sha256_hex(pack(keys)),
        merkle_root=keys.root().hex(),
        n_samples=len(keys.samples),
        spec=keys.spec,
        protocol=result.protocol,
        generator=keys.generator,
        model_sha256=description.weights_sha256,
        seed_commitment=seed_commitment(keys.secret_seed),
        owner_public_key=key.public.hex(),
        serial=1,
        previous_seal_sha256="",
        sealed_at=sealed_at,
        tool_version=__version__,
        commitment_sha256=sha256_hex(commitment) if commitment else "",
        randomness_source=source,
    )
    envelope = sign_seal(seal, key)
    write_sealed(folder / KEYS_NAME, keys=keys, seal_envelope=envelope, locks=locks)
    (folder / SEAL_NAME).write_bytes(envelope)
    if keep_twin:
        save_model(folder / TWIN_NAME, result.twin.network, result.twin.description)
    record: dict[str, JsonValue] = {
        "schema": TRAIN_SCHEMA,
        "tool_version": __version__,
        "sealed_at": sealed_at,
        "model_sha256": description.weights_sha256,
        "architecture": description.architecture,
        "seal_sha256": sha256_hex(envelope),
        "commitment_sha256": seal.commitment_sha256,
        "randomness_source": source.value,
        "owner_fingerprint": key.fingerprint,
        "plan": plan_object(plan),
        "measured": result.record.as_json(),
        **(division or {}),
    }
    (folder / RECORD_NAME).write_bytes(canonical_bytes(record) + b"\n")
    return Delivery(
        model_sha256=description.weights_sha256, seal_sha256=sha256_hex(envelope), owner_fingerprint=key.fingerprint
    )


def plan_object(plan: TrainingPlan) -> dict[str, JsonValue]:
    """Return a training plan for the record."""
    return {
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "learning_rate": decimal_string(plan.learning_rate),
        "drops": list(plan.drops),
        "momentum": decimal_string(plan.momentum),
        "weight_decay": decimal_string(plan.weight_decay),
        "label_smoothing": decimal_string(plan.label_smoothing),
        "shift": plan.shift,
        "flip": plan.flip,
        "seed": plan.seed,
        "device": plan.device.value,
        "threads": plan.threads,
        "bfloat16": plan.bfloat16,
        "compiled": plan.compiled,
    }
