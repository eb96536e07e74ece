"""The custody log: which object passed which hands when, with its digest, in one hash-chained file."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from auditor.errors import MalformedError
from auditor.evidence.chain import Link, link_hash, make_line, read_chain

DOMAIN = b"auditor/1 custody line\x00"
WHAT = "custody.jsonl"
MAX_TEXT = 500


class CustodyAct(StrEnum):
    """What happened to an object."""

    SEALED = "sealed"
    """The owner fixed the key set."""
    QUERIED = "queried"
    """The suspect was asked and its answers recorded."""
    OPENED = "opened"
    """The asked samples were disclosed."""
    ANALYSED = "analysed"
    """The results were computed from the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyEvent:
    """One line of the log."""

    at: str
    """RFC 3339 UTC with milliseconds."""
    act: CustodyAct
    actor: str
    """Who acted: :func:`actor_of` a role and its key."""
    path: str
    """The object's path in the bundle."""
    sha256: str
    """The object's digest after the act, hex."""


def actor_of(role: str, fingerprint: str) -> str:
    """Return how the log names who acted: the role and the fingerprint of its key."""
    return f"{role} {fingerprint}"


def write_custody(events: Sequence[CustodyEvent]) -> bytes:
    """Return the bytes of ``custody.jsonl``; events must stand in order of time."""
    lines, head = [], link_hash(DOMAIN, b"")
    for seq, event in enumerate(events):
        line = make_line(
            seq=seq,
            prev=head,
            at=event.at,
            content={"act": event.act.value, "actor": event.actor, "path": event.path, "sha256": event.sha256},
        )
        head = link_hash(DOMAIN, line)
        lines.append(line + b"\n")
    return b"".join(lines)


def read_custody(data: bytes) -> tuple[CustodyEvent, ...]:
    """Read and verify a custody log; the caller compares the digests with the objects.

    Raises:
        TranscriptError: the chain is broken or runs backwards in time.
        MalformedError: a line is not canonical, or a field is missing, unknown or out of range.
    """
    events: list[CustodyEvent] = []

    def take(link: Link) -> None:
        try:
            act = CustodyAct(link.fields.text("act"))
        except ValueError as error:
            raise MalformedError(f"{WHAT} line {link.seq}: unknown act") from error
        events.append(
            CustodyEvent(
                at=link.at,
                act=act,
                actor=link.fields.text("actor", max_length=MAX_TEXT),
                path=link.fields.text("path", max_length=MAX_TEXT),
                sha256=link.fields.hex("sha256", n_bytes=32),
            )
        )
        link.fields.finish()

    read_chain(data, domain=DOMAIN, what=WHAT, each=take)
    return tuple(events)
