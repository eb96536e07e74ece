"""Where tokens lie: ``NAME.1.tsr``, ``NAME.2.tsr`` … beside the file they stamp; written once, never replaced."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from auditor.errors import MalformedError, TimestampError
from auditor.evidence.storage import write_new
from auditor.evidence.timestamps import MAX_TOKEN_BYTES, MAX_TOKENS, read_tokens

SUFFIX = ".tsr"
_NUMBER = r"([1-9]|[12][0-9]|3[0-2])"


def stem_of(path: str) -> str:
    """Return the name that the tokens over a file share: its path without ``.json`` and ``.dsse``."""
    return path.removesuffix(".json").removesuffix(".dsse")


def token_path(path: str, number: int) -> str:
    """Return the path of the ``number``-th token over the file at ``path``, from 1."""
    return f"{stem_of(path)}.{number}{SUFFIX}"


def is_token_of(token: str, path: str) -> bool:
    """Return whether ``token`` is a path that a token over ``path`` may have."""
    return re.fullmatch(rf"{re.escape(stem_of(path))}\.{_NUMBER}{re.escape(SUFFIX)}", token) is not None


def tokens_among(files: Mapping[str, bytes], path: str) -> dict[str, bytes]:
    """Return the tokens over ``path`` among files by path, in order of their numbers.

    Raises:
        TimestampError: a number is missing between others.
    """
    n_found = sum(is_token_of(name, path) for name in files)
    wanted = [token_path(path, number) for number in range(1, n_found + 1)]
    missing = [name for name in wanted if name not in files]
    if missing:
        raise TimestampError(f"{missing[0]} is missing between other time stamps")
    return {name: files[name] for name in wanted}


def read_beside(file: Path) -> tuple[bytes, ...]:
    """Return the tokens that lie beside a file, in order of their numbers; most files have none.

    Raises:
        EvidenceError: one cannot be read, is over other bytes, is there twice, or a number is missing.
    """
    return tuple(_beside(file).values())


def add_beside(file: Path, tokens: Sequence[bytes]) -> tuple[Path, ...]:
    """Write further tokens beside a file and return their paths; nothing that exists is changed.

    Raises:
        EvidenceError: a token is over other bytes or there already, or there would be more than 32.
        FileExistsError: another process wrote at the same moment.
    """
    present = _beside(file)
    names = [token_path(file.name, len(present) + number) for number in range(1, len(tokens) + 1)]
    read_tokens({**present, **dict(zip(names, tokens, strict=True))}, data=file.read_bytes())
    written = []
    for name, token in zip(names, tokens, strict=True):
        path = file.with_name(name)
        write_new(path, token)
        written.append(path)
    return tuple(written)


def _beside(file: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number in range(1, MAX_TOKENS + 1):
        name = token_path(file.name, number)
        path = file.with_name(name)
        if path.is_file():
            found[name] = _read(path)
    tokens = tokens_among(found, file.name)
    if tokens:
        read_tokens(tokens, data=file.read_bytes())
    return tokens


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise MalformedError(f"{path.name}: cannot be read ({type(error).__name__})") from error
