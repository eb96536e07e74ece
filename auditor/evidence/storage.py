"""Writing evidence so that neither a killed process nor a full disk leaves half a file, and so that one process writes.

A file appears under its name whole or not at all: it is written as ``NAME.part``, brought to disk and then renamed. A
folder is locked by ``flock`` on the folder itself, which leaves no file behind and ends with the process.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from auditor.errors import StorageError, UsageError

logger = logging.getLogger(__name__)

PART_SUFFIX = ".part"
MIN_FREE_BYTES = 32 * 1024 * 1024
"""Space that must be free before a question is sent: several times the longest answer with its transcript line."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


def write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet; it is on disk before this returns.

    Raises:
        FileExistsError: something has that name.
        OSError: it cannot be written; nothing appears under its name.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path.name)
    _write_whole(path, data)


def put(path: Path, data: bytes) -> bool:
    """Write a file that nothing signed rests on yet, and return whether its bytes are new; equal bytes stay untouched.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        return False
    _write_whole(path, data)
    return True


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to disk, so that a new or renamed file survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems sync names on their own and refuse this.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder that exists.

    Raises:
        UsageError: another process writes into it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{folder}: another process is writing into it") from error
        except OSError as error:
            # Some network file systems lock no folders; the files themselves are still never written over.
            logger.warning("%s: cannot be locked (%s)", folder, error.strerror)
        yield
    finally:
        os.close(descriptor)


def refuse_used_folder(folder: Path) -> None:
    """Raise UsageError when ``folder`` exists and holds anything: evidence is never written over."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists already and is not empty; evidence is never written over")
    _refuse_unwritable(folder)


def _refuse_unwritable(folder: Path) -> None:
    parent = folder if folder.exists() else next(p for p in folder.absolute().parents if p.exists())
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{folder}: cannot be written to")


@contextmanager
def own_folder(folder: Path, *, resume: bool) -> Iterator[None]:
    """Keep other processes out of an audit's folder, made where it is new; an audit that wrote nothing leaves none.

    Raises:
        UsageError: it cannot be written to, another process has it, or, without ``resume``, it holds anything.
    """
    if resume:
        _refuse_unwritable(folder)
        with locked(folder):
            yield
        return
    refuse_used_folder(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            refuse_used_folder(folder)
            yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def storing(folder: Path, *, advice: str = "") -> Iterator[None]:
    """Turn what the file system refuses while evidence is written into one line.

    Args:
        folder: what is being written.
        advice: what the user can do next; appended to the message.

    Raises:
        StorageError: instead of any :class:`OSError`.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder}: {_told(error)}; what was written before is kept{advice}") from error


def need_space(folder: Path) -> None:
    """Refuse to go on where an answer that is paid for could not be kept.

    Raises:
        StorageError: less than :data:`MIN_FREE_BYTES` are free.
        OSError: the folder is gone.
    """
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < MIN_FREE_BYTES:
        wanted = f"less than {MIN_FREE_BYTES >> 20} MiB are free"
        raise StorageError(
            f"{folder}: the disk is full: {wanted}, and an answer might not fit; verify --resume goes on"
        )


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _told(error: OSError) -> str:
    if error.errno in _FULL:
        return "the disk is full"
    if error.errno in _FORBIDDEN:
        return "it cannot be written to any more"
    if error.errno in _GONE:
        return "a folder or file in it is gone"
    return f"it cannot be written ({type(error).__name__})"
