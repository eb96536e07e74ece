"""Custody logs that stay open: what happens to a sealed key set, and to a bundle after it was signed.

``k.custody.jsonl`` beside a key set belongs to its seal, ``custody.later.jsonl`` in a bundle to its manifest: the
SHA-256 of that file, the *anchor*, goes into the hash of every line, so that no log fits another seal or bundle. Lines
are only ever appended. An entry may be signed; a signature covers the whole line, hence by its link all lines before.

Changed, dropped or exchanged lines are found, up to the last signed entry even where whoever changed them chains the
log again. What cannot be found from the log alone is that its latest lines were cut off: the *head*, the hash of the
last line, must have been noted elsewhere.
"""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from auditor.canonical import JsonValue, canonical_bytes, parse_object, sha256_hex
from auditor.errors import EvidenceError, MalformedError, SignatureError, TranscriptError, UsageError
from auditor.evidence.acts import CommandAct, HandAct
from auditor.evidence.chain import Link, link_hash, read_chain
from auditor.evidence.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKey, fingerprint, pae, verify

DOMAIN = b"auditor/1 open custody line\x00"
PAYLOAD_TYPE = "application/vnd.model-ownership-auditor.custody+json"
MANIFEST_NAME = "manifest.json"
MAX_BYTES = 16 * 1024 * 1024
MAX_NAME = 200
MAX_NOTE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterEvent:
    """One entry of an open log."""

    at: str
    """RFC 3339 UTC with milliseconds, by the clock of who added it."""
    act: HandAct | CommandAct
    by: str
    """Who acted, in the words of who added it."""
    note: str = ""
    path: str = ""
    """The file it is about, for acts of commands; else empty."""
    sha256: str = ""
    """That file's digest, hex, or empty."""
    signer: str = ""
    """Fingerprint of the key that signed the entry, hex; empty for an unsigned one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLog:
    """A verified log."""

    events: tuple[LaterEvent, ...]
    heads: tuple[str, ...]
    """Hash of every line, hex; the last one is the head."""

    @property
    def head(self) -> str:
        """Hash of the last line, which stands for the whole log."""
        return self.heads[-1]


class OpenLog:
    """An open log on disk."""

    def __init__(self, path: Path, *, anchor: str) -> None:
        self._path = path
        self._anchor = anchor

    def read(self) -> ReadLog | None:
        """Return the verified log, or None when there is none yet; raises as :func:`read_log` does."""
        data = self._bytes()
        return read_log(data, anchor=self._anchor, what=self._path.name) if data is not None else None

    def add(self, event: LaterEvent, *, key: SigningKey | None) -> str:
        """Append one entry, on disk when this returns, and return the new head; nothing that exists is changed.

        An entry never states an earlier time than the one before it, whatever the clock says.

        Raises:
            EvidenceError: what is there does not check out, or the log would grow beyond its limit.
            UsageError: the log cannot be written.
        """
        try:
            with self._path.open("a+b") as file:
                # Writers wait for one another; each extends what it has read.
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                line = self._next(event, data=file.read(MAX_BYTES + 1), key=key)
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f"{self._path.name}: cannot be written ({type(error).__name__})") from error
        return link_hash(_domain(self._anchor), line)

    def _next(self, event: LaterEvent, *, data: bytes, key: SigningKey | None) -> bytes:
        found = read_log(data, anchor=self._anchor, what=self._path.name) if data else None
        line = _line(
            event,
            seq=len(found.events) if found else 0,
            prev=found.head if found else link_hash(_domain(self._anchor), b""),
            at=max(event.at, found.events[-1].at) if found else event.at,
            key=key,
        )
        if len(data) + len(line) + 1 > MAX_BYTES:
            raise MalformedError(f"{self._path.name}: would grow beyond {MAX_BYTES} bytes")
        return line

    def _bytes(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MalformedError(f"{self._path.name}: cannot be read ({type(error).__name__})") from error


def keyset_log_path(keyset: Path) -> Path:
    """Return where the log of a key set lies: ``k.custody.jsonl`` beside ``k.npz`` or ``k.seal.json``."""
    stem = keyset.name.removesuffix(".npz").removesuffix(".json").removesuffix(".seal")
    return keyset.with_name(f"{stem}.custody.jsonl")


def signing_event(manifest: bytes, *, at: str) -> LaterEvent:
    """Return the entry that opens a bundle's later log."""
    return object_event(CommandAct.SIGNED, path=MANIFEST_NAME, data=manifest, at=at)


def object_event(
    act: CommandAct, *, path: str, data: bytes, at: str, by: str = "examiner", note: str = ""
) -> LaterEvent:
    """Return the entry of an act that made or signed a file."""
    return LaterEvent(at=at, act=act, by=by, note=note, path=path, sha256=sha256_hex(data))


