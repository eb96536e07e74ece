"""A bundle's folder, listed and read with limits: whoever hands it over may have put anything in it."""

import os
import stat
from pathlib import Path

from auditor.errors import MalformedError
from auditor.evidence import manifest as paths
from auditor.evidence.manifest import MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, place_of
from auditor.evidence.storage import PART_SUFFIX


def list_files(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return (path, size) of every listed file of a bundle folder, sorted; nothing is opened.

    Manifest, signature and what is made over them are left out. Empty folders of a bundle are allowed.

    Raises:
        MalformedError: a link, a device, an unknown name, or a limit exceeded.
    """
    return tuple(sorted((path, size) for path, size in all_files(folder).items() if not paths.is_unlisted(path)))


def clear_parts(folder: Path) -> None:
    """Remove what a killed process left half written; the caller keeps other processes out.

    Raises:
        MalformedError: the folder holds something that is no part of a bundle; nothing is removed then.
    """
    parts: list[str] = []
    all_files(folder, parts=parts)
    for path in parts:
        (folder / path).unlink()


def read_file(folder: Path, path: str) -> bytes:
    """Return one file's bytes; links are not followed.

    Raises:
        MalformedError: the file is missing, not regular, or larger than the limit.
    """
    try:
        descriptor = os.open(folder / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                raise MalformedError(f"{path}: not a regular file, or larger than {MAX_FILE_BYTES} bytes")
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise MalformedError(f"{path}: cannot be read ({type(error).__name__})") from error


def all_files(folder: Path, *, parts: list[str] | None = None) -> dict[str, int]:
    """Return the size of every file of a bundle folder by path, those that the manifest does not list included.

    Args:
        folder: the bundle.
        parts: takes the paths of half-written files, which are refused where this is None.

    Raises:
        MalformedError: a link, a device, an unknown name, or a limit exceeded.
    """
    found: dict[str, int] = {}
    try:
        _scan(folder, "", found, parts)
    except OSError as error:
        raise MalformedError(f"the bundle cannot be listed ({type(error).__name__})") from error
    if sum(found.values()) > MAX_TOTAL_BYTES:
        raise MalformedError(f"the bundle holds more than {MAX_TOTAL_BYTES} bytes")
    return found


def _scan(folder: Path, prefix: str, found: dict[str, int], parts: list[str] | None) -> None:
    with os.scandir(folder) as items:
        for item in items:
            path = prefix + item.name
            if item.is_symlink():
                raise MalformedError("the bundle holds a link")
            if item.is_dir(follow_symlinks=False):
                if prefix or item.name not in paths.FOLDERS:
                    raise MalformedError("the bundle holds an unknown folder")
                _scan(folder / item.name, f"{item.name}/", found, parts)
                continue
            whole = path.removesuffix(PART_SUFFIX)
            if parts is not None and whole != path and (place_of(whole) is not None or paths.is_unlisted(whole)):
                parts.append(path)
                continue
            if place_of(path) is None and not paths.is_unlisted(path):
                raise MalformedError("the bundle holds a file that has no place in it")
            if not item.is_file(follow_symlinks=False):
                raise MalformedError(f"{path}: not a regular file")
            size = item.stat(follow_symlinks=False).st_size
            if size > MAX_FILE_BYTES:
                raise MalformedError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
            found[path] = size
            if len(found) > MAX_FILES:
                raise MalformedError(f"the bundle holds more than {MAX_FILES} files")
