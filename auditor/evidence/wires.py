"""How answers arrived, in few bytes: addresses, certificates and headers are written once and referred to afterwards.

A ``wire`` line states network address, certificates, redirects and the headers of the first answer that arrived so. A
later answer names that line and states what differs: ``headers`` that are new or have another value, and names that it
came ``without``. The ``date`` header belongs to each answer alone and never enters a ``wire`` line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from auditor.canonical import Fields, JsonValue
from auditor.errors import MalformedError, TranscriptError, Wire
from auditor.evidence.transcript_records import MAX_TEXT

MAX_CERTIFICATES = 32
MAX_REDIRECTS = 16
MAX_HEADERS = 200
DATE = "date"

Headers = tuple[tuple[str, str], ...]


class Noted(NamedTuple):
    """What has to be written so that an answer's way can be read again."""

    line: Mapping[str, JsonValue] | None
    """Content of a ``wire`` line that has to come first; None where an earlier one serves."""
    fields: Mapping[str, JsonValue]
    """Fields of the answer's own line."""


class WireLog:
    """What was written about the ways of earlier answers.

    Args:
        wires: the ``wire`` lines that are on record already.
    """

    def __init__(self, wires: Sequence[Wire] = ()) -> None:
        self._known: dict[Wire, int] = {}
        self._headers: list[Headers] = []
        self._latest: tuple[Wire, str, Noted] | None = None
        for wire in wires:
            self._add(wire)

    def note(self, wire: Wire, *, server_date: str = "") -> Noted:
        """Return what has to be written about one answer, and count it as written.

        Args:
            wire: how the answer arrived.
            server_date: its Date header where the answer's line states it anyway.
        """
        # Answers that follow one another within a second mostly arrive in the same way to the letter.
        if self._latest is not None and self._latest[:2] == (wire, server_date):
            return self._latest[2]
        noted = self._noted(_plain(wire), server_date=server_date)
        self._latest = (wire, server_date, noted._replace(line=None))
        return noted

    def _noted(self, plain: Wire, *, server_date: str) -> Noted:
        stated = tuple((name, value) for name, value in plain.headers if (name, value) != (DATE, server_date))
        kept = replace(plain, headers=())
        number = self._known.get(kept)
        line: Mapping[str, JsonValue] | None = None
        if number is None:
            base = tuple(item for item in stated if item[0] != DATE)
            number = self._add(replace(kept, headers=base))
            line = {
                "wire": number,
                "address": kept.address,
                "certificates": list(kept.certificates),
                "redirects": list(kept.redirects),
                "headers": [list(item) for item in base],
            }
        base = self._headers[number]
        changed: list[JsonValue] = [list(item) for item in stated if item not in base]
        names = {name for name, _ in stated}
        without: list[JsonValue] = [name for name, _ in base if name not in names]
        fields: dict[str, JsonValue] = {"wire": number}
        fields |= {"headers": changed} if changed else {}
        fields |= {"without": without} if without else {}
        return Noted(line, fields)

    def _add(self, wire: Wire) -> int:
        self._headers.append(wire.headers)
        return self._known.setdefault(replace(wire, headers=()), len(self._headers) - 1)


def read_wire(fields: Fields, *, n_before: int, where: str) -> Wire:
    """Return the content of a ``wire`` line; ``n_before`` such lines came before it.

    Raises:
        TranscriptError: it has another number.
        MalformedError: a field is missing, unknown or out of range.
    """
    if fields.integer("wire") != n_before:
        raise TranscriptError(f"{where}: ways of answers must be numbered in order")
    certificates = fields.texts("certificates", max_items=MAX_CERTIFICATES)
    if any(len(digest) != 64 or set(digest) - set("0123456789abcdef") for digest in certificates):
        raise MalformedError(f"{where}: a certificate is stated by 64 hex digits")
    return Wire(
        address=fields.text("address", max_length=MAX_TEXT),
        certificates=certificates,
        redirects=fields.texts("redirects", max_items=MAX_REDIRECTS),
        headers=_headers(fields, where=where),
    )


def read_reference(fields: Fields, wires: Sequence[Wire], *, where: str) -> Wire | None:
    """Return how the answer of a line arrived, None where the line does not say.

    Raises:
        TranscriptError: it refers to a line that is not there, or leaves out a header that was never stated.
        MalformedError: a field is out of range.
    """
    if not fields.has("wire"):
        return None
    number = fields.integer("wire")
    if number >= len(wires):
        raise TranscriptError(f"{where}: refers to a way of answers that is not on record")
    base = wires[number]
    changed = dict(_headers(fields, where=where)) if fields.has("headers") else {}
    without = fields.texts("without", max_items=MAX_HEADERS) if fields.has("without") else ()
    if not changed and not without:
        return base
    found = dict(base.headers)
    if not set(without) <= set(found):
        raise TranscriptError(f"{where}: is without a header that was never stated")
    found = {name: value for name, value in found.items() if name not in without} | changed
    # The pairs of the base are kept as they are, so that many answers share them in memory.
    same = {item[0]: item for item in base.headers}
    pairs = (same[name] if name in same and same[name][1] == value else (name, value) for name, value in found.items())
    return replace(base, headers=tuple(sorted(pairs)))


def _headers(fields: Fields, *, where: str) -> Headers:
    found = []
    for item in fields.items("headers", max_items=MAX_HEADERS):
        pair = tuple(item) if isinstance(item, list) else ()
        if len(pair) != 2 or not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in pair):
            raise MalformedError(f"{where}: a header is a name and a value")
        found.append((str(pair[0]), str(pair[1])))
    if len({name for name, _ in found}) != len(found):
        raise MalformedError(f"{where}: a header is stated twice")
    return tuple(found)


def _plain(wire: Wire) -> Wire:
    """Cut what adapters report to what a transcript holds."""
    headers = {_text(name): _text(value) for name, value in wire.headers[:MAX_HEADERS]}
    return Wire(
        address=_text(wire.address),
        certificates=wire.certificates[:MAX_CERTIFICATES],
        redirects=tuple(_text(place) for place in wire.redirects[:MAX_REDIRECTS]),
        headers=tuple(sorted(headers.items())),
    )


def _text(text: str) -> str:
    return (text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8"))[:MAX_TEXT]