def read_log(data: bytes, *, anchor: str, what: str) -> ReadLog:
    """Read a log and verify its chain and every signature in it; who holds a signing key is for the caller.

    Args:
        data: the bytes as stored.
        anchor: SHA-256 of what the log belongs to, hex: a seal's envelope, or a manifest.
        what: a name for error messages.

    Raises:
        EvidenceError: the chain is broken or belongs to something else, an entry is malformed, or a signature in it
            does not verify.
    """
    if len(data) > MAX_BYTES:
        raise TranscriptError(f"{what}: larger than {MAX_BYTES} bytes")
    events: list[LaterEvent] = []
    previous: list[str] = []

    def take(link: Link) -> None:
        event, prev = _event(link, lines[link.seq], what=f"{what} line {link.seq}")
        events.append(event)
        previous.append(prev)

    lines = data.removesuffix(b"\n").split(b"\n")
    domain = _domain(anchor)
    head = read_chain(data, domain=domain, what=what, each=take)
    return ReadLog(events=tuple(events), heads=(*previous[1:], head))


def describe(log: ReadLog, *, known: Sequence[tuple[str, str]]) -> str:
    """Return one line on a log: entries, who signed how many of them, and what that leaves open.

    Args:
        log: the verified log.
        known: (fingerprint, name) of keys whose holder is known otherwise.
    """
    names = dict(known)
    signed: dict[str, int] = {}
    for event in log.events:
        if event.signer:
            name = names.get(event.signer, f"unknown key {event.signer[:16]}…")
            signed[name] = signed.get(name, 0) + 1
    unsigned = sum(not event.signer for event in log.events)
    parts = [f"{count} signed by {name}" for name, count in signed.items()]
    parts += [f"{unsigned} unsigned"] if unsigned else []
    return f"{len(log.events)} entries ({', '.join(parts)}), head {log.head}"


def _domain(anchor: str) -> bytes:
    return DOMAIN + bytes.fromhex(anchor)


def _line(event: LaterEvent, *, seq: int, prev: str, at: str, key: SigningKey | None) -> bytes:
    content: dict[str, JsonValue] = {
        "seq": seq,
        "prev": prev,
        "at": at,
        "act": event.act.value,
        "by": event.by,
        "note": event.note,
        "path": event.path,
        "sha256": event.sha256,
        "public_key": "" if key is None else key.public.hex(),
    }
    signature = "" if key is None else key.sign(pae(PAYLOAD_TYPE, canonical_bytes(content))).hex()
    return canonical_bytes({**content, "signature": signature})


def _event(link: Link, line: bytes, *, what: str) -> tuple[LaterEvent, str]:
    """Return the entry of a line whose place in the chain is verified, and the hash of the line before it."""
    fields = link.fields
    act = _act(fields.text("act", max_length=40), what=what)
    by, note = fields.text("by", max_length=MAX_NAME), fields.text("note", max_length=MAX_NOTE)
    path, sha256 = fields.text("path", max_length=255), fields.hex("sha256")
    public, signature = fields.hex("public_key"), fields.hex("signature")
    fields.finish()
    if isinstance(act, CommandAct) != bool(path) or len(sha256) != (64 if path else 0):
        raise MalformedError(f"{what}: names no file where one is needed, or one where none is")
    signer = ""
    content = parse_object(line, what=what)
    if public or signature:
        if (len(public), len(signature)) != (2 * PUBLIC_KEY_BYTES, 2 * SIGNATURE_BYTES):
            raise MalformedError(f"{what}: key and signature have the wrong length")
        del content["signature"]
        try:
            verify(bytes.fromhex(public), bytes.fromhex(signature), pae(PAYLOAD_TYPE, canonical_bytes(content)))
        except SignatureError as error:
            raise SignatureError(f"{what}: {error}") from error
        signer = fingerprint(bytes.fromhex(public))
    event = LaterEvent(at=link.at, act=act, by=by, note=note, path=path, sha256=sha256, signer=signer)
    return event, str(content["prev"])


def _act(text: str, *, what: str) -> HandAct | CommandAct:
    for acts in (HandAct, CommandAct):
        if text in list(acts):
            return acts(text)
    raise MalformedError(f"{what}: unknown act")


def new_event(act: HandAct, *, by: str, note: str, at: str) -> LaterEvent:
    """Return an entry that a person adds by hand.

    Raises:
        UsageError: the name is empty, or name or note are too long or hold control characters.
    """
    for what, text, limit in (("--by", by, MAX_NAME), ("--note", note, MAX_NOTE)):
        if len(text) > limit or not text.isprintable():
            raise UsageError(f"{what} takes one line of at most {limit} printable characters")
    if not by.strip():
        raise UsageError("--by takes the name of who acted")
    return LaterEvent(at=at, act=act, by=by.strip(), note=note.strip())


def copied_log(path: Path, *, seal_envelope: bytes) -> bytes:
    """Return the bytes of a key set's log for a bundle, verified; empty when there is none.

    Raises:
        EvidenceError: the log is broken or belongs to another seal.
    """
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MalformedError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    try:
        read_log(data, anchor=sha256_hex(seal_envelope), what=path.name)
    except EvidenceError as error:
        raise type(error)(f"the key set's custody log does not check out: {error}") from error
    return data
