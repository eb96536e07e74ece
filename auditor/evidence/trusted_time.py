"""Step 5 of the re-check: what independent time stamps show about seal, transcript head and manifest.

Every token must be over the file it lies beside. Tokens that verify under the caller's roots must tell the order of
an honest audit: the seal before the first question, the transcript's head after the last answer and not after the
manifest. Later tokens over the same file add an authority and take nothing away, so the earliest one counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from auditor.errors import TimestampError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import Bundle
from auditor.evidence.times import utc_text
from auditor.evidence.timestamps import TokenFinding, TokenState, verify_tokens
from auditor.evidence.token_files import tokens_among
from auditor.evidence.transcript import Transcript, read_transcript

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

CLOCK_TOLERANCE_S = 60
"""How far the examiner's clock may run ahead of the authorities' before the transcript's times are disbelieved."""

STAMPED = (("seal", paths.SEAL), ("transcript head", paths.HEAD_ENVELOPE), ("manifest", paths.MANIFEST_ENVELOPE))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeFinding:
    """What the tokens of a bundle show."""

    complete: bool
    """True when all three files carry verified tokens and no token is left unverified."""
    detail: str


def check_times(bundle: Bundle, *, roots: Sequence["Certificate"]) -> TimeFinding:
    """Verify all tokens of a bundle and the order they tell.

    Args:
        bundle: files that equal their digests.
        roots: certificates of time authorities that the caller trusts; none leaves the tokens unverified.

    Raises:
        TimestampError: a token is malformed or over other bytes, none over a file verifies although roots were
            given, or the times contradict the order of an audit.
    """
    files = {**bundle.contents, **bundle.manifest_tokens}
    data = {**bundle.contents, paths.MANIFEST_ENVELOPE: bundle.manifest_envelope}
    found = {
        name: verify_tokens(tokens_among(files, path), data=data[path], roots=roots)
        for name, path in STAMPED
    }  # fmt: skip
    if not any(found.values()):
        return TimeFinding(
            complete=False,
            detail="not independently time-stamped; times are those of the owner's and the examiner's clocks",
        )
    if not roots:
        n_tokens = sum(len(findings) for findings in found.values())
        return TimeFinding(
            complete=False,
            detail=f"{n_tokens} time stamps are over the right files, but no root of a time authority was given "
            "(--tsa-root)",
        )
    earliest = {name: _earliest(name, findings) for name, findings in found.items()}
    _check_order(earliest, read_transcript(bundle.contents[paths.TRANSCRIPT]))
    return TimeFinding(
        complete=all(text is not None for text in earliest.values()) and not _open(found),
        detail="; ".join([_told(name, earliest[name], found[name]) for name, _ in STAMPED] + _open(found)),
    )


def _earliest(name: str, findings: Sequence[TokenFinding]) -> str | None:
    """Return the earliest verified time of a file, or None when it carries no token or none can be verified here."""
    verified = [finding.token.stamped_at for finding in findings if finding.state is TokenState.VERIFIED]
    if verified:
        return min(verified)
    untrusted = [finding for finding in findings if finding.state is TokenState.UNTRUSTED]
    if untrusted:
        raise TimestampError(f"no time stamp over the {name} verifies: {untrusted[0].path} {untrusted[0].reason}")
    return None


def _check_order(earliest: dict[str, str | None], transcript: Transcript) -> None:
    seal, head, manifest = (earliest[name] for name, _ in STAMPED)
    if seal is not None and seal > transcript.opened_at:
        raise TimestampError(f"the seal was time-stamped at {seal}, only after the first record")
    if head is not None and _later(head, CLOCK_TOLERANCE_S) < transcript.closed_at:
        raise TimestampError(
            f"the transcript's head was time-stamped at {head}, before the last record it covers: "
            "the examiner's clock runs ahead"
        )
    if head is not None and manifest is not None and head > manifest:
        raise TimestampError(f"the manifest was time-stamped at {manifest}, before the transcript's head")
    if seal is not None and head is not None and seal > head:
        raise TimestampError(f"the transcript's head was time-stamped at {head}, before the seal")


def _told(name: str, stamped_at: str | None, findings: Sequence[TokenFinding]) -> str:
    if stamped_at is None:
        return f"{name} not independently time-stamped" if not findings else f"{name} not verified"
    accuracy = max(finding.token.accuracy_ms for finding in findings if finding.token.stamped_at == stamped_at)
    return f"{name} {stamped_at}" + (f" (±{accuracy} ms)" if accuracy else "")


def _open(found: dict[str, tuple[TokenFinding, ...]]) -> list[str]:
    """Return what remains to be done for tokens that were not verified."""
    left = []
    for name, path in STAMPED:
        for finding in found[name]:
            if finding.state is TokenState.UNREADABLE:
                left.append(
                    f"{finding.path}: {finding.reason}; try: openssl ts -verify -data {path} -in {finding.path} "
                    "-CAfile ROOTS.pem"
                )
            elif finding.state is TokenState.UNTRUSTED:
                left.append(f"{finding.path}: {finding.reason}")
    return left


def _later(text: str, seconds: int) -> str:
    return utc_text(datetime.fromisoformat(text) + timedelta(seconds=seconds))
