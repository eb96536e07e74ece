"""How the answers arrived: the report's facts about network addresses, certificates, clocks and attempts."""

from auditor.evidence.transport import Transport
from auditor.report.text import clean
from auditor.report.view import Row

MAX_SHOWN = 6


def transport_rows(transport: Transport) -> tuple[Row, ...]:
    """Return rows for what is on record; none for a transcript that says nothing about the network."""
    if not transport.n_recorded:
        return ()
    rows = [
        Row(label="Answers whose way is on record", value=f"{transport.n_recorded:,} of {transport.n_answers:,}"),
        Row(label="Network addresses that answered", value=_listed(transport.addresses) or "not known, as by proxy"),
        Row(
            label="TLS certificates shown, SHA-256",
            value=_listed(transport.certificates) or "none: the connection was not encrypted, or by proxy",
            code=bool(transport.certificates),
        ),
        Row(label="Redirects that were followed", value=_listed(transport.redirects) or "none"),
    ]
    named = [f"{name}: {_listed(values)}" for name, values in transport.named.items()]
    if named:
        rows.append(Row(label="What the service calls itself", value="; ".join(named)))
    reasons = [f"{n:,} × {clean(reason, limit=80)}" for reason, n in transport.failed_attempts.items()]
    if reasons:
        waited = f"; waits of {transport.waited_ms / 1000:.1f} s between attempts"
        shown = ", ".join(reasons[:MAX_SHOWN]) + (", …" if len(reasons) > MAX_SHOWN else "")
        rows.append(Row(label="Why attempts brought no answer", value=shown + waited))
    if transport.clock_ms is not None:
        low, high = (f"{lead / 1000:+.1f} s" for lead in transport.clock_ms)
        rows.append(Row(label="Server's stated time against the examiner's clock", value=f"{low} to {high}"))
    if transport.most_in_flight > 1:
        rows.append(Row(label="Most requests on their way at a time", value=str(transport.most_in_flight)))
    return tuple(rows)


def _listed(values: tuple[str, ...]) -> str:
    more = f" and {len(values) - MAX_SHOWN} more" if len(values) > MAX_SHOWN else ""
    return ", ".join(clean(value, limit=120) for value in values[:MAX_SHOWN]) + more
