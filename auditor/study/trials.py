"""One trial of a dry run: who is audited, and what came out; frozen records that travel between machines."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from auditor.errors import MalformedError
from auditor.study.config import Value

Files = Mapping[str, bytes]
"""A small folder as names and bytes, so that a worker needs no shared disk."""

RECORD_SCHEMA = "mlaudit.trial/1"


class Role(StrEnum):
    """Where a suspect of a dry run comes from."""

    COPY = "copy"
    """The owner's model, unchanged."""
    SURROGATE = "surrogate"
    """What an attack made of it."""
    INNOCENT = "innocent"
    """A model that never saw a mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerSpec:
    """An owner's model and key set, as far as they decide the outcome."""

    data: str
    scheme: str
    settings: Mapping[str, Value]
    architecture: str
    seed: int
    epochs: int | None = None
    keys: int | None = None
    owner_share: float | None = None

    @property
    def key(self) -> str:
        """Name that is equal for equal content."""
        return f"{self.scheme}-{self.seed}-{digest(asdict(self))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InnocentSpec:
    """A model that never saw a mark."""

    data: str
    architecture: str
    seed: int
    epochs: int | None = None
    owner_share: float | None = None

    @property
    def key(self) -> str:
        """Name that is equal for equal content."""
        return f"innocent-{self.architecture}-{self.seed}-{digest(asdict(self))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One audit of one suspect with one owner's keys."""

    owner: OwnerSpec
    scheme_title: str
    role: Role
    suspect_title: str
    """What tables call the suspect: the attack's label, ``copy`` or ``innocent``."""
    attack: str = ""
    attack_settings: Mapping[str, Value] = field(default_factory=dict)
    attack_data: str = "half-test"
    foreign: str = ""
    strength: float | None = None
    innocent: InnocentSpec | None = None
    alpha: float | None = None

    @property
    def key(self) -> str:
        """Name that is equal for equal content; labels do not count."""
        content = asdict(self)
        for name in ("scheme_title", "suspect_title", "strength"):
            del content[name]
        return f"{self.role.value}-{digest(content)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """What one audit showed; everything the tables and plots are made of."""

    key: str
    scheme: str
    role: str
    seed: int
    attack: str
    settings: Mapping[str, Value]
    accuracy_before: float
    """Task accuracy of the owner's model on the evaluation images."""
    accuracy_after: float
    """Task accuracy of the suspect on the same images."""
    training_queries: int
    """Images that the attack asked the owner's model about."""
    status: str
    reason: str
    hits: int
    """Hits among the keys that the audit asked."""
    asked: int
    all_hits: int
    """Hits when every sealed key is asked, whatever the audit decided."""
    all_bets: int
    """Answers, over all sealed keys, that differ from the natural label, or are one of the two classes drawn from."""
    n_keys: int
    null_basis: str
    null_rate: float
    alpha: float
    p_min: float
    log10_p: float
    keys_until_decision: int | None
    total_queries: int
    seconds: float
    tool_version: str

    def as_bytes(self) -> bytes:
        """Return the record as one line of JSON."""
        return json.dumps({"schema": RECORD_SCHEMA, **asdict(self)}, sort_keys=True).encode() + b"\n"


def digest(content: object) -> str:
    """Return a short digest of a specification."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return a small folder as names and bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def read_record(path: Path) -> TrialRecord:
    """Return a trial's record.

    Raises:
        MalformedError: not a record of this version.
    """
    try:
        values = json.loads(path.read_bytes())
        if values.pop("schema") != RECORD_SCHEMA or set(values) != {field.name for field in fields(TrialRecord)}:
            raise ValueError("other fields")
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise MalformedError(f"{path.name}: not the record of a trial; delete it to run the trial again") from error
    return TrialRecord(**values)
