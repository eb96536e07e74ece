"""What a transcript tells about the network between examiner and suspect, in a few numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from auditor.errors import Wire
from auditor.evidence.transcript_records import BatchRecord, Transcript

MAX_NAMED = 8
TOLD_HEADERS = ("server", "via", "x-powered-by", "x-served-by")
"""Headers in which services and what stands before them name themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How the answers of one audit arrived."""

    n_answers: int
    """Batches with an answer."""
    n_recorded: int
    """Those of them whose way is on record."""
    addresses: tuple[str, ...]
    """Network addresses that answered, in the order of first use."""
    certificates: tuple[str, ...]
    """SHA-256 of the services' own TLS certificates, in the order of first use."""
    redirects: tuple[str, ...]
    """Places that questions were sent on to."""
    named: Mapping[str, tuple[str, ...]]
    """What the service calls itself, by header."""
    failed_attempts: Mapping[str, int]
    """How often an attempt brought no complete answer, by reason."""
    waited_ms: int
    """Waits between attempts, added up."""
    clock_ms: tuple[int, int] | None
    """Least and greatest lead of the server's Date over the examiner's clock; None without a date that can be read."""
    most_in_flight: int
    """Most requests on their way at one time."""

    def as_text(self) -> str:
        """Return one line for a person."""
        if not self.n_recorded:
            return "no address or header is on record"
        parts = [f"way of {self.n_recorded} of {self.n_answers} answers on record"]
        parts += [_counted(len(self.addresses), "address", "addresses")] if self.addresses else []
        parts += [_counted(len(self.certificates), "certificate", "certificates")] if self.certificates else []
        parts += [_counted(len(self.redirects), "redirect", "redirects")] if self.redirects else []
        parts += [f"up to {self.most_in_flight} requests at a time"] if self.most_in_flight > 1 else []
        return ", ".join(parts)


def transport_of(transcript: Transcript) -> Transport:
    """Return what a transcript tells about the network."""
    answered = [batch for batch in transcript.batches if batch.answers is not None]
    recorded = [batch for batch in answered if batch.wire is not None]
    attempts = [attempt for batch in transcript.batches for attempt in batch.failed_attempts]
    named = {name: _values(transcript, name) for name in TOLD_HEADERS}
    leads = list(_leads_ms(recorded))
    return Transport(
        n_answers=len(answered),
        n_recorded=len(recorded),
        addresses=_distinct(wire.address for wire in transcript.wires),
        certificates=_distinct(wire.certificates[0] for wire in transcript.wires if wire.certificates),
        redirects=_distinct(place for wire in transcript.wires for place in wire.redirects),
        named={name: values for name, values in named.items() if values},
        failed_attempts=dict(sorted(Counter(attempt.error for attempt in attempts).items())),
        waited_ms=sum(attempt.waited_ms for attempt in attempts),
        clock_ms=(min(leads), max(leads)) if leads else None,
        most_in_flight=transcript.most_in_flight,
    )


def _values(transcript: Transcript, name: str) -> tuple[str, ...]:
    seen: dict[Wire, None] = dict.fromkeys(batch.wire for batch in transcript.batches if batch.wire is not None)
    return _distinct(value for wire in seen for header, value in wire.headers if header == name)[:MAX_NAMED]


def _leads_ms(batches: list[BatchRecord]) -> Iterator[int]:
    """Yield by how much each server's Date is ahead of the time at which its answer was written down."""
    for batch in batches:
        try:
            stated = parsedate_to_datetime(batch.server_date or "")
            written = datetime.fromisoformat(batch.answered_at or "")
        except (TypeError, ValueError):
            continue
        stated = stated if stated.tzinfo else stated.replace(tzinfo=UTC)
        yield round((stated - written).total_seconds() * 1000)


def _distinct(values: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
