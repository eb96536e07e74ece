"""Reading and writing ``.npz`` files without trusting a byte of them.

Untrusted files never reach ``numpy.load``: the container is checked first, then each array's header against its
member's size, and only then are bytes viewed as an array. Nothing is unpickled, nothing is allocated on the word of
a header.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from auditor.errors import MalformedError

MAX_MEMBERS = 64
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_UNPACKED_BYTES = 2 * 1024 * 1024 * 1024
MAX_RATIO = 100
MAX_HEADER_BYTES = 1024
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

_MAGIC = b"\x93NUMPY\x01\x00"
_SHAPE = rb"\((?:\d{1,20},(?: \d{1,20}(?:, \d{1,20}){0,6})?)?\)"
_HEADER = re.compile(rb"\{'descr': '([^']{1,16})', 'fortran_order': (True|False), 'shape': (" + _SHAPE + rb"), \} *\n")
_ENCRYPTED_FLAG = 0x1
_ZIP_DEFECTS = (
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
    OSError,
)

AnyArray = npt.NDArray[np.uint8] | npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRule:
    """What one member must be."""

    descr: str
    """numpy's name of the type, such as ``|u1`` or ``<i4``."""
    n_dims: int


def write_npz(arrays: Mapping[str, AnyArray]) -> bytes:
    """Return an uncompressed ``.npz`` whose bytes depend on nothing but the arrays and their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=ZIP_EPOCH)
            info.create_system = 3
            info.external_attr = 0o600 << 16
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def read_npz(
    data: bytes, *, rules: Mapping[str, ArrayRule], what: str, optional: Mapping[str, ArrayRule] | None = None
) -> dict[str, AnyArray]:
    """Return the arrays of an untrusted ``.npz``: exactly the named ones, each of the stated type and dimensions.

    Args:
        data: the file's bytes.
        rules: name of every expected array, without ``.npy``.
        what: a name for error messages.
        optional: arrays that may be missing; a missing one is empty.

    Returns:
        Read-only arrays, in the order of ``rules``, then of ``optional``.

    Raises:
        MalformedError: anything is missing, unknown, repeated, encrypted, too large, or not what its rule says.
    """
    if len(data) > MAX_FILE_BYTES:
        raise MalformedError(f"{what}: larger than {MAX_FILE_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            known = {**rules, **(optional or {})}
            members = _checked_members(archive.infolist(), rules=rules, known=known, what=what)
            contents = {name: _member_bytes(archive, members[name], what=what) for name in members}
    except _ZIP_DEFECTS as error:
        raise MalformedError(f"{what}: not a readable npz container ({type(error).__name__})") from error
    return {
        name: _array(contents[name], rule, what=f"{what}: {name}")
        if name in contents
        else np.zeros((0,) * rule.n_dims, dtype=rule.descr)
        for name, rule in known.items()
    }


def _checked_members(
    infos: list[zipfile.ZipInfo], *, rules: Mapping[str, ArrayRule], known: Mapping[str, ArrayRule], what: str
) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > MAX_MEMBERS:
        raise MalformedError(f"{what}: more than {MAX_MEMBERS} members")
    if sum(info.file_size for info in infos) > MAX_UNPACKED_BYTES:
        raise MalformedError(f"{what}: unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.is_dir() or "/" in info.filename or "\\" in info.filename:
            raise MalformedError(f"{what}: holds a folder or a path")
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name not in known:
            raise MalformedError(f"{what}: holds an unknown member")
        if name in found:
            raise MalformedError(f"{what}: holds the member {name!r} twice")
        if info.flag_bits & _ENCRYPTED_FLAG:
            raise MalformedError(f"{what}: the member {name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise MalformedError(f"{what}: the member {name!r} uses another compression than stored or deflated")
        if info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise MalformedError(f"{what}: the member {name!r} unpacks to more than {MAX_RATIO} times its size")
        found[name] = info
    missing = sorted(set(rules) - set(found))
    if missing:
        raise MalformedError(f"{what}: the member {missing[0]!r} is missing")
    return found


def _member_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, what: str) -> bytes:
    with archive.open(info) as file:
        # One byte more than declared: a member that goes on is refused without reading the rest of it.
        data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise MalformedError(f"{what}: a member's size differs from the declared one")
    return data


def _array(data: bytes, rule: ArrayRule, *, what: str) -> AnyArray:
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + 2:
        raise MalformedError(f"{what}: not an array in npy format 1.0")
    (length,) = struct.unpack_from("<H", data, len(_MAGIC))
    start = len(_MAGIC) + 2 + length
    header = data[len(_MAGIC) + 2 : start]
    if length > MAX_HEADER_BYTES or len(header) != length:
        raise MalformedError(f"{what}: the array's header is too long")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise MalformedError(f"{what}: the array's header is not acceptable")
    if match[1] != rule.descr.encode("ascii"):
        raise MalformedError(f"{what}: the array's type is not {rule.descr}")
    if match[2] != b"False":
        raise MalformedError(f"{what}: the array is not in C order")
    shape = _shape(match[3], what=what)
    if len(shape) != rule.n_dims:
        raise MalformedError(f"{what}: the array must have {rule.n_dims} dimensions")
    if 0 in shape and len(shape) > 1:
        # Zero times anything fits every file, yet numpy cannot represent every such shape.
        raise MalformedError(f"{what}: the array is empty")
    dtype = np.dtype(rule.descr)
    if prod(shape) * dtype.itemsize != len(data) - start:
        raise MalformedError(f"{what}: the array's shape does not fit its bytes")
    array: AnyArray = np.frombuffer(data, dtype=dtype, offset=start).reshape(shape)
    return array


def _shape(text: bytes, *, what: str) -> tuple[int, ...]:
    sides = [side.strip() for side in text[1:-1].split(b",") if side.strip()]
    if any(len(side) > 1 and side.startswith(b"0") for side in sides):
        raise MalformedError(f"{what}: the array's shape is not acceptable")
    return tuple(int(side) for side in sides)
