"""Bundles in zip files: a mailed bundle is unpacked into an empty folder, or refused before anything is written.

Only the names that a bundle may hold are unpacked (see :mod:`auditor.evidence.manifest`), so no path can lead outside;
one folder around them, as archive programs like to add, is taken off. Sizes are enforced while unpacking, whatever
the archive's directory promises.
"""

import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from auditor.errors import MalformedError
from auditor.evidence.bundle_folder import all_files, read_file
from auditor.evidence.manifest import (
    FOLDERS,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    is_unlisted,
    place_of,
)

MAX_ARCHIVE_BYTES = 1024 * 1024 * 1024
MAX_RATIO = 200
"""A member may unpack to this many times its packed size; deflated answers reach about 20."""
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_FREE_BYTES = 1024 * 1024
"""Members up to this size are taken whatever their ratio: an empty page repeats itself a lot."""
_CHUNK_BYTES = 1 << 20
_ENCRYPTED_FLAG = 0x1
_DEFECTS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
)


def unpack_bundle(archive: Path, folder: Path) -> None:
    """Unpack a zipped bundle into ``folder``, which exists and is empty; all names and sizes are checked first.

    Raises:
        MalformedError: not a zip file, a name or kind that no bundle holds, a name twice, encryption, or a limit.
    """
    try:
        if archive.stat().st_size > MAX_ARCHIVE_BYTES:
            raise MalformedError(f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes")
        with zipfile.ZipFile(archive) as source:
            members = _checked(source.infolist())
            for path, info in members.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                _unpack(source, info, target, path=path)
    except _DEFECTS as error:
        raise MalformedError(f"the archive cannot be read ({type(error).__name__})") from error
    except OSError as error:
        raise MalformedError(f"the archive cannot be unpacked ({type(error).__name__})") from error


def pack_bundle(folder: Path) -> bytes:
    """Return a bundle folder as a zip file whose bytes depend on nothing but the files: sorted, dated 1980.

    Raises:
        MalformedError: the folder holds something that is no part of a bundle, or a limit is exceeded.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(all_files(folder)):
            info = zipfile.ZipInfo(path, date_time=ZIP_EPOCH)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, read_file(folder, path), compress_type=zipfile.ZIP_DEFLATED, compresslevel=6)
    return buffer.getvalue()


def _checked(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    files = [info for info in infos if not info.is_dir()]
    if len(infos) > 2 * MAX_FILES or len(files) > MAX_FILES:
        raise MalformedError(f"the archive holds more than {MAX_FILES} files")
    around = _folder_around([info.filename for info in files])
    known = {around, *(f"{around}{name}/" for name in FOLDERS)}
    if any(info.is_dir() and info.filename not in known for info in infos):
        raise MalformedError("the archive holds an unknown folder")
    found: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for info in files:
        _check_kind(info)
        path = info.filename[len(around) :]
        if place_of(path) is None and not is_unlisted(path):
            raise MalformedError("the archive holds a file that has no place in a bundle")
        if path.casefold() in found:
            raise MalformedError(f"the archive holds {path} twice")
        if info.file_size > MAX_FILE_BYTES:
            raise MalformedError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        if info.file_size > max(_FREE_BYTES, MAX_RATIO * info.compress_size):
            raise MalformedError(f"{path}: unpacks to more than {MAX_RATIO} times its packed size")
        total += info.file_size
        found[path.casefold()] = info
    if total > MAX_TOTAL_BYTES:
        raise MalformedError(f"the archive unpacks to more than {MAX_TOTAL_BYTES} bytes")
    return {info.filename[len(around) :]: info for info in found.values()}


def _folder_around(names: list[str]) -> str:
    """Return the one folder that holds everything, with its slash, or an empty text."""
    if MANIFEST in names:
        return ""
    manifests = [name for name in names if name.count("/") == 1 and name.endswith(f"/{MANIFEST}")]
    if len(manifests) != 1:
        raise MalformedError(f"the archive holds no {MANIFEST}, or more than one")
    around = manifests[0].removesuffix(MANIFEST)
    if PurePosixPath(around).name in ("", ".", "..") or not all(name.startswith(around) for name in names):
        raise MalformedError("the archive holds files outside the bundle's folder")
    return around


def _check_kind(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise MalformedError("the archive holds a link or another file that is not regular")
    if info.flag_bits & _ENCRYPTED_FLAG:
        raise MalformedError("the archive is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MalformedError("the archive uses another compression than stored or deflated")


def _unpack(source: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, *, path: str) -> None:
    written = 0
    with source.open(info) as packed, target.open("xb") as out:
        while chunk := packed.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > info.file_size:
                raise MalformedError(f"{path}: unpacks to more than the archive states")
            out.write(chunk)
    if written != info.file_size:
        raise MalformedError(f"{path}: unpacks to less than the archive states")
