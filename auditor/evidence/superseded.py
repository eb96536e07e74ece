"""What an audit had signed before it stopped and went on: set aside, never removed, and listed in the new manifest.

A file moves to ``superseded/N.NAME``, N being the number of the resumption. Its time-stamped signature over the earlier
transcript keeps showing what was on record by then, and the re-check holds the transcript against it.
"""

import os
import re
from pathlib import Path

from auditor.canonical import sha256_hex
from auditor.errors import TranscriptError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import Bundle
from auditor.evidence.bundle_folder import all_files
from auditor.evidence.head import verify_head
from auditor.evidence.storage import sync_folder
from auditor.evidence.token_files import is_token_of
from auditor.evidence.transcript import Transcript

LASTING = (paths.SEAL, paths.TRANSCRIPT, paths.PROTOCOL, paths.ENVIRONMENT, paths.OWNER_KEY, paths.EXAMINER_KEY)
"""Files that a continued audit shares with the one that had stopped."""
_HEAD = re.compile(rf"{paths.SUPERSEDED_FOLDER}/([1-9][0-9]*)\.{re.escape(paths.HEAD_ENVELOPE)}")


def derived_files(folder: Path) -> tuple[str, ...]:
    """Return the paths of everything in a bundle that was made from its transcript, sorted."""
    kept = (f"{paths.RAW_FOLDER}/", f"{paths.SUPERSEDED_FOLDER}/")
    return tuple(
        path
        for path in sorted(all_files(folder))
        if path not in LASTING and not path.startswith(kept) and not is_token_of(path, paths.SEAL)
    )


def set_aside(folder: Path, names: tuple[str, ...], *, number: int) -> None:
    """Move files of a bundle to ``superseded/``; a move that was cut short is finished by the next call.

    Args:
        folder: the bundle.
        names: paths in it; those that are not there are passed over.
        number: resumption that supersedes them, from 1; a later free number is taken where a name is there already.

    Raises:
        OSError: a file cannot be moved.
    """
    present = [name for name in names if (folder / name).exists()]
    if not present:
        return
    old = folder / paths.SUPERSEDED_FOLDER
    old.mkdir(exist_ok=True)
    for name in present:
        free = number
        while (target := old / f"{free}.{Path(name).name}").exists():
            free += 1
        os.rename(folder / name, target)
        sync_folder((folder / name).parent)
    sync_folder(old)


def check_superseded(bundle: Bundle, transcript: Transcript, *, examiner_public: bytes) -> str:
    """Hold a resumed transcript against every head that was signed before a stop; return what was found.

    Raises:
        EvidenceError: a head does not verify, or the transcript does not go on from what it covers.
    """
    if not transcript.resumptions:
        return ""
    data = bundle.contents[paths.TRANSCRIPT]
    for stop in transcript.resumptions:
        if stop.torn_bytes and bundle.sha256(f"{paths.RAW_FOLDER}/{stop.torn_sha256}") is None:
            raise TranscriptError("the bytes of a line that was cut short are missing")
    before = {stop.n_lines_before: stop.head_before for stop in transcript.resumptions}
    n_heads = 0
    lines = data.splitlines(keepends=True)
    for path in sorted(bundle.contents):
        if not _HEAD.fullmatch(path):
            continue
        head = verify_head(bundle.contents[path], examiner_public=examiner_public)
        covered = sha256_hex(b"".join(lines[: head.n_lines]))
        if before.get(head.n_lines) != head.head or covered != head.transcript_sha256:
            raise TranscriptError(f"{path}: the transcript does not go on from what was signed before the stop")
        n_heads += 1
    times = len(transcript.resumptions)
    signed = f", goes on from {n_heads} signed before a stop" if n_heads else ""
    return f"resumed {times} {'time' if times == 1 else 'times'}{signed}; "
