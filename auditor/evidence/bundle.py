"""The evidence bundle: a folder that is written once, in a fixed order, and read with limits.

Writing order: :func:`create` (seal, environment) → transcript and :func:`store_raw` while asking →
:func:`write_head` before statistics are computed → :func:`write_findings` (openings, protocol, results, keys, custody)
→ the report → :func:`write_manifest`. Every step covers the digests of what precedes it. A file appears whole or not at
all, so that each step can be taken again after a killed process; nothing signed is ever written over. A time stamp lies
beside the file it is over.
"""

import errno
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from auditor import __version__
from auditor.canonical import JsonValue, canonical_bytes, sha256_hex
from auditor.errors import MalformedError, SealError
from auditor.evidence import manifest as paths
from auditor.evidence.acts import CommandAct
from auditor.evidence.bundle_folder import all_files, list_files, read_file
from auditor.evidence.by_hand import by_hand_text
from auditor.evidence.custody import CustodyAct, CustodyEvent, actor_of, write_custody
from auditor.evidence.head import SignedHead, sign_head, verify_head
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.manifest import (
    Endorsement,
    Entry,
    manifest_bytes,
    place_of,
    read_manifest,
    sign_manifest,
)
from auditor.evidence.open_custody import OpenLog, object_event, signing_event
from auditor.evidence.openings import write_openings
from auditor.evidence.seal import open_seal, protocol_object
from auditor.evidence.signing import SigningKey, fingerprint, public_pem
from auditor.evidence.storage import put, sync_folder, write_new
from auditor.evidence.times import utc_text
from auditor.evidence.token_files import add_beside, is_token_of, read_beside
from auditor.evidence.transcript import read_transcript

STARTED_WITH = ("certs", "raw", "seal")
"""Folders that every bundle has from the start."""
_CHUNK_BYTES = 1 << 20

Clock = Callable[[], datetime]
Stamp = Callable[[bytes], Sequence[bytes]]
"""Returns independent time stamps over some bytes; none when no authority was named or answered."""


def no_stamp(data: bytes) -> Sequence[bytes]:
    """Return no time stamps: the audit rests on its own clocks."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle's files, each equal to its digest in the manifest."""

    folder: Path
    contents: Mapping[str, bytes]
    """Bytes by path, of every file but the raw answers."""
    entries: Mapping[str, Entry]
    """The manifest's entries by path, raw answers included."""
    manifest: bytes
    """Bytes of ``manifest.json``."""
    manifest_envelope: bytes
    """Bytes of ``manifest.dsse.json``; not verified yet."""
    manifest_tokens: Mapping[str, bytes] = field(default_factory=dict)
    """Time stamps over ``manifest.dsse.json`` by path; not verified yet."""
    later: Mapping[str, bytes] = field(default_factory=dict)
    """All files made over the signed manifest by path, its time stamps among them; not verified yet."""

    def sha256(self, path: str) -> str | None:
        """Return a listed file's digest, or None when the bundle does not hold it."""
        entry = self.entries.get(path)
        return None if entry is None else entry.sha256


