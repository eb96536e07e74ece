"""The custodian's list of candidates: one TOML table each."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from auditor.errors import UsageError
from auditor.evidence import lineup as lists
from auditor.evidence.lineup import CandidateRole
from auditor.evidence.timestamps import MAX_TOKEN_BYTES
from auditor.suspects import open_suspect
from auditor.suspects.base import Suspect

MAX_LIST_BYTES = 1024 * 1024
FIELDS = frozenset({"name", "role", "model", "endpoint", "profile", "time_stamps"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the custodian reaches a candidate; never signed, never shown."""

    model: str = ""
    endpoint: str = ""
    profile: str = ""

    def opened(self, *, classes: tuple[str, ...]) -> Suspect:
        """Return the adapter to the candidate."""
        return open_suspect(
            endpoint=self.endpoint or None,
            model=Path(self.model) if self.model else None,
            profile=self.profile or None,
            classes=classes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One entry of the custodian's list, before it has a label."""

    name: str
    role: CandidateRole
    source: Source
    tokens: tuple[bytes, ...]


def read_list(path: Path) -> tuple[Listed, ...]:
    """Read the custodian's list of candidates, a TOML file with one ``[[candidate]]`` each.

    Paths are relative to the file.

    Raises:
        UsageError: the file is missing, not TOML, or an entry has missing, unknown or contradicting fields.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.loads(file.read(MAX_LIST_BYTES).decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    except ValueError as error:
        raise UsageError(f"{path.name}: not TOML") from error
    items = content.get("candidate")
    if set(content) != {"candidate"} or not isinstance(items, list):
        raise UsageError(f"{path.name}: holds [[candidate]] tables and nothing else")
    return tuple(_listed(item, number=number, folder=path.parent) for number, item in enumerate(items, start=1))


def _listed(item: object, *, number: int, folder: Path) -> Listed:
    where = f"candidate {number}"
    if not isinstance(item, dict) or not set(item) <= FIELDS:
        raise UsageError(f"{where}: takes {', '.join(sorted(FIELDS))}")
    stamps = item.get("time_stamps", [])
    texts = {name: item.get(name, "") for name in FIELDS - {"time_stamps"}}
    if not all(isinstance(text, str) for text in (*texts.values(), *(stamps if isinstance(stamps, list) else [0]))):
        raise UsageError(f"{where}: every field is text, and time_stamps a list of files")
    if not texts["name"] or not texts["name"].isprintable() or len(texts["name"]) > lists.MAX_NAME:
        raise UsageError(f"{where}: needs a name of at most {lists.MAX_NAME} printable characters")
    if bool(texts["model"]) == bool(texts["endpoint"]) or (stamps and not texts["model"]):
        raise UsageError(f"{where}: takes a model or an endpoint, and time stamps only over a model")
    try:
        role = CandidateRole(texts["role"])
    except ValueError as error:
        raise UsageError(f"{where}: role is one of {', '.join(CandidateRole)}") from error
    model = str((folder / texts["model"]).resolve()) if texts["model"] else ""
    source = Source(model=model, endpoint=texts["endpoint"], profile=texts["profile"])
    return Listed(name=texts["name"], role=role, source=source, tokens=tuple(_token(folder / each) for each in stamps))


def _token(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error
