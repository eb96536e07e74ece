"""Opens the guard inside a sealed key set, for one client and one model."""

from pathlib import Path

from auditor.errors import MalformedError, UsageError
from auditor.evidence.encryption import Unlocks
from auditor.evidence.keyset import OpenedKeySet, open_sealed
from auditor.guard_keys import GuardKeys, unpack
from auditor.guards.dynamarks import DynaMarks


def open_guard(
    path: Path,
    *,
    client_id: str,
    model_sha256: str | None,
    classes: tuple[str, ...] | None,
    unlocks: Unlocks | None = None,
) -> DynaMarks:
    """Return the guard of one client; see :meth:`auditor.guards.base.Guard.open`."""
    keys = guard_keys(open_sealed(path, unlocks=unlocks))
    require_model(keys, model_sha256=model_sha256, classes=classes)
    return DynaMarks(keys, client_id=client_id)


def guard_keys(opened: OpenedKeySet) -> GuardKeys:
    """Return the guard's keys inside an opened key set.

    Raises:
        UsageError: the key set belongs to a mark that a training carries.
        MalformedError: the guard inside contradicts the seal.
    """
    if not opened.keys.guard:
        raise UsageError(f"the key set holds no guard; its scheme is {opened.seal.protocol.scheme}")
    keys = unpack(opened.keys.guard)
    if keys.model_sha256 != opened.seal.model_sha256 or keys.shape != opened.seal.spec.shape:
        raise MalformedError("the guard inside the key set belongs to another model than the seal")
    return keys


def require_model(keys: GuardKeys, *, model_sha256: str | None, classes: tuple[str, ...] | None) -> None:
    """Refuse a model that the guard was not made for.

    Raises:
        UsageError: other weights, or other outputs or another order of them.
    """
    if model_sha256 is not None and model_sha256 != keys.model_sha256:
        raise UsageError("the guard was made for another model: the weights differ from the sealed digest")
    if classes is not None and classes != keys.classes:
        raise UsageError("the guard was made for other output labels, or for another order of them")