def create(
    folder: Path,
    *,
    seal_envelope: bytes,
    environment: Mapping[str, JsonValue],
    seal_tokens: Sequence[bytes] = (),
    again: bool = False,
) -> None:
    """Start a bundle: make its folders and write seal, time stamps over the seal, and environment.

    Args:
        folder: a new folder, or an empty one.
        seal_envelope: bytes of ``seal/k.seal.json``.
        environment: content of ``env.json``.
        seal_tokens: time stamps over the seal.
        again: True to finish what a killed process began, before anything was asked.

    Raises:
        FileExistsError: one of the files exists, and with ``again`` holds another seal.
        TimestampError: a time stamp is not over this seal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in STARTED_WITH:
        (folder / name).mkdir(exist_ok=True)
    seal = folder / paths.SEAL
    if not again or not seal.exists() or seal.read_bytes() != seal_envelope:
        write_new(seal, seal_envelope)
    present = read_beside(seal) if again else ()
    add_beside(seal, [token for token in seal_tokens if token not in present])
    (put if again else write_new)(folder / paths.ENVIRONMENT, canonical_bytes(environment) + b"\n")
    sync_folder(folder)


def store_raw(folder: Path, body: bytes) -> str:
    """Keep a raw answer under its own digest, on disk, and return the digest; equal bodies are kept once."""
    digest = sha256_hex(body)
    path = folder / paths.RAW_FOLDER / digest
    if not path.exists():
        # A body cut short by a crash must not stand under a digest it does not have.
        write_new(path, body)
    return digest


def write_head(folder: Path, *, examiner: SigningKey, clock: Clock, stamp: Stamp = no_stamp) -> None:
    """Sign the closed transcript's head and have it time-stamped, before any result is computed.

    A head that was signed by a process that was killed stays as it is.

    Raises:
        EvidenceError: a head is there that the examiner did not sign, or over another transcript.
    """
    transcript_bytes = (folder / paths.TRANSCRIPT).read_bytes()
    transcript = read_transcript(transcript_bytes)
    head = SignedHead(
        transcript_sha256=sha256_hex(transcript_bytes),
        head=transcript.head,
        n_lines=transcript.n_lines,
        seal_sha256=sha256_hex((folder / paths.SEAL).read_bytes()),
        signed_at=max(utc_text(clock()), transcript.closed_at),
    )
    path = folder / paths.HEAD_ENVELOPE
    if path.exists():
        found = verify_head(path.read_bytes(), examiner_public=examiner.public)
        if (found.transcript_sha256, found.seal_sha256) != (head.transcript_sha256, head.seal_sha256):
            raise SealError(f"{paths.HEAD_ENVELOPE}: was signed over another transcript")
    else:
        write_new(path, sign_head(head, examiner=examiner))
    if not read_beside(path) and not (folder / paths.RESULTS).exists():
        add_beside(path, stamp(path.read_bytes()))


def write_findings(
    folder: Path,
    *,
    opened: OpenedKeySet,
    asked: Sequence[int],
    queried_at: str,
    results: Mapping[str, JsonValue],
    clock: Clock,
    examiner: SigningKey,
) -> None:
    """Write everything between the closed transcript and the report; what is there already and equal stays.

    Args:
        folder: the bundle, whose transcript is closed and its head signed.
        opened: the key set that was used.
        asked: indices of every sample that was issued to the suspect; exactly these are disclosed.
        queried_at: when the asking ended, by the transcript.
        results: the results object.
        clock: aware present time.
        examiner: the key whose public half goes into the bundle.

    Raises:
        FileExistsError: the bundle is finished already.
    """
    _refuse_finished(folder)
    owner_public = bytes.fromhex(opened.seal.owner_public_key)
    transcript_bytes = (folder / paths.TRANSCRIPT).read_bytes()
    openings = write_openings(opened.keys.openings(sorted(set(asked))), seal=opened.seal)
    results_bytes = canonical_bytes(results) + b"\n"
    new = [
        put(folder / paths.OPENINGS, openings),
        put(folder / paths.PROTOCOL, canonical_bytes(protocol_object(opened.seal.protocol)) + b"\n"),
        put(folder / paths.RESULTS, results_bytes),
        put(folder / paths.OWNER_KEY, public_pem(owner_public)),
        put(folder / paths.EXAMINER_KEY, examiner.public_pem()),
    ]
    if opened.keys.guard:
        new.append(put(folder / paths.GUARD, opened.keys.guard))
    if not any(new) and (folder / paths.CUSTODY).exists():
        # The log tells of these very files, and a signed report may quote it.
        return
    owner, auditor = actor_of("owner", fingerprint(owner_public)), actor_of("examiner", examiner.fingerprint)
    head = verify_head((folder / paths.HEAD_ENVELOPE).read_bytes(), examiner_public=examiner.public)
    now = max(utc_text(clock()), head.signed_at)
    events = [
        _event(opened.seal.sealed_at, CustodyAct.SEALED, owner, paths.SEAL, opened.envelope),
        _event(queried_at, CustodyAct.QUERIED, auditor, paths.TRANSCRIPT, transcript_bytes),
        _event(now, CustodyAct.OPENED, auditor, paths.OPENINGS, openings),
        _event(now, CustodyAct.ANALYSED, auditor, paths.RESULTS, results_bytes),
    ]
    put(folder / paths.CUSTODY, write_custody(events))


def write_manifest(folder: Path, *, examiner: SigningKey, clock: Clock, stamp: Stamp = no_stamp) -> None:
    """Finish a bundle: write ``CHECK.txt``, the manifest over all files, the examiner's signature, its time stamps.

    Raises:
        EvidenceError: the folder holds something that is no part of a bundle, or its seal or transcript is broken.
        FileExistsError: the bundle is finished already.
    """
    _refuse_finished(folder)
    seal_envelope = (folder / paths.SEAL).read_bytes()
    seal = open_seal(seal_envelope)
    owner_fingerprint = fingerprint(bytes.fromhex(seal.owner_public_key))
    transcript = read_transcript((folder / paths.TRANSCRIPT).read_bytes())
    certificate = folder / paths.REPORT_CERTIFICATE
    put(folder / paths.BY_HAND, by_hand_text(owner=owner_fingerprint, examiner=examiner.fingerprint))
    manifest = manifest_bytes(
        {path: Entry(path=path, size=size, sha256=_file_digest(folder / path)) for path, size in list_files(folder)}
    )
    read_manifest(manifest)
    endorsement = Endorsement(
        owner_fingerprint=owner_fingerprint,
        examiner_fingerprint=examiner.fingerprint,
        seal_sha256=sha256_hex(seal_envelope),
        transcript_head=transcript.head,
        report_certificate_sha256=certificate_digest(certificate.read_bytes()) if certificate.exists() else "",
        signed_at=max(utc_text(clock()), transcript.closed_at),
        tool_version=__version__,
    )
    put(folder / paths.MANIFEST, manifest)
    # What a killed process began over a manifest that nobody signed begins anew.
    (folder / paths.LATER_CUSTODY).unlink(missing_ok=True)
    # The log that goes on exists before the signature, so that a finished bundle without one was robbed of it.
    later = OpenLog(folder / paths.LATER_CUSTODY, anchor=sha256_hex(manifest))
    later.add(signing_event(manifest, at=endorsement.signed_at), key=examiner)
    signed = sign_manifest(manifest, endorsement, examiner=examiner)
    write_new(folder / paths.MANIFEST_ENVELOPE, signed)
    stamp_manifest(folder, examiner=examiner, clock=clock, stamp=stamp)


def stamp_manifest(folder: Path, *, examiner: SigningKey, clock: Clock, stamp: Stamp) -> None:
    """Have the signature over the manifest time-stamped, and enter every token into the custody log that goes on.

    Raises:
        EvidenceError: the log does not check out, or a token is not over this signature.
    """
    envelope = folder / paths.MANIFEST_ENVELOPE
    for path in add_beside(envelope, stamp(envelope.read_bytes())):
        event = object_event(CommandAct.TIME_STAMPED, path=path.name, data=path.read_bytes(), at=utc_text(clock()))
        later_log(folder).add(event, key=examiner)


def add_file(folder: Path, path: str, data: bytes) -> None:
    """Write one further file into a bundle; nothing that exists is changed.

    Raises:
        ValueError: a path that no bundle holds; a bug of the caller.
        FileExistsError: the file exists.
    """
    write_new(_place(folder, path), data)


def put_file(folder: Path, path: str, data: bytes) -> None:
    """Write one further file of a bundle that nobody signed yet, in place of one that a killed process left.

    Raises:
        ValueError: a path that no bundle holds; a bug of the caller.
    """
    put(_place(folder, path), data)


def _place(folder: Path, path: str) -> Path:
    if place_of(path) is None and not paths.is_later(path):
        raise ValueError(f"a bundle has no place for {path}")
    (folder / path).parent.mkdir(exist_ok=True)
    return folder / path


def later_log(folder: Path) -> OpenLog:
    """Return the custody log that goes on after signing, of a finished bundle.

    Raises:
        MalformedError: the folder holds no finished bundle.
    """
    for name in (paths.MANIFEST_ENVELOPE, paths.LATER_CUSTODY):
        if not (folder / name).is_file():
            raise MalformedError(f"{folder.name}: holds no {name}; the bundle is not finished")
    return OpenLog(folder / paths.LATER_CUSTODY, anchor=sha256_hex(read_file(folder, paths.MANIFEST)))


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and compare every file with the manifest; the manifest's signature is not verified here.

    Raises:
        MalformedError: a limit, a missing or an extra file.
        SealError: a file differs from its digest.
    """
    present = dict(list_files(folder))
    manifest = read_file(folder, paths.MANIFEST)
    entries = read_manifest(manifest)
    missing, extra = sorted(set(entries) - set(present)), sorted(set(present) - set(entries))
    if missing:
        raise MalformedError(f"{missing[0]} is listed in the manifest but missing")
    if extra:
        raise MalformedError(f"{extra[0]} is not listed in the manifest")
    contents: dict[str, bytes] = {}
    for path, entry in entries.items():
        data = read_file(folder, path)
        if len(data) != entry.size or sha256_hex(data) != entry.sha256:
            raise SealError(f"{path} differs from its digest in the manifest")
        if not path.startswith(f"{paths.RAW_FOLDER}/"):
            contents[path] = data
    later = {path: read_file(folder, path) for path in sorted(all_files(folder)) if paths.is_later(path)}
    return Bundle(
        folder=folder,
        contents=contents,
        entries=entries,
        manifest=manifest,
        manifest_envelope=read_file(folder, paths.MANIFEST_ENVELOPE),
        manifest_tokens={path: data for path, data in later.items() if is_token_of(path, paths.MANIFEST_ENVELOPE)},
        later=later,
    )


def certificate_digest(pem: bytes) -> str:
    """Return the SHA-256 of a PEM certificate's DER form.

    Raises:
        MalformedError: not a certificate.
    """
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(pem)
    except ValueError as error:
        raise MalformedError(f"{paths.REPORT_CERTIFICATE}: not a certificate in PEM form") from error
    from cryptography.hazmat.primitives.serialization import Encoding

    return sha256_hex(certificate.public_bytes(Encoding.DER))


def _refuse_finished(folder: Path) -> None:
    if (folder / paths.MANIFEST_ENVELOPE).exists():
        raise FileExistsError(errno.EEXIST, "the bundle is finished", paths.MANIFEST_ENVELOPE)


def _event(at: str, act: CustodyAct, actor: str, path: str, data: bytes) -> CustodyEvent:
    return CustodyEvent(at=at, act=act, actor=actor, path=path, sha256=sha256_hex(data))


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
